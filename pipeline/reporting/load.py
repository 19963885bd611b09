"""The files of a run's folder as typed records; what is missing is None, never guessed."""

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf

from pipeline.composition import to_config
from pipeline.config import Config, architecture
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.errors import UserError
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.tally import Tally, read_counts

#: How a network is run at test time: key in the files -> words.
MODES = {
    "single": "single scale",
    "single_crf": "CRF",
    "ms_flip": "MS + flip",
    "ms_flip_crf": "MS + flip + CRF",
}


@dataclass(frozen=True)
class Scores:
    """What one mode scored, in percent; an absent class has None."""

    miou: float
    #: Where it lies, by the images; None with a single image.
    interval: Interval | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    #: Mean IoU weighted by how frequent each class is.
    fw_iou: float | None
    iou: dict[str, float | None]


@dataclass(frozen=True)
class Cost:
    """What one image costs: millions of parameters; GMACs, memory and time at `size` pixels."""

    params_m: float | None = None
    gmacs: float | None = None
    peak_mib: float | None = None
    ms_per_image: float | None = None
    size: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The folder evaluation/ of a run."""

    dataset: str
    split: str
    #: Of the images that were scored, in the order of the tally.
    ids: list[str]
    #: Images of the split that a search of the CRF's settings saw: no figure counts them.
    held_apart: int
    classes: list[str]
    palette: list[tuple[int, int, int]]
    modes: dict[str, Scores]
    cost: Cost
    #: Part of the evaluation -> seconds.
    seconds: dict[str, float]
    settings: dict[str, Any]
    #: All counts: by class, by image, by distance from a border.
    tally: Tally
    #: Folder of <mode>/<id>.png, the label maps of every image.
    labels: Path

    @property
    def images(self) -> int:
        """How many images were scored."""
        return len(self.ids)

    @property
    def protocol(self) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
        """What two evaluations must share for their figures to be comparable."""
        return self.dataset, self.split, tuple(self.classes), tuple(self.ids)

    def confusion(self, mode: str = "single") -> NDArray[np.int64]:
        """Pixels, rows = truth, columns = prediction."""
        return self.tally.matrices[mode].counts

    @property
    def crf_gain(self) -> float | None:
        """MIoU with the CRF minus without it, both at a single scale."""
        if "single" not in self.modes or "single_crf" not in self.modes:
            return None
        return self.modes["single_crf"].miou - self.modes["single"].miou


@dataclass(frozen=True)
class Validation:
    """One row of history.csv; mIoU in percent."""

    iteration: int
    train_loss: float | None
    val_miou: float | None


@dataclass(frozen=True)
class Search:
    """What a search of the CRF's settings left in the folder crf/; mIoU in percent."""

    #: Held apart: it saw them, and no figure counts them.
    images: int
    miou_without: float
    miou_given: float
    miou_found: float
    #: w1, sigma_alpha, sigma_beta.
    given: dict[str, float]
    found: dict[str, float]
    #: Settings whose best value ends the range that was searched.
    at_the_edge: list[str]
    #: The picture of mIoU over the settings; None if it is not there.
    surface: Path | None


@dataclass(frozen=True)
class Variant:
    """One of the compared variants and whatever its run left behind."""

    name: str
    config: Config | None = None
    evaluation: Evaluation | None = None
    history: list[Validation] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    #: None where the CRF's settings were not searched.
    search: Search | None = None

    @property
    def architecture(self) -> str | None:
        """The paper's network, if the configuration is there."""
        return architecture(self.config.model) if self.config else None

    @property
    def miou(self) -> float:
        """The mIoU by which variants are ranked: single scale, no CRF; NaN if not evaluated."""
        scores = self.evaluation.modes.get("single") if self.evaluation else None
        return scores.miou if scores else math.nan

    @property
    def state(self) -> str:
        """How far it got, in words."""
        if self.evaluation is not None:
            return "evaluated"
        return "not evaluated" if self.history else "not run"


def load_variants(names: list[str], runs: Path) -> list[Variant]:
    """Read runs/<name>/ of every named variant, in the given order.

    Raises:
        UserError: no variant is named, or a file is there but cannot be understood.
    """
    if not names:
        raise UserError("params.yaml: variants is empty, there is nothing to report; name one")
    return [load_variant(name, runs / name) for name in names]


