"""Images decoded once and mapped into memory from then on.

Decoding a PNG of 2048 x 1024 takes twenty times longer than everything else that a training crop
needs, and a crop shows a part of it. Mapped into memory, only the rows of that part are read; the
price is the disk: 4 bytes a pixel, label and all.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared


class DecodedPairs:
    """The images and labels of a set, each decoded when it is first read.

    Any number of processes may read, and write, at once. Other data never meets these files: their
    folder is named after the data's digest.

    Args:
        data: the set.
        folder: where decoded sets lie; nothing depends on it, it may be deleted at any time.
    """

    def __init__(self, data: Prepared, folder: Path) -> None:
        self.data = data
        self.folder = folder / f"{data.name}-{data.digest[:12]}"
        self.writes = True

    def read(self, id: str) -> tuple[np.ndarray, np.ndarray]:
        """An image, uint8 H x W x 3, and its label, uint8 H x W; writing to them changes no file.

        Raises:
            UserError: the image or its mask cannot be read.
        """
        image, label = self.data.image_path(id), self.data.label_path(id)
        return (
            self._mapped(self.folder / f"{id}.image.npy", lambda: read_image(image)),
            self._mapped(self.folder / f"{id}.label.npy", lambda: read_label(label)),
        )

    def _mapped(self, path: Path, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a file; where there is none yet, or half of one, it is written."""
        try:
            array: np.ndarray = np.load(path, mmap_mode="c")
            return array
        except (OSError, EOFError, ValueError):
            pixels = decode().copy()
        if self.writes:
            try:
                _write(path, pixels)
            except OSError as error:
                # A training that goes on slower is better than none.
                self.writes = False
                print(
                    f"warning: {path}: cannot be written ({error.strerror}); images that are not "
                    "decoded yet are decoded each time",
                    flush=True,
                )
        return pixels


def _write(path: Path, pixels: np.ndarray) -> None:
    # A name of this process's own: two of them may decode the same image at the same moment.
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(beside, "wb") as file:
            np.save(file, pixels)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
