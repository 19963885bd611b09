"""Find the images and masks of every split, as a manifest says they lie."""

import filecmp
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.manifest import Manifest, Split
from pipeline.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True)
class Sample:
    """An image and its mask, and what they are called in the training-ready set."""

    id: str
    image: Path
    label: Path


def find_samples(manifest: Manifest, raw: Path) -> dict[str, list[Sample]]:
    """The samples of every split, sorted by id where there is no list.

    Args:
        manifest: the data set.
        raw: its unpacked files.

    Raises:
        UserError: a file or mask is missing, a split is empty or of another size than expected,
            or an id stands for different images.
    """
    if not raw.is_dir():
        raise UserError(f"{raw}: the raw data is not there; run `dvc repro download`")
    splits = {name: _samples(manifest, split, raw) for name, split in manifest.splits.items()}
    _check_shared_ids(manifest, splits)
    return splits


def _samples(manifest: Manifest, split: Split, raw: Path) -> list[Sample]:
    ids = _listed(split, raw) if split.list_file else _matching(split, raw)
    place = raw / (split.list_file or split.image)
    if not ids:
        raise UserError(
            f"{place}: split {split.name} is empty, {split.size} images are expected; "
            f"mend splits.{split.name} in {manifest.path}"
        )
    if len(ids) != split.size:
        raise UserError(
            f"{place}: split {split.name} has {len(ids)} images, {split.size} are expected; "
            f"mend splits.{split.name}.size in {manifest.path}, or {_again(raw)}"
        )
    return [
        Sample(
            manifest.sample_id.format(id=id, split=split.name),
            _image(split, raw, id),
            _label(split, raw, id),
        )
        for id in ids
    ]


def _listed(split: Split, raw: Path) -> list[str]:
    """The first word of each line of the list file."""
    path = raw / str(split.list_file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: the list of split {split.name} is missing; {_again(raw)}"
        ) from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        id = line.split()[0]
        if "/" in id or "\\" in id:
            raise UserError(f"{path}: line {number}: {id} must be an id, without a folder")
        if id in seen:
            raise UserError(f"{path}: line {number}: {id} stands in line {seen[id]} already")
        seen[id] = number
    return list(seen)


def _matching(split: Split, raw: Path) -> list[str]:
    """The ids of all files that the image template matches."""
    before, after = split.image.split("{id}")
    pattern = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")
    folder = (raw / split.image).parent
    paths = folder.iterdir() if folder.is_dir() else ()
    matches = (pattern.fullmatch(path.relative_to(raw).as_posix()) for path in paths)
    return sorted(match[1] for match in matches if match)


def _image(split: Split, raw: Path, id: str) -> Path:
    path = raw / split.image.format(id=id)
    if not path.is_file():
        raise UserError(f"{path}: the image is missing, split {split.name} names it; {_again(raw)}")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: images must be of {', '.join(SUFFIXES)}; convert it")
    return path


def _label(split: Split, raw: Path, id: str) -> Path:
    paths = [raw / template.format(id=id) for template in split.labels]
    for path in paths:
        if path.is_file():
            return path
    tried = " or ".join(str(path) for path in paths)
    raise UserError(
        f"{tried}: the mask of image {id} is missing, split {split.name} names it; {_again(raw)}"
    )


def _again(raw: Path) -> str:
    return f"to fetch all files again, remove {raw} and run `dvc repro -f download`"


def _check_shared_ids(manifest: Manifest, splits: dict[str, list[Sample]]) -> None:
    """An id may stand in several splits (trainaug holds train), but for one image and mask."""
    first: dict[str, tuple[str, Sample]] = {}
    for name, samples in splits.items():
        for sample in samples:
            other_name, other = first.setdefault(sample.id, (name, sample))
            for ours, theirs in ((sample.image, other.image), (sample.label, other.label)):
                if ours != theirs and not filecmp.cmp(ours, theirs, shallow=False):
                    raise UserError(
                        f"{ours}: id {sample.id} is another file in split {other_name} ({theirs}); "
                        f"set sample_id: '{{split}}_{{id}}' in {manifest.path}"
                    )
