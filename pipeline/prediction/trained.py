"""A trained network as the user names it: a variant, a folder, a file, or one that MLflow keeps."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.errors import UserError, nearest
from pipeline.inference.logits import INDEX, LOGITS, read_index
from pipeline.inference.search import crf_settings
from pipeline.inference.search.outcome import FOLDER, SETTINGS
from pipeline.models.checkpoint import load_network, read_checkpoint
from pipeline.models.network import SegmentationNetwork
from pipeline.paths import RUNS
from pipeline.prediction.store import open_store

CHECKPOINT = "model.ckpt"
#: How MLflow names a registered model, and what is on the row of a run.
STORED = ("models:/", "runs:/")


@dataclass(frozen=True)
class Trained:
    """What is known about a trained network before it is built."""

    #: Of model.ckpt.
    checkpoint: Path
    #: As the user named it.
    name: str
    #: The place in the list is the class number.
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    #: How the run was evaluated; the defaults, where nothing says it.
    evaluate: EvaluateConfig
    #: What its CRF was evaluated with; the defaults, where nothing says it.
    crf: CrfConfig

    def network(self) -> SegmentationNetwork:
        """The network, at the output stride at which the run was evaluated, on the CPU."""
        return load_network(self.checkpoint, self.evaluate.output_stride)

    def passes(
        self, *, multi_scale: bool = False, flip: bool = False, window: int | None = None
    ) -> EvaluateConfig:
        """How the network is run on an image.

        Args:
            multi_scale: at the scales of the run's evaluation; otherwise at scale 1.
            flip: also on the mirrored image.
            window: side of the tiles that larger images are seen in; None: as in the evaluation.
        """
        scales = list(self.evaluate.scales) if multi_scale else [1.0]
        tiles = self.evaluate.window if window is None else window
        return replace(self.evaluate, scales=scales, flip=flip, window=tiles)

    def described(self) -> list[dict[str, Any]]:
        """Number, name and colour of each class, for a JSON."""
        return [
            {"number": number, "name": name, "color": list(color)}
            for number, (name, color) in enumerate(zip(self.classes, self.palette, strict=True))
        ]


def find_trained(name: str, runs: Path = RUNS) -> Trained:
    """Read what a trained network is about.

    What stands beside model.ckpt counts: how the run was evaluated (logits/, else config.yaml) and
    with which CRF (crf/).

    Args:
        name: a variant's name, a run's folder, a model.ckpt, `models:/<name>@<alias>`,
            `models:/<name>/<version>` or `runs:/<run>/<name>`.
        runs: the folder of the variants' runs.

    Raises:
        UserError: there is no such network, or its files are damaged.
    """
    checkpoint = _fetched(name) if name.startswith(STORED) else _file(name, runs)
    saved = read_checkpoint(checkpoint)
    try:
        classes = tuple(str(one) for one in saved["classes"])
        palette = tuple((int(r), int(g), int(b)) for r, g, b in saved["palette"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"{checkpoint}: not a model.ckpt of this version; train it again"
        raise UserError(message) from error
    evaluate, crf = _settings(checkpoint.parent)
    return Trained(checkpoint, name, classes, palette, evaluate, crf)


def _file(name: str, runs: Path) -> Path:
    place = Path(name)
    if place.is_file():
        return place
    for folder in (place, runs / name):
        if (folder / CHECKPOINT).is_file():
            return folder / CHECKPOINT
    if place.is_dir():
        raise UserError(f"{name}: no {CHECKPOINT} in this folder; train first (`dvc repro`)")
    known = [path.parent.name for path in runs.glob(f"*/{CHECKPOINT}")]
    hint = nearest(name, known) if known else f"no variant is trained in {runs} yet"
    raise UserError(f"--model {name}: no such variant, folder or file; {hint}")


def _settings(folder: Path) -> tuple[EvaluateConfig, CrfConfig]:
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        evaluate: dict[str, Any] = config.get("evaluate", {})
        if (folder / LOGITS / INDEX).is_file():
            evaluate = evaluate | read_index(folder / LOGITS).settings
        crf = CrfConfig(**config.get("crf", {}))
        ways = EvaluateConfig(**evaluate)
    except (AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not the configuration of a run ({reason})") from error
    return ways, crf_settings(folder) if (folder / FOLDER / SETTINGS).is_file() else crf


def _fetched(uri: str) -> Path:
    """The model.ckpt of a model that MLflow keeps; a copy, where it is not on this machine."""
    store = open_store()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--model {uri}: not found in {store} ({reason})") from error
    found = sorted(folder.rglob(CHECKPOINT))
    if len(found) != 1:
        raise UserError(f"--model {uri}: not a model that this package has registered")
    return found[0]
