"""What a label format is: it turns masks as they were delivered into class numbers."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.section import Section
from pipeline.datasets.statistics import VOID
from pipeline.errors import UserError, nearest


@dataclass(frozen=True)
class Classes:
    """The classes that masks are turned into, and the manifest that names them."""

    #: The place in the list is the class number.
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    #: The void number in masks of class numbers; None: there is none.
    void: int | None
    manifest: Path


class LabelFormat(ABC):
    """Masks in files of their own, one an image."""

    @abstractmethod
    def read(self, path: Path) -> np.ndarray:
        """A mask: uint8 H x W, 0..classes - 1, and 255 for void.

        Raises:
            UserError: missing, damaged, of another format, or with what is no class.
        """


class Masks(ABC):
    """The masks of many images in one file, which is read once."""

    #: The images that it has a mask for, by file name without suffix.
    ids: tuple[str, ...]

    @abstractmethod
    def read(self, id: str) -> np.ndarray:
        """A mask: uint8 H x W, 0..classes - 1, and 255 for void.

        Raises:
            UserError: damaged, or with what is no class.
        """


class IndexedFormat(ABC):
    """Masks of many images in one file."""

    @abstractmethod
    def open(self, path: Path, root: Path) -> Masks:
        """Read the file and list its images.

        Args:
            path: the file.
            root: where the raw files lie.

        Raises:
            UserError: missing, damaged or of another format.
        """


def as_classes(values: np.ndarray, path: Path, classes: Classes) -> np.ndarray:
    """Class numbers with the source's void turned into 255.

    Args:
        values: whole numbers, H x W.
        path: where they are from, for messages.
        classes: what is allowed.

    Raises:
        UserError: any other value; the line names the first.
    """
    count = len(classes.names)
    wrong = (values < 0) | (values >= count)
    if classes.void is not None:
        wrong &= values != classes.void
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        void = "" if classes.void is None else f" and {classes.void} (void)"
        raise UserError(
            f"{path}: class number {values[row, column]} at x={column}, y={row}; allowed are "
            f"0..{count - 1}{void}: mend the mask, or classes and void in {classes.manifest}"
        )
    return np.where(values < count, values, VOID).astype(np.uint8)


def class_map(section: Section, key: str, classes: Classes, kind: type) -> dict[Any, int]:
    """What the manifest maps the source's numbers or names to: class numbers.

    Args:
        section: the format's part of the manifest.
        key: the mapping's key, source -> class name.
        classes: the classes.
        kind: int or str, what the source's side is.

    Raises:
        UserError: a source of another kind, or a class that does not exist.
    """
    numbers = {}
    for source, name in section.section(key).content.items():
        if type(source) is not kind or (isinstance(source, int) and source < 0):
            wanted = "a whole number of at least 0" if kind is int else "text"
            raise section.wrong(f"{key}.{source}", f"must be {wanted}, as in the source's masks")
        if name not in classes.names:
            hint = nearest(str(name), classes.names)
            raise section.wrong(f"{key}.{source}", f"{name}: no such class; {hint}")
        numbers[source] = classes.names.index(name)
    if not numbers:
        raise section.wrong(key, "must map something to a class, is empty")
    return numbers


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON file that holds a mapping.

    Raises:
        UserError: missing, or not that.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing; run `dvc repro -f download`") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); get it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON mapping; get the right file")
    return content
