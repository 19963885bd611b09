"""Find the mask of an image among those that a label source delivers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.datasets.formats import IndexedFormat, LabelFormat, LabelSource
from pipeline.datasets.templates import Files


@dataclass(frozen=True)
class Mask:
    """A mask that is there, not yet read."""

    #: The file that it is in.
    path: Path
    #: What messages call it: the file, and the image where that holds many.
    name: str
    #: uint8 H x W, class numbers, 255 void.
    read: Callable[[], np.ndarray] = field(compare=False, repr=False)


class Source(ABC):
    """The masks of a label source."""

    @abstractmethod
    def find(self, id: str) -> Mask | None:
        """The mask of an image, or None."""

    @abstractmethod
    def place(self, id: str) -> str:
        """Where its mask would have to be."""


class FileSource(Source):
    """Masks in files of their own."""

    def __init__(self, template: str, form: LabelFormat, raw: Path) -> None:
        self.files, self.form = Files(raw, template), form

    def find(self, id: str) -> Mask | None:
        """See Source.find."""
        path = self.files.find(id)
        return None if path is None else Mask(path, str(path), partial(self.form.read, path))

    def place(self, id: str) -> str:
        """See Source.place."""
        return str(self.files.root / self.files.template.replace("{id}", id))


class IndexedSource(Source):
    """Masks in one file, which is read at once."""

    def __init__(self, path: Path, form: IndexedFormat, raw: Path) -> None:
        self.path, self.masks = path, form.open(path, raw)
        self.ids = frozenset(self.masks.ids)

    def find(self, id: str) -> Mask | None:
        """See Source.find."""
        if id not in self.ids:
            return None
        return Mask(self.path, f"{self.path}: image {id}", partial(self.masks.read, id))

    def place(self, id: str) -> str:
        """See Source.place."""
        return str(self.path)


class Sources:
    """The label sources of a data set; one that several splits name is opened once."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw
        self._opened: list[tuple[LabelSource, Source]] = []

    def open(self, source: LabelSource) -> Source:
        """The masks of a source.

        Raises:
            UserError: a file of many masks is missing or damaged.
        """
        for known, opened in self._opened:
            if known == source:
                return opened
        opened = (
            FileSource(source.path, source.format, self.raw)
            if isinstance(source.format, LabelFormat)
            else IndexedSource(self.raw / source.path, source.format, self.raw)
        )
        self._opened.append((source, opened))
        return opened
