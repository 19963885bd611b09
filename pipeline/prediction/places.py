"""Which files are predicted, and what their predictions are called."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pipeline.datasets.images import SUFFIXES
from pipeline.errors import UserError

#: What is written, each below a folder of its own.
LABELS, OVERLAYS, PROBABILITIES = "labels", "overlays", "probabilities"


def find_images(given: Sequence[Path], out: Path) -> dict[Path, PurePosixPath]:
    """The images that the user means, and the name of each one's prediction.

    Names mirror the folders, from the one that all images have in common. An image's suffix is left
    out of its prediction's name, unless another image differs in it alone.

    Args:
        given: files, whatever their suffix, and folders, searched to any depth.
        out: where predictions go; those of an earlier call are no images.

    Returns:
        Image -> name, relative and without the prediction's own suffix.

    Raises:
        UserError: a path is not there, or a folder has no images.
    """
    written = [(out / kind).resolve() for kind in (LABELS, OVERLAYS, PROBABILITIES)]
    found: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            images = [one for one in _inside(path) if not _below(one, written)]
            if not images:
                kinds = ", ".join(SUFFIXES)
                raise UserError(f"{path}: no images in this folder ({kinds})")
            found |= dict.fromkeys(images)
        elif path.exists():
            found[Path(os.path.abspath(path))] = None
        else:
            raise UserError(f"{path}: no such file or folder")
    folders = [_absolute(path) if path.is_dir() else _absolute(path).parent for path in given]
    common = os.path.commonpath(folders)
    return _names(found, Path(common))


def _absolute(path: Path) -> Path:
    # Links stay as the user wrote them.
    return Path(os.path.abspath(path))


def _inside(folder: Path) -> list[Path]:
    files = (path for path in sorted(_absolute(folder).rglob("*")) if path.is_file())
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _below(path: Path, folders: Iterable[Path]) -> bool:
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder) for folder in folders)


def _names(paths: Iterable[Path], common: Path) -> dict[Path, PurePosixPath]:
    whole = {path: PurePosixPath(path.relative_to(common).as_posix()) for path in paths}
    names = {path: name.with_suffix("") for path, name in whole.items()}
    # A whole name can be what another one is without its suffix.
    while doubled := {name for name, times in Counter(names.values()).items() if times > 1}:
        names = {path: whole[path] if name in doubled else name for path, name in names.items()}
    return names
