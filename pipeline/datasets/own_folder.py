"""The user's own folder as a data set: its files get a second name below data/raw/."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.links import can_link, link_or_copy
from pipeline.datasets.progress import one_bar
from pipeline.datasets.space import require_space
from pipeline.errors import UserError

#: Files by their path in the folder, with size and time of the last change (in nanoseconds).
Listing = dict[str, tuple[int, int]]


def list_files(folder: Path) -> Listing:
    """What is in a folder and those below, hidden files left out; links are followed.

    A second name and a copy have the size and the time of the original: two folders with the same
    listing have the same files.

    Raises:
        UserError: a link leads nowhere or back to a folder above, or something may not be read.
    """
    try:
        return {
            path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in _walk(folder, ())
        }
    except PermissionError as error:
        raise _unreadable(Path(error.filename)) from error


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:
        raise UserError(f"{folder}: is a link to a folder above itself; remove it")
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(path, (*above, here))
        elif entry.is_file():
            yield path
        else:
            raise UserError(f"{path}: is no file, or a link that leads nowhere; remove it")


def list_own_files(folder: Path, root: Path, key: str) -> Listing:
    """What is in the user's folder, which has to be one that can be a data set.

    Args:
        folder: the user's.
        root: the folder of all raw data.
        key: where the folder is named, for the message.

    Raises:
        UserError: it is not there or empty, or one of the two folders is inside the other.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: the folder is not there; put or link your files there ({key})")
    ours, theirs = root.resolve(), folder.resolve()
    if theirs.is_relative_to(ours) or ours.is_relative_to(theirs):
        raise UserError(
            f"{folder}: must be neither in {root}, which is filled from it, nor around it; "
            f"move your files elsewhere, such as data/own/ ({key})"
        )
    listing = list_files(folder)
    if not listing:
        raise UserError(f"{folder}: the folder is empty; put your files there ({key})")
    return listing


def link_files(source: Path, folder: Path) -> None:
    """Give all files of the user's folder a second name, or copy them to another disk.

    Args:
        source: the user's folder; its files are only read.
        folder: an existing folder.

    Raises:
        UserError: they have to be copied and do not fit, or one may not be read.
    """
    listing = list_files(source)
    total = sum(size for size, _ in listing.values())
    if not can_link(source / next(iter(listing)), folder):
        require_space([(folder, total)], f"a copy of {source}")
    with one_bar(source.name) as bar:
        bar.begin("take over", total)
        for name, (size, _) in listing.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(source / name, os.R_OK):
                raise _unreadable(source / name)
            link_or_copy(source / name, target)
            bar.advance(size)


def _unreadable(path: Path) -> UserError:
    return UserError(f"{path}: may not be read; change its permissions")
