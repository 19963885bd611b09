"""Turn raw files into a training-ready set: checked, one class numbering, void = 255."""

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from pipeline.cores import core_count
from pipeline.datasets.images import Picture, read_picture
from pipeline.datasets.layout import Sample, find_samples
from pipeline.datasets.manifest import Folder, Manifest
from pipeline.datasets.pictures import palette_picture
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.datasets.statistics import (
    VOID,
    ImageStatistics,
    measure,
    missing_in_train,
    summarise,
)
from pipeline.errors import UserError
from pipeline.files import whole_folder, write_json, write_whole


@dataclass(frozen=True)
class _Written:
    """What is known of an image once it is in the training-ready set."""

    image_sha256: str
    label_sha256: str
    statistics: ImageStatistics


def prepare(manifest: Manifest, raw: Path, out: Path, workers: int | None = None) -> Prepared:
    """Check every image and mask, and write the training-ready set, whole or not at all.

    Args:
        manifest: the data set.
        raw: its unpacked files.
        out: the folder to write; an older one is replaced.
        workers: threads (decoding frees the interpreter); None: one a core.

    Raises:
        UserError: the first file that is missing, truncated, of the wrong kind, size or values.
    """
    splits = find_samples(manifest, raw)
    samples = {sample.id: sample for split in splits.values() for sample in split}
    with whole_folder(out) as beside:
        (beside / "images").mkdir()
        (beside / "labels").mkdir()
        written = _write_all(list(samples.values()), manifest, beside, workers)
        ids = {name: [sample.id for sample in split] for name, split in splits.items()}
        _write_description(manifest, ids, written, beside)
    return load_prepared(out)


def _write_all(
    samples: Sequence[Sample], manifest: Manifest, folder: Path, workers: int | None
) -> dict[str, _Written]:
    """Convert all samples side by side; the first mistake in their order ends it."""
    pool = ThreadPoolExecutor(workers or core_count())
    try:
        results = pool.map(lambda sample: _write(sample, manifest, folder), samples)
        bar = track(results, f"prepare {manifest.name}", total=len(samples))
        return {sample.id: result for sample, result in zip(samples, bar, strict=True)}
    finally:
        pool.shutdown(cancel_futures=True)


def _write(sample: Sample, manifest: Manifest, folder: Path) -> _Written:
    picture, label = read_picture(sample.image), sample.mask.read()
    image = _fitting(picture, label, sample, manifest)
    if (label == VOID).all():
        raise UserError(
            f"{sample.mask.name}: every pixel is void, there is nothing to learn or to score; "
            "mend the mask, or leave the image out with `list: {minus: [...]}`"
        )
    if picture.plain:
        content, suffix = sample.image.read_bytes(), sample.image.suffix.lower()
        image_digest = hashlib.sha256(content)
    else:
        content, suffix = _png(Image.fromarray(image)), ".png"
        image_digest = hashlib.sha256(str(image.shape).encode() + image.tobytes())
    (folder / "images" / f"{sample.id}{suffix}").write_bytes(content)
    coloured = palette_picture(label, manifest.palette)
    (folder / "labels" / f"{sample.id}.png").write_bytes(_png(coloured))
    # Of the pixels, not of our own PNGs: their bytes depend on the version of zlib.
    label_digest = hashlib.sha256(str(label.shape).encode() + label.tobytes())
    return _Written(
        image_digest.hexdigest(),
        label_digest.hexdigest(),
        measure(image, label, len(manifest.classes)),
    )


def _fitting(picture: Picture, label: np.ndarray, sample: Sample, manifest: Manifest) -> np.ndarray:
    """The image as its mask was drawn; the sizes tell, if the camera noted a quarter turn.

    Else the user's own masks are taken to be drawn on what is seen, upright, and those of
    published archives on the pixels as they are stored, as their tools read them.
    """
    turns = (picture.upright, picture.stored)
    for image in turns if isinstance(manifest.source, Folder) else reversed(turns):
        if image.shape[:2] == label.shape:
            return image
    sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (picture.upright, label)]
    raise UserError(
        f"{sample.mask.name}: the mask is {sizes[1]}, its image {sample.image} is {sizes[0]} "
        "pixels; they must be of one size"
    )


def _png(image: Image.Image) -> bytes:
    # Into memory first: Pillow hides the reason, such as a full disk, when writing a file fails.
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write_description(
    manifest: Manifest, ids: dict[str, list[str]], written: dict[str, _Written], folder: Path
) -> None:
    (folder / "splits").mkdir()
    for name, members in ids.items():
        (folder / "splits" / f"{name}.txt").write_text("\n".join(members) + "\n", encoding="utf-8")
    statistics = summarise(
        {name: [written[id].statistics for id in members] for name, members in ids.items()},
        manifest.classes,
    )
    write_json(folder / "statistics.json", statistics)
    shown = {id: np.flatnonzero(one.statistics.pixels[:-1]) for id, one in written.items()}
    lists = {id: numbers.tolist() for id, numbers in shown.items()}
    write_whole(folder / "classes_in.json", json.dumps(lists, ensure_ascii=False) + "\n")
    description = {
        "name": manifest.name,
        "classes": manifest.classes,
        "palette": manifest.palette,
        "void": VOID,
        "splits": {name: len(members) for name, members in ids.items()},
        "digest": _digest(ids, written),
    }
    write_json(folder / "dataset.json", description)
    if missing := missing_in_train(statistics):
        print(f"warning: {manifest.name}: no training image shows {', '.join(missing)}")
    _warn_of_leaks(manifest.name, ids, written)


def _digest(ids: dict[str, list[str]], written: dict[str, _Written]) -> str:
    """One sha256 over splits, images and class numbers: the data that a result depends on."""
    content = {
        "splits": ids,
        "files": {id: (one.image_sha256, one.label_sha256) for id, one in written.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _warn_of_leaks(name: str, ids: dict[str, list[str]], written: dict[str, _Written]) -> None:
    """Say which images are both learned from and scored, whatever they are called."""
    apart = [split for split in ("train", "val", "test") if split in ids]
    for one, other in itertools.combinations(apart, 2):
        known = {written[id].image_sha256: id for id in ids[one]}
        shared = [id for id in ids[other] if written[id].image_sha256 in known]
        if shared:
            print(
                f"warning: {name}: {len(shared)} images of {other} stand in {one} too, such as "
                f"{shared[0]}: the figures on {other} are not of unseen images"
            )