def load_variant(name: str, folder: Path) -> Variant:
    """Read one run's folder; files that are not there leave their field empty."""
    config = folder / "config.yaml"
    run = folder / "run.json"
    history = folder / "history.csv"
    evaluation = folder / "evaluation" / "figures.json"
    search = folder / "crf" / "search.json"
    # Evaluation writes metrics.json last: without it the figures are of an earlier network.
    evaluated = evaluation.is_file() and (folder / "metrics.json").is_file()
    return Variant(
        name=name,
        config=_config(config) if config.is_file() else None,
        evaluation=_evaluation(evaluation) if evaluated else None,
        history=_history(history) if history.is_file() else [],
        run=_json(run, "train") if run.is_file() else {},
        search=_search(search) if search.is_file() else None,
    )


def load_data(name: str, prepared: Path) -> Prepared | None:
    """Open the training-ready set, None if it is not there.

    Raises:
        UserError: it is not whole.
    """
    folder = prepared / name
    return load_prepared(folder) if folder.is_dir() else None


def _config(path: Path) -> Config:
    """The resolved configuration, without Hydra's own sections."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        sections = {key: values[key] for key in values if key not in ("hydra", "defaults")}
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{path}: not a configuration; run the train stage again") from error
    try:
        return to_config(OmegaConf.create(sections))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _evaluation(path: Path) -> Evaluation:
    values = _json(path, "evaluate")
    try:
        classes = [str(name) for name in values["classes"]]
        modes = {
            mode: _scores(scores)
            for mode in MODES
            if (scores := values["modes"].get(mode)) is not None
        }
        if "single" not in modes:
            raise KeyError("modes.single")
        cost = values.get("cost", {})
        ids, tally = read_counts(path.with_name("counts.npz"))
        missing = set(modes) - set(tally.modes)
        if missing or tally.num_classes != len(classes):
            raise KeyError(f"counts.npz: {tally.num_classes} classes of {', '.join(tally.modes)}")
        return Evaluation(
            dataset=values["dataset"],
            split=values["split"],
            ids=ids,
            held_apart=values["held_apart"],
            classes=classes,
            palette=[(r, g, b) for r, g, b in values["palette"]],
            modes=modes,
            cost=Cost(**{key: cost.get(key) for key in Cost.__dataclass_fields__}),
            seconds=values.get("seconds", {}),
            settings=values.get("settings", {}),
            tally=tally,
            labels=path.parent / "labels",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: {error} is missing or of another form; run the evaluate stage again"
        ) from error


def _scores(values: dict[str, Any]) -> Scores:
    bounds = values.get("miou_ci")
    return Scores(
        miou=values["miou"],
        interval=Interval(**bounds) if bounds else None,
        pixel_accuracy=values.get("pixel_accuracy"),
        mean_accuracy=values.get("mean_accuracy"),
        fw_iou=values.get("fw_iou"),
        iou=values["iou"],
    )


def _search(path: Path) -> Search:
    values, surface = _json(path, "tune"), path.with_name("surface.png")
    try:
        return Search(
            images=values["images"],
            miou_without=values["miou_without_crf"],
            miou_given=values["miou_given"],
            miou_found=values["miou_found"],
            given=values["given"],
            found=values["found"],
            at_the_edge=values["at_the_edge_of"],
            surface=surface if surface.is_file() else None,
        )
    except KeyError as error:
        raise UserError(f"{path}: {error} is missing; run the tune stage again") from error


def _history(path: Path) -> list[Validation]:
    with open(path, newline="", encoding="utf-8") as file:
        try:
            return [
                Validation(
                    iteration=int(float(row["iteration"])),
                    train_loss=_number(row["train_loss"]),
                    val_miou=_number(row["val_miou"]),
                )
                for row in csv.DictReader(file)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {error}; run the train stage again") from error


def _number(text: str | None) -> float | None:
    """A cell as a number; an empty one and NaN are None."""
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


def _json(path: Path, stage: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); run the {stage} stage again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; run the {stage} stage again")
    return values
