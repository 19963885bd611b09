"""The training-ready set, as training and evaluation read it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


@dataclass(frozen=True)
class Prepared:
    """A training-ready set: what it holds, and where each image and mask lies."""

    folder: Path
    name: str
    #: The place in the list is the class number.
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    void: int
    #: Split -> ids.
    splits: dict[str, tuple[str, ...]]
    #: sha256 over images, class numbers and splits.
    digest: str
    #: Mean and standard deviation of RGB in [0, 1], over train.
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    #: Id -> file name.
    images: dict[str, str]
    #: Id -> the classes that the image shows, in rising order, without void.
    shows: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def ids(self, split: str) -> list[str]:
        """The ids of a split.

        Raises:
            UserError: the data set has no such split.
        """
        if split not in self.splits:
            raise UserError(
                f"split={split}: data set {self.name} has no such split; "
                f"it has {', '.join(self.splits)}"
            )
        return list(self.splits[split])

    def image_path(self, id: str) -> Path:
        """The image: jpg, png or bmp."""
        return self.folder / "images" / self.images[id]

    def label_path(self, id: str) -> Path:
        """Its mask: an 8-bit palette PNG of class numbers, 255 = void."""
        return self.folder / "labels" / f"{id}.png"


def load_prepared(folder: Path) -> Prepared:
    """Open a training-ready set; no image is read.

    Raises:
        UserError: it is not there, or not whole.
    """
    description = _read_json(folder / "dataset.json")
    statistics = _read_json(folder / "statistics.json")
    images = {path.stem: path.name for path in sorted((folder / "images").glob("*"))}
    labels = {path.stem for path in (folder / "labels").glob("*.png")}
    try:
        prepared = Prepared(
            folder=folder,
            name=description["name"],
            classes=tuple(description["classes"]),
            palette=tuple((red, green, blue) for red, green, blue in description["palette"]),
            void=description["void"],
            splits={split: _read_ids(folder, split) for split in description["splits"]},
            digest=description["digest"],
            mean=_three(statistics["mean"]),
            std=_three(statistics["std"]),
            images=images,
            shows={
                id: tuple(shown) for id, shown in _read_json(folder / "classes_in.json").items()
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: not a training-ready set ({error}); {_REMEDY}") from error
    for split, ids in prepared.splits.items():
        if len(ids) != description["splits"][split]:
            raise UserError(f"{folder}/splits/{split}.txt: {len(ids)} ids, not whole; {_REMEDY}")
        for id in ids:
            if id not in images or id not in labels or id not in prepared.shows:
                raise UserError(f"{folder}: image or mask of {id} is missing; {_REMEDY}")
    return prepared


_REMEDY = "run `dvc repro -f augment`"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; run `dvc repro augment`") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON; {_REMEDY}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a training-ready set; {_REMEDY}")
    return content


def _read_ids(folder: Path, split: str) -> tuple[str, ...]:
    path = folder / "splits" / f"{split}.txt"
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; {_REMEDY}") from error


def _three(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
