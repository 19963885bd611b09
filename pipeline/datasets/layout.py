"""Find the images and masks of every split, as a manifest says they lie."""

import filecmp
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.datasets.images import SUFFIXES
from pipeline.datasets.manifest import Folder, Manifest
from pipeline.datasets.masks import FileSource, IndexedSource, Mask, Sources
from pipeline.datasets.splits import Shares, Split, deal, listed
from pipeline.datasets.templates import Files
from pipeline.errors import UserError


@dataclass(frozen=True)
class Sample:
    """An image and its mask, and what they are called in the training-ready set."""

    id: str
    image: Path
    mask: Mask


def find_samples(manifest: Manifest, raw: Path) -> dict[str, list[Sample]]:
    """The samples of every split, sorted by id where there is no list.

    Args:
        manifest: the data set.
        raw: its unpacked files.

    Raises:
        UserError: a file or mask is missing, two files have one name, a split is empty or of
            another size than expected, or an id stands for different images.
    """
    if not raw.is_dir():
        raise UserError(f"{raw}: the raw data is not there; run `dvc repro download`")
    sources = Sources(raw)
    places = {name: _Place(manifest, split, sources) for name, split in manifest.splits.items()}
    if manifest.shares is None:
        ids = {name: place.ids() for name, place in places.items()}
    else:
        ids = _dealt(next(iter(places.values())), manifest, manifest.shares)
    splits = {name: place.samples(ids[name]) for name, place in places.items()}
    if isinstance(manifest.source, Folder):
        _warn_of_lonely_masks(places.values(), splits)
    _check_shared_ids(manifest, splits)
    return splits


def _dealt(place: "_Place", manifest: Manifest, shares: Shares) -> dict[str, list[str]]:
    """All images, which lie in one place, dealt to the splits."""
    everything = place.ids()
    if not everything:
        raise UserError(
            f"{place.raw / place.split.image}: no image is there; mend images in {manifest.path}"
        )
    ids = deal(everything, shares)
    for name, members in ids.items():
        if not members:
            raise UserError(
                f"{place.raw / place.split.image}: {len(everything)} images are too few, split "
                f"{name} is empty; bring more, or mend split_by_seed in {manifest.path}"
            )
    return ids


class _Place:
    """Where the files of a split lie."""

    def __init__(self, manifest: Manifest, split: Split, sources: Sources) -> None:
        self.manifest, self.split, self.raw = manifest, split, sources.raw
        self.images = Files(sources.raw, split.image)
        self.sources = [sources.open(source) for source in split.labels]

    def ids(self) -> list[str]:
        """The images of the split."""
        listing = self.split.listing
        if listing is not None and listing.union:
            return listed(listing, (), self.raw, self.images)
        first = self.sources[0]
        found = list(first.masks.ids) if isinstance(first, IndexedSource) else self._images()
        return found if listing is None else listed(listing, found, self.raw, self.images)

    def _images(self) -> list[str]:
        """What the template of images matches, without masks that lie among them."""
        masks = {
            path
            for source in self.sources
            if isinstance(source, FileSource) and _is_narrower(source.files, self.images)
            for path in source.files.all.values()
        }
        return [id for id, path in self.images.all.items() if path not in masks]

    def samples(self, ids: Sequence[str]) -> list[Sample]:
        """Images with their masks, once the split has the size that is expected."""
        split, listing = self.split, self.split.listing
        place = self.raw / (listing.union[0] if listing and listing.union else split.image)
        wanted = "" if split.size is None else f", {split.size} images are expected"
        if not ids:
            raise UserError(
                f"{place}: split {split.name} is empty{wanted}; "
                f"mend splits.{split.name} in {self.manifest.path}"
            )
        if split.size not in (None, len(ids)):
            raise UserError(
                f"{place}: split {split.name} has {len(ids)} images, {split.size} are expected; "
                f"mend splits.{split.name}.size in {self.manifest.path}, or {self._again()}"
            )
        name = self.manifest.sample_id.replace("{split}", split.name)
        images, masks = [self._image(id) for id in ids], self._masks(ids)
        return [
            Sample(name.replace("{id}", id), image, mask)
            for id, image, mask in zip(ids, images, masks, strict=True)
        ]

    def _image(self, id: str) -> Path:
        path = self.images.find(id)
        if path is None:
            raise UserError(
                f"{self.raw / self.split.image.replace('{id}', id)}: the image is missing, "
                f"split {self.split.name} names it; {self._again()}"
            )
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: images must be of {', '.join(SUFFIXES)}; convert it")
        return path

    def _masks(self, ids: Sequence[str]) -> list[Mask]:
        masks = [next(filter(None, (one.find(id) for one in self.sources)), None) for id in ids]
        missing = [id for id, mask in zip(ids, masks, strict=True) if mask is None]
        if missing:
            tried = " or ".join(source.place(missing[0]) for source in self.sources)
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(
                f"{tried}: the mask of image {missing[0]} is missing{more}, "
                f"split {self.split.name} names it; {self._again()}"
            )
        return [mask for mask in masks if mask is not None]

    def _again(self) -> str:
        if isinstance(self.manifest.source, Folder):
            return (
                f"mend {self.manifest.source.path} or {self.manifest.path}, then run "
                "`dvc repro -f download`"
            )
        return f"to fetch all files again, remove {self.raw} and run `dvc repro -f download`"


def _is_narrower(ours: Files, theirs: Files) -> bool:
    """Whether a file of one folder that both templates match is ours: we say more of its name."""
    names = []
    for files in (ours, theirs):
        path = PurePosixPath(files.template)
        names.append((path.parent, len(path.name.removesuffix(".*").replace("{id}", ""))))
    return names[0][0] == names[1][0] and names[0][1] > names[1][1]


def _warn_of_lonely_masks(places: Iterable[_Place], splits: Mapping[str, list[Sample]]) -> None:
    """Say which masks of the user's folder belong to no image; a list may leave images out."""
    used = {
        path for split in splits.values() for one in split for path in (one.image, one.mask.path)
    }
    masks = {
        path
        for place in places
        for source in place.sources
        if isinstance(source, FileSource) and place.split.listing is None
        for path in source.files.all.values()
    }
    lonely = sorted(masks - used)
    if lonely:
        more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        print(f"warning: {lonely[0]}{more}: a mask without an image, left out")


def _check_shared_ids(manifest: Manifest, splits: Mapping[str, list[Sample]]) -> None:
    """An id may stand in several splits (trainaug holds train), but for one image and mask."""
    first: dict[str, tuple[str, Sample]] = {}
    for name, samples in splits.items():
        for sample in samples:
            other_name, other = first.setdefault(sample.id, (name, sample))
            for ours, theirs in ((sample.image, other.image), (sample.mask.path, other.mask.path)):
                if ours != theirs and not filecmp.cmp(ours, theirs, shallow=False):
                    raise UserError(
                        f"{ours}: id {sample.id} is another file in split {other_name} ({theirs}); "
                        f"set sample_id: '{{split}}_{{id}}' in {manifest.path}"
                    )
