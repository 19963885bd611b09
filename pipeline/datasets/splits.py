"""Which images belong to which split: listed, whatever is there, or dealt out by a seed."""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.datasets.formats import Classes, LabelSource, read_sources
from pipeline.datasets.images import SUFFIXES
from pipeline.datasets.section import Section
from pipeline.datasets.templates import Files
from pipeline.errors import UserError

REQUIRED_SPLITS = ("train", "val")
#: Of the sum of shares.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Listing:
    """Text files whose lines start with an id: some united, then others taken away."""

    #: Empty: whatever matches the split's template of images.
    union: tuple[str, ...]
    minus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Where the images and masks of a split lie, below the raw folder; `{id}` is the image."""

    name: str
    #: Images expected; None: as many as there are.
    size: int | None
    image: str
    #: Tried in order: the first mask that exists is taken.
    labels: tuple[LabelSource, ...]
    #: None: whatever matches `image`, or what the one file of all masks holds.
    listing: Listing | None


@dataclass(frozen=True)
class Shares:
    """How images that nobody has split are dealt out."""

    #: Split -> its share of the images; they add up to 1.
    shares: tuple[tuple[str, float], ...]
    seed: int


def read_splits(top: Section, classes: Classes) -> tuple[dict[str, Split], Shares | None]:
    """The splits of a manifest, from `splits`, or `split_by_seed` and one place for all images.

    Raises:
        UserError: a split is missing, or a key of one is unknown, missing or wrong.
    """
    if "split_by_seed" in top:
        if "splits" in top:
            raise top.wrong("split_by_seed", "splits stands there too; keep one of the two")
        shares = _read_shares(top.section("split_by_seed"))
        empty = Section(top.path, "", {})
        return {name: _read_split(empty, name, top, classes) for name, _ in shares.shares}, shares
    if "splits" not in top:
        raise top.wrong("splits", "this key is missing; add it, or split_by_seed")
    content = top.content["splits"]
    if isinstance(content, list):
        content = {name: None for name in content}
    section = Section(top.path, "splits", content)
    _check_names(section, section.content)
    return {
        name: _read_split(Section(top.path, f"splits.{name}", below or {}), name, top, classes)
        for name, below in section.content.items()
    }, None


def _check_names(section: Section, names: Collection[object]) -> None:
    for name in REQUIRED_SPLITS:
        if name not in names:
            raise section.wrong(name, "this split is missing; train and val are needed")
    for name in map(str, names):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise section.wrong(name, "a split's name is of a-z, 0-9 and _, such as trainaug")


def _read_shares(section: Section) -> Shares:
    names = [name for name in section.content if name != "seed"]
    _check_names(section, names)
    shares = tuple((name, section.share(name)) for name in names)
    total = sum(share for _, share in shares)
    if abs(total - 1) > TOLERANCE:
        raise section.wrong("", f"the shares add up to {total:g}; they must add up to 1")
    return Shares(shares, section.number("seed", 0) if "seed" in section else 0)


def _read_split(section: Section, name: str, top: Section, classes: Classes) -> Split:
    """A split; what it does not say of images and labels stands at the manifest's top."""
    section.keys((), ("size", "image", "labels", "list"))
    place, key = (section, "image") if "image" in section else (top, "images")
    labels = section if "labels" in section else top
    if key not in place:
        raise section.wrong("image" if section.where else key, "this key is missing; add it")
    if "labels" not in labels:
        raise section.wrong("labels", "this key is missing; add it")
    template = place.template(key, place.text(key))
    return Split(
        name=name,
        size=section.number("size", 1) if "size" in section else None,
        image=template.replace("{split}", name),
        labels=read_sources(labels, "labels", name, classes),
        listing=_read_listing(section, name) if "list" in section else None,
    )


def _read_listing(section: Section, split: str) -> Listing:
    if isinstance(section.content["list"], str):
        path = section.below("list", section.text("list"))
        return Listing((path.replace("{split}", split),))
    below = section.section("list")
    below.keys((), ("union", "minus"))
    if not below.content:
        raise section.wrong("list", "must be a path, or hold union or minus")
    union, minus = (
        tuple(below.below(key, path).replace("{split}", split) for path in below.texts(key))
        if key in below
        else ()
        for key in ("union", "minus")
    )
    return Listing(union, minus)


def listed(listing: Listing, everything: Sequence[str], root: Path, images: Files) -> list[str]:
    """The ids that a listing stands for, in the order in which they first come.

    Args:
        listing: which lists.
        everything: the ids when nothing is united.
        root: where the lists' paths start.
        images: the template of the images, for lists that name paths.

    Raises:
        UserError: a list is missing, or names an id twice.
    """
    united = [id for path in listing.union for id in read_ids(root / path, images)]
    ids = dict.fromkeys(united if listing.union else everything)
    for path in listing.minus:
        for id in read_ids(root / path, images):
            ids.pop(id, None)
    return list(ids)


def read_ids(path: Path, images: Files) -> list[str]:
    """The first word of each line: an id, or the path of an image on whatever machine.

    Raises:
        UserError: the list is missing, not text, or names an id twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: the list is missing; to fetch all files again: `dvc repro -f download`"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text of ids; save it as UTF-8") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        id = _id(line.split()[0].replace("\\", "/"), images)
        if id in seen:
            raise UserError(f"{path}: line {number}: {id} stands in line {seen[id]} already")
        seen[id] = number
    return list(seen)


def _id(word: str, images: Files) -> str:
    path = PurePosixPath(word)
    if "/" not in word and path.suffix.lower() not in SUFFIXES:
        return word
    return images.id_of(word) or path.stem


def deal(ids: Iterable[str], shares: Shares) -> dict[str, list[str]]:
    """Deal ids out to splits by their hashes.

    The same ids and seed give the same splits on every machine, whatever their order; more images
    move few of the others from one split to another.

    Args:
        ids: all images.
        shares: each split's part.

    Returns:
        Split -> its ids, sorted; each id is in one split.
    """
    order = sorted(set(ids), key=lambda id: hashlib.sha256(f"{shares.seed}/{id}".encode()).digest())
    splits, start, reached = {}, 0, 0.0
    for name, share in shares.shares:
        reached += share
        end = min(len(order), round(reached * len(order)))
        splits[name] = sorted(order[start:end])
        start = end
    return splits
