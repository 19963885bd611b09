"""What an evaluation states: the figures of every mode, what the network costs, with what settings.

`Figures.as_dict` is evaluation/figures.json, `Figures.metrics` is metrics.json.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.files import write_json

#: How the network is run: once, or over scales and flips; each without and with the dense CRF.
MODES = ("single", "single_crf", "ms_flip", "ms_flip_crf")


@dataclass(frozen=True)
class Cost:
    """What one image costs: millions of parameters, giga multiply-adds, memory, milliseconds."""

    params_m: float
    gmacs: float
    #: Of a forward pass: weights and the maps alive at the same time, float32.
    peak_mib: float
    ms_per_image: float
    #: The side in pixels at which all but the parameters are stated.
    size: int
    device: str


@dataclass(frozen=True)
class Figures:
    """One trained network on one split; all percentages are 0..100 and unrounded."""

    dataset: str
    split: str
    images: int
    void: int
    classes: list[str]
    palette: list[list[int]]
    matrices: Mapping[str, ConfusionMatrix]
    cost: Cost
    evaluate: EvaluateConfig
    crf: CrfConfig

    def as_dict(self) -> dict[str, Any]:
        """Everything but the matrices, as it stands in evaluation/figures.json."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "void": self.void,
            "classes": self.classes,
            "palette": self.palette,
            "modes": {mode: self._mode(mode) for mode in MODES},
            "cost": asdict(self.cost),
            "settings": {
                "scales": list(self.evaluate.scales),
                "flip": self.evaluate.flip,
                "pad_to": self.evaluate.pad_to,
                "crf": asdict(self.crf),
            },
        }

    def metrics(self) -> dict[str, Any]:
        """The flat figures of metrics.json: mIoU per mode, what the CRF gains, cost, IoUs."""
        miou = {mode: matrix.miou() for mode, matrix in self.matrices.items()}
        single = self._mode("single")
        return {
            "miou": miou["single"],
            "miou_crf": miou["single_crf"],
            "miou_ms_flip": miou["ms_flip"],
            "miou_ms_flip_crf": miou["ms_flip_crf"],
            "crf_gain": miou["single_crf"] - miou["single"],
            "pixel_accuracy": single["pixel_accuracy"],
            "params_m": self.cost.params_m,
            "gmacs": self.cost.gmacs,
            "peak_mib": self.cost.peak_mib,
            "ms_per_image": self.cost.ms_per_image,
            "images": self.images,
            "iou": single["iou"],
        }

    def summary(self) -> str:
        """One line for the terminal."""
        mious = ", ".join(f"{mode} {self.matrices[mode].miou():.2f}" for mode in MODES)
        return f"mIoU on {self.images} images of {self.dataset} {self.split}: {mious}"

    def write(self, folder: Path) -> None:
        """Write figures.json and confusion_<mode>.csv into the folder `evaluation`."""
        for mode in MODES:
            self.matrices[mode].write_csv(folder / f"confusion_{mode}.csv", self.classes)
        write_json(folder / "figures.json", self.as_dict())

    def _mode(self, mode: str) -> dict[str, Any]:
        matrix = self.matrices[mode]
        iou = (None if math.isnan(value) else float(value) for value in matrix.iou())
        return {
            "miou": matrix.miou(),
            "pixel_accuracy": matrix.pixel_accuracy(),
            "iou": dict(zip(self.classes, iou, strict=True)),
        }
