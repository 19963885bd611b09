"""What a data set is: where it comes from, how its files lie, which classes it has.

One YAML file a data set under `data/manifests/`. The reader is strict: an unknown or missing key
is refused with the file and the key, before anything is downloaded.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.datasets.formats import Classes
from pipeline.datasets.section import Section
from pipeline.datasets.splits import Shares, Split, read_splits
from pipeline.errors import UserError, nearest
from pipeline.paths import MANIFESTS

GENERATORS = ("shapes",)
#: Those that archives are published with.
CHECKSUMS = ("sha256", "sha1", "md5")
#: Void in masks, unless a manifest says otherwise.
USUAL_VOID = 255


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must hash to."""

    #: One of CHECKSUMS.
    kind: str
    #: Hexadecimal, lower case.
    digest: str


@dataclass(frozen=True)
class Archive:
    """A file that the data set is made from."""

    file: str
    #: Paths (relative ones from the project's root) or http(s) addresses, tried in order. Empty:
    #: the user has to bring the file.
    urls: tuple[str, ...]
    #: None only for a file that the user brings.
    checksum: Checksum | None
    #: Bytes; None: not known.
    size: int | None = None
    #: How the user gets a file that needs an account; None: from `urls`.
    get: str | None = None
    #: Whether it is a tar or zip file; a plain file is taken as it is.
    unpack: bool = True


@dataclass(frozen=True)
class Folder:
    """A folder of the user's own files."""

    #: A relative one starts at the project's root.
    path: str


@dataclass(frozen=True)
class Generator:
    """A data set that is drawn by the project itself."""

    name: str
    seed: int
    #: Pixels.
    side: int


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
    source: tuple[Archive, ...] | Folder | Generator
    splits: dict[str, Split]
    #: How the images are dealt to the splits; None: each split says which are its own.
    shares: Shares | None
    #: The place in the list is the class number.
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    #: The void label in the source's masks of class numbers; None: it has none. `augment` turns
    #: it into 255.
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
    return _manifest(Section(path, "", content), name)


def voc_colour(number: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour of a class: its number's bits, dealt to red, green and blue in turn.

    Source: the VOC development kit, `VOClabelcolormap.m`.
    """
    colour = [0, 0, 0]
    for bit in range(8):
        colour[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return colour[0], colour[1], colour[2]


def _manifest(top: Section, name: str) -> Manifest:
    source = top.content.get("source")
    own = isinstance(source, dict) and "folder" in source
    described = ("name", "title", "licence", "void")
    places = ("splits", "split_by_seed", "images", "labels", "sample_id")
    top.keys(
        ("source", "classes", *(() if own else described)),
        (*described, *places, "terms", "homepage"),
    )
    if "name" in top and top.text("name") != name:
        raise top.wrong("name", f"{top.text('name')}: must be the file's own name, {name}")
    classes = _classes(top)
    splits, shares = read_splits(top, classes)
    sample_id = top.optional_text("sample_id") or "{id}"
    return Manifest(
        path=top.path,
        name=name,
        title=top.text("title") if "title" in top.content else name,
        licence=top.text("licence") if "licence" in top.content else "your own files",
        terms=top.optional_text("terms"),
        homepage=top.optional_text("homepage"),
        source=_source(top.section("source"), splits),
        splits=splits,
        shares=shares,
        classes=classes.names,
        palette=classes.palette,
        void=classes.void,
        sample_id=top.with_id("sample_id", sample_id),
    )


def _source(section: Section, splits: dict[str, Split]) -> tuple[Archive, ...] | Folder | Generator:
    if "generator" in section.content:
        section.keys(("generator", "seed", "side"))
        for split in splits.values():
            if split.size is None:
                raise section.wrong("generator", f"splits.{split.name}.size is missing; add it")
        name = section.choice("generator", GENERATORS)
        return Generator(name, section.number("seed", 0), section.number("side", 32))
    if "folder" in section.content:
        section.keys(("folder",))
        return Folder(section.text("folder"))
    section.keys(("archives",))
    archives = tuple(_archive(entry) for entry in section.sections("archives"))
    files = [archive.file for archive in archives]
    if len(set(files)) < len(files):
        raise section.wrong("archives", "two archives have the same file; each needs its own name")
    return archives


def _archive(section: Section) -> Archive:
    section.keys(("file",), ("urls", "get", *CHECKSUMS, "size", "unpack"))
    file = section.text("file")
    if PurePosixPath(file).name != file:
        raise section.wrong("file", f"{file}: must be a file's name, without a folder")
    if ("urls" in section) == ("get" in section):
        raise section.wrong(
            "", "needs urls, or get with how to get the file by hand: one of the two"
        )
    checksum = _checksum(section)
    if checksum is None and "urls" in section:
        raise section.wrong("sha256", "this key is missing; add it, or sha1, or md5")
    return Archive(
        file=file,
        urls=section.texts("urls") if "urls" in section else (),
        checksum=checksum,
        size=section.number("size", 1) if "size" in section else None,
        get=section.optional_text("get"),
        unpack=section.flag("unpack", default=True),
    )


def _checksum(section: Section) -> Checksum | None:
    kinds = [kind for kind in CHECKSUMS if kind in section]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise section.wrong(kinds[1], f"{kinds[0]} stands there too; keep one of the two")
    kind, digest = kinds[0], section.text(kinds[0]).lower()
    length = 2 * hashlib.new(kind, usedforsecurity=False).digest_size
    if not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
        wanted = f"must be {length} hexadecimal digits (see {kind}sum)"
        raise section.wrong(kind, f"{digest}: {wanted}")
    return Checksum(kind, digest)


def _classes(top: Section) -> Classes:
    entries = top.items("classes")
    if all(isinstance(entry, str) for entry in entries):
        named: list[tuple[str, Any]] = [
            (name, list(voc_colour(number))) for number, name in enumerate(entries)
        ]
    else:
        sections = top.sections("classes")
        for section in sections:
            section.keys(("name", "color"))
        named = [(section.text("name"), section.content["color"]) for section in sections]
    names: list[str] = []
    palette: list[tuple[int, int, int]] = []
    for number, (name, color) in enumerate(named):
        place = f"classes[{number}]"
        rgb = top.colour(f"{place}.color", color)
        if name in names:
            raise top.wrong(f"{place}.name", f"{name}: is class {names.index(name)} already")
        if rgb in palette:
            owner = names[palette.index(rgb)]
            raise top.wrong(f"{place}.color", f"{color}: is the colour of {owner}")
        names.append(name)
        palette.append(rgb)
    if not 2 <= len(names) <= 255:
        raise top.wrong("classes", f"2 to 255 classes are possible, here are {len(names)}")
    return Classes(tuple(names), tuple(palette), _void(top, names), top.path)


def _void(top: Section, names: list[str]) -> int | None:
    if "void" not in top.content:
        return USUAL_VOID
    if "void" not in top:
        return None
    void = top.number("void", 0, 255)
    if void < len(names):
        raise top.wrong("void", f"{void} is class {names[void]}; void must not be a class number")
    return void
