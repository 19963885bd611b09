"""What an evaluation states: the figures of every mode, what the network costs, with what settings.

`Figures.write` fills the folder evaluation/, `Figures.metrics` is metrics.json.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.evaluation.bootstrap import Interval, difference_interval, miou_interval
from pipeline.evaluation.tally import Tally, write_counts
from pipeline.evaluation.trimap import band_accuracies, band_mious
from pipeline.files import write_json, write_whole

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
    classes: list[str]
    palette: list[list[int]]
    #: The images that are counted, in the order of the tally.
    ids: Sequence[str]
    tally: Tally
    cost: Cost
    evaluate: EvaluateConfig
    #: The CRF's settings that were used: those of `crf`, or what a search found.
    crf: CrfConfig
    #: Images of the split that a search saw, and that no figure counts.
    held_apart: int = 0
    #: Part of the evaluation -> seconds.
    seconds: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the counts, as it stands in evaluation/figures.json."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "images": len(self.ids),
            "held_apart": self.held_apart,
            "void": self.tally.void,
            "classes": self.classes,
            "palette": self.palette,
            "modes": {mode: self._mode(mode) for mode in self.tally.modes},
            "crf_gain_ci": _bounds(self._crf_gain_interval()),
            "cost": asdict(self.cost),
            "seconds": dict(self.seconds),
            "settings": self._settings() | {"crf": asdict(self.crf)},
        }

    def metrics(self) -> dict[str, Any]:
        """The figures of metrics.json: mIoU per mode, what the CRF gains, cost, IoUs, settings.

        What has a point in its name under `dvc metrics show` is a mapping here.
        """
        miou = {mode: self.tally.matrices[mode].miou() for mode in MODES}
        single = self._mode("single")
        return {
            "miou": miou["single"],
            "miou_crf": miou["single_crf"],
            "miou_ms_flip": miou["ms_flip"],
            "miou_ms_flip_crf": miou["ms_flip_crf"],
            "miou_ci": single["miou_ci"],
            "crf_gain": miou["single_crf"] - miou["single"],
            "crf_gain_ci": _bounds(self._crf_gain_interval()),
            "fw_iou": single["fw_iou"],
            "pixel_accuracy": single["pixel_accuracy"],
            "mean_accuracy": single["mean_accuracy"],
            "params_m": self.cost.params_m,
            "gmacs": self.cost.gmacs,
            "peak_mib": self.cost.peak_mib,
            "ms_per_image": self.cost.ms_per_image,
            "images": len(self.ids),
            "held_apart": self.held_apart,
            "seconds": dict(self.seconds),
            "crf": asdict(self.crf),
            "iou": single["iou"],
        }

    def summary(self) -> str:
        """One line for the terminal."""
        mious = ", ".join(f"{mode} {self.tally.matrices[mode].miou():.2f}" for mode in MODES)
        within = self._interval("single")
        trust = f" (single: {within.low:.2f} to {within.high:.2f})" if within else ""
        return f"mIoU on {len(self.ids)} images of {self.dataset} {self.split}: {mious}{trust}"

    def write(self, folder: Path) -> None:
        """Write the folder `evaluation`: figures.json, counts.npz and two tables for each mode.

        confusion_<mode>.csv is the matrix; trimap_<mode>.csv has mIoU and pixel accuracy in the
        band around the borders, by its width in pixels.
        """
        for mode in self.tally.modes:
            self.tally.matrices[mode].write_csv(folder / f"confusion_{mode}.csv", self.classes)
            write_whole(folder / f"trimap_{mode}.csv", self._trimap(mode))
        write_counts(folder / "counts.npz", self.tally, self.ids)
        write_json(folder / "figures.json", self.as_dict())

    def _settings(self) -> dict[str, Any]:
        """Those keys of `evaluate` that bear on a figure."""
        aside = ("split", "batch_size", "cost_size", "pictures")
        return {key: value for key, value in asdict(self.evaluate).items() if key not in aside}

    def _mode(self, mode: str) -> dict[str, Any]:
        matrix = self.tally.matrices[mode]
        return {
            "miou": matrix.miou(),
            "miou_ci": _bounds(self._interval(mode)),
            "pixel_accuracy": matrix.pixel_accuracy(),
            "mean_accuracy": matrix.mean_accuracy(),
            "fw_iou": matrix.frequency_weighted_iou(),
            "iou": dict(zip(self.classes, map(_known, matrix.iou()), strict=True)),
        }

    def _interval(self, mode: str) -> Interval | None:
        return miou_interval(self.tally.per_image[mode])

    def _crf_gain_interval(self) -> Interval | None:
        images = self.tally.per_image
        return difference_interval(images["single_crf"], images["single"])

    def _trimap(self, mode: str) -> str:
        counts = self.tally.trimap[mode]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["width", "miou", "pixel_accuracy"])
        columns = self.tally.trimap_widths, band_mious(counts), band_accuracies(counts)
        for width, miou, accuracy in zip(*columns, strict=True):
            writer.writerow([width, _known(miou), _known(accuracy)])
        return text.getvalue()


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _bounds(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else asdict(interval)
