"""Find the files that a manifest's template stands for, such as `images/{id}.*`."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pipeline.datasets.images import SUFFIXES
from pipeline.errors import UserError


class Files:
    """The files of a template: `{id}` is an image's name.

    `*` in a folder's name is anything; `.*` at the end is any suffix of an image. Hidden files
    are left out: some systems lay them beside every picture.
    """

    def __init__(self, root: Path, template: str) -> None:
        self.root, self.template = root, template

    def find(self, id: str) -> Path | None:
        """The file of an id, or None."""
        if "*" in self.template:
            return self.all.get(id)
        path = self.root / self.template.replace("{id}", id)
        return path if path.is_file() else None

    @cached_property
    def all(self) -> dict[str, Path]:
        """Every file, by id, sorted.

        Raises:
            UserError: two files have the same id.
        """
        found: dict[str, Path] = {}
        for id, path in _walk(self.root, self.template.split("/"), None):
            if id in found:
                raise UserError(
                    f"{path}: id {id} is {found[id]} already; rename one, so that every id of "
                    f"{self.template} is one file"
                )
            found[id] = path
        return dict(sorted(found.items()))

    def id_of(self, path: str) -> str | None:
        """The id of a file, from the last part of its path; None: it is not named so."""
        name = self.template.rsplit("/", 1)[-1]
        match = _pattern(name, None).fullmatch(path.rsplit("/", 1)[-1]) if "{id}" in name else None
        return match["id"] if match else None


def _walk(folder: Path, segments: list[str], id: str | None) -> Iterator[tuple[str, Path]]:
    """The ids and files below a folder that the rest of a template matches."""
    segment, *rest = segments
    if "{id}" not in segment and "*" not in segment:
        path = folder / segment
        if rest and path.is_dir():
            yield from _walk(path, rest, id)
        elif not rest and id is not None and path.is_file():
            yield id, path
        return
    pattern = _pattern(segment, id)
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in names:
        match = pattern.fullmatch(name)
        if not match or (name.startswith(".") and not segment.startswith(".")):
            continue
        known = match["id"] if id is None and "{id}" in segment else id
        if rest and is_folder:
            yield from _walk(folder / name, rest, known)
        elif not rest and not is_folder and known is not None:
            yield known, folder / name


def _pattern(segment: str, id: str | None) -> re.Pattern[str]:
    """What a part of a path matches; `id`, if it is known, must come again."""
    any_suffix = segment.endswith(".*")
    pattern, known = "", id is not None
    for piece in re.split(r"({id}|\*)", segment.removesuffix(".*")):
        if piece == "*":
            pattern += "[^/]*"
        elif piece == "{id}" and not known:
            pattern, known = pattern + "(?P<id>[^/]+)", True
        elif piece == "{id}":
            pattern += re.escape(id) if id is not None else "(?P=id)"
        else:
            pattern += re.escape(piece)
    if any_suffix:
        pattern += f"(?i:{'|'.join(re.escape(suffix) for suffix in SUFFIXES)})"
    return re.compile(pattern)
