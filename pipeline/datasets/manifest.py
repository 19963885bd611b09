"""What a data set is: where it comes from, how its files lie, which classes it has.

One YAML file a data set under `data/manifests/`. The reader is strict: an unknown or missing key
is refused with the file and the key, before anything is downloaded.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.errors import UserError, nearest
from pipeline.paths import MANIFESTS

GENERATORS = ("shapes",)
REQUIRED_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Archive:
    """A tar or zip file that the data set is unpacked from."""

    file: str
    #: Paths (relative ones from the project's root) or http(s) addresses, tried in order.
    urls: tuple[str, ...]
    sha256: str
    #: Bytes.
    size: int


@dataclass(frozen=True)
class Generator:
    """A data set that is drawn by the project itself."""

    name: str
    seed: int
    #: Pixels.
    side: int


@dataclass(frozen=True)
class Split:
    """Where the images and masks of a split lie, below the raw folder; `{id}` is the image."""

    name: str
    #: Images expected.
    size: int
    image: str
    #: Tried in order: the first mask that exists is taken.
    labels: tuple[str, ...]
    #: A text file whose lines start with an id; None: whatever matches `image`.
    list_file: str | None


@dataclass(frozen=True)
class Manifest:
    """A data set, as its YAML file describes it."""

    path: Path
    name: str
    title: str
    licence: str
    #: What a user agrees to by using the data; said before a download.
    terms: str | None
    homepage: str | None
    source: tuple[Archive, ...] | Generator
    splits: dict[str, Split]
    #: The place in the list is the class number.
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    #: The void label in the source's masks; None: it has none. `augment` turns it into 255.
    void: int | None
    #: How an image is called in the training-ready set; `{split}` keeps equal ids apart.
    sample_id: str


def load_manifest(name: str, folder: Path = MANIFESTS) -> Manifest:
    """Read and check the manifest of a data set.

    Args:
        name: the data set, the file's name without `.yaml`.
        folder: where the manifests lie.

    Raises:
        UserError: no such data set, or a key that is unknown, missing or wrong.
    """
    path = folder / f"{name}.yaml"
    known = [file.stem for file in folder.glob("*.yaml")]
    if name not in known:
        raise UserError(f"dataset={name}: no manifest {path}; {nearest(name, known)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    return _manifest(_Section(path, "", content), name)


class _Section:
    """A mapping of the file, read key by key; every complaint names the file and the key."""

    def __init__(self, path: Path, where: str, content: Any) -> None:
        self.path, self.where = path, where
        if not isinstance(content, dict):
            raise self.wrong("", f"must be a mapping of keys to values, is {content!r}")
        self.content = content

    def wrong(self, key: str, complaint: str) -> UserError:
        """The error of a key."""
        place = ".".join(part for part in (self.where, key) if part)
        return UserError(f"{self.path}: {place + ': ' if place else ''}{complaint}")

    def keys(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        """Refuse unknown keys, then missing ones."""
        for key in self.content:
            if key not in required + optional:
                raise self.wrong(str(key), f"unknown key; {nearest(str(key), required + optional)}")
        for key in required:
            if key not in self.content:
                raise self.wrong(key, "this key is missing; add it")

    def section(self, key: str) -> "_Section":
        """A mapping below."""
        return _Section(self.path, f"{self.where}.{key}" if self.where else key, self.content[key])

    def sections(self, key: str) -> list["_Section"]:
        """A list of mappings below."""
        where = f"{self.where}.{key}" if self.where else key
        return [
            _Section(self.path, f"{where}[{number}]", item)
            for number, item in enumerate(self.items(key))
        ]

    def items(self, key: str) -> list[Any]:
        """A list with something in it."""
        value = self.content[key]
        if not isinstance(value, list) or not value:
            raise self.wrong(key, f"must be a list with at least one entry, is {value!r}")
        return value

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.content[key]
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"must be text, is {value!r}")
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        for value in self.items(key):
            if not isinstance(value, str) or not value.strip():
                raise self.wrong(key, f"must be a list of text, holds {value!r}")
        return tuple(self.content[key])

    def optional_text(self, key: str) -> str | None:
        """A text, or None where the key is absent or null."""
        return None if self.content.get(key) is None else self.text(key)

    def number(self, key: str, least: int, most: int | None = None) -> int:
        """A whole number in a range."""
        value = self.content[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < least or (most is not None and value > most):
            allowed = f"of at least {least}" if most is None else f"in {least}..{most}"
            raise self.wrong(key, f"must be a whole number {allowed}, is {value!r}")
        return int(value)

    def below(self, key: str, template: str) -> str:
        """A path that stays below the raw folder."""
        path = PurePosixPath(template)
        if path.is_absolute() or ".." in path.parts:
            raise self.wrong(key, f"{template}: must be a path below the unpacked data, without ..")
        return template

    def with_id(self, key: str, template: str) -> str:
        """A template with `{id}` in it, once, and no other field."""
        fields = re.findall(r"{[^}]*}", template)
        if fields.count("{id}") != 1 or set(fields) - {"{id}", "{split}"}:
            raise self.wrong(key, f"{template}: must hold {{id}} once, the image's name")
        return template


def _manifest(top: _Section, name: str) -> Manifest:
    top.keys(
        ("name", "title", "licence", "source", "splits", "classes", "void"),
        ("terms", "homepage", "sample_id"),
    )
    if top.text("name") != name:
        raise top.wrong("name", f"{top.text('name')}: must be the file's own name, {name}")
    classes, palette = _classes(top)
    void = None if top.content["void"] is None else top.number("void", 0, 255)
    if void is not None and void < len(classes):
        raise top.wrong("void", f"{void} is class {classes[void]}; void must not be a class number")
    sample_id = top.optional_text("sample_id") or "{id}"
    return Manifest(
        path=top.path,
        name=name,
        title=top.text("title"),
        licence=top.text("licence"),
        terms=top.optional_text("terms"),
        homepage=top.optional_text("homepage"),
        source=_source(top.section("source")),
        splits=_splits(top.section("splits")),
        classes=classes,
        palette=palette,
        void=void,
        sample_id=top.with_id("sample_id", sample_id),
    )


def _source(section: _Section) -> tuple[Archive, ...] | Generator:
    if "generator" in section.content:
        section.keys(("generator", "seed", "side"))
        name = section.text("generator")
        if name not in GENERATORS:
            raise section.wrong("generator", f"{name}: {nearest(name, GENERATORS)}")
        return Generator(name, section.number("seed", 0), section.number("side", 32))
    section.keys(("archives",))
    archives = tuple(_archive(entry) for entry in section.sections("archives"))
    files = [archive.file for archive in archives]
    if len(set(files)) < len(files):
        raise section.wrong("archives", "two archives have the same file; each needs its own name")
    return archives


def _archive(section: _Section) -> Archive:
    section.keys(("file", "urls", "sha256", "size"))
    file = section.text("file")
    if PurePosixPath(file).name != file:
        raise section.wrong("file", f"{file}: must be a file's name, without a folder")
    sha256 = section.text("sha256").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise section.wrong("sha256", f"{sha256}: must be 64 hexadecimal digits (see sha256sum)")
    return Archive(file, section.texts("urls"), sha256, section.number("size", 1))


def _splits(section: _Section) -> dict[str, Split]:
    for name in REQUIRED_SPLITS:
        if name not in section.content:
            raise section.wrong(name, "this split is missing; train and val are needed")
    splits = {}
    for name in section.content:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise section.wrong(str(name), "a split's name is of a-z, 0-9 and _, such as trainaug")
        splits[name] = _split(section.section(name), name)
    return splits


def _split(section: _Section, name: str) -> Split:
    section.keys(("size", "image", "labels"), ("list",))
    list_file = section.optional_text("list")
    return Split(
        name=name,
        size=section.number("size", 1),
        image=section.below("image", section.with_id("image", section.text("image"))),
        labels=tuple(
            section.below("labels", section.with_id("labels", template))
            for template in section.texts("labels")
        ),
        list_file=None if list_file is None else section.below("list", list_file),
    )


def _classes(top: _Section) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    names: list[str] = []
    palette: list[tuple[int, int, int]] = []
    for section in top.sections("classes"):
        section.keys(("name", "color"))
        name, color = section.text("name"), section.content["color"]
        is_rgb = isinstance(color, list) and len(color) == 3
        if not is_rgb or not all(type(part) is int and 0 <= part <= 255 for part in color):
            raise section.wrong("color", f"must be [red, green, blue] of 0..255, is {color!r}")
        rgb = (color[0], color[1], color[2])
        if name in names:
            raise section.wrong("name", f"{name}: is class {names.index(name)} already")
        if rgb in palette:
            raise section.wrong("color", f"{color}: is the colour of {names[palette.index(rgb)]}")
        names.append(name)
        palette.append(rgb)
    if not 2 <= len(names) <= 255:
        raise top.wrong("classes", f"2 to 255 classes are possible, here are {len(names)}")
    return tuple(names), tuple(palette)
