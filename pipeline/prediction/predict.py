"""Predict many images: label maps as PNG, overlays, and probabilities if they are wanted."""

import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.cores import core_count
from pipeline.datasets.images import read_image
from pipeline.datasets.pictures import Palette, overlay, palette_picture
from pipeline.errors import UserError
from pipeline.files import write_json, write_whole
from pipeline.inference.crf import refine, releases_lock
from pipeline.inference.passes import labels_of
from pipeline.inference.progress import progress
from pipeline.inference.side_by_side import in_order
from pipeline.prediction.places import LABELS, OVERLAYS, PROBABILITIES
from pipeline.prediction.predictor import Image, Labels, Predictor


@dataclass(frozen=True)
class Wanted:
    """What is made of each image, and where it goes."""

    out: Path
    passes: EvaluateConfig
    palette: Palette
    #: None: the network's labels as they are.
    crf: CrfConfig | None
    #: Whether the network's probabilities are kept, before the CRF.
    probabilities: bool


@dataclass(frozen=True)
class Seen:
    """An image that the network has seen."""

    path: Path
    name: PurePosixPath
    image: Image
    #: uint8 H x W; None: they come of the probabilities.
    labels: Labels | None = None
    #: float32 C x H x W, where they are needed.
    maps: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Failure:
    """An image that could not be predicted, and why."""

    line: str


def predict(
    predictor: Predictor, images: Mapping[Path, PurePosixPath], wanted: Wanted, bar: bool = True
) -> int:
    """Write the predictions of every image that can be read; the others are named on stderr.

    The network runs here, the CRF and the files beside it. Memory does not grow with the number of
    images. Each file is whole or not there; one of an earlier call is replaced.

    Args:
        predictor: the network.
        images: of `find_images`.
        wanted: what is made of each.
        bar: whether progress is shown.

    Returns:
        How many images were named.

    Raises:
        UserError: the network's scores are not finite, or the CRF cannot work with its settings.
        OSError: the disk is full.
    """
    _write_classes(predictor, wanted.out)
    workers = core_count() if wanted.crf is not None else 2
    threads = wanted.crf is None or releases_lock(wanted.crf)
    failed = 0
    with progress(bar) as bars:
        seen = _run(predictor, images, wanted)
        written = in_order(partial(_write, wanted=wanted), seen, workers, threads)
        for failure in bars.track(written, len(images), description="predict"):
            if failure is not None:
                failed += 1
                print(failure.line, file=sys.stderr, flush=True)
    return failed


def _run(
    predictor: Predictor, images: Mapping[Path, PurePosixPath], wanted: Wanted
) -> Iterator[Seen | Failure]:
    whole = wanted.probabilities or wanted.crf is not None
    for path, name in images.items():
        try:
            image = read_image(path)
        except UserError as error:
            yield Failure(str(error))
            continue
        except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
            yield Failure(f"{path}: damaged ({type(error).__name__}); get it again")
            continue
        try:
            maps = predictor.probabilities(image, wanted.passes)
            if whole:
                yield Seen(path, name, image, maps=maps.cpu().numpy())
            else:
                yield Seen(path, name, image, labels=labels_of(maps).cpu().numpy())
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            yield Failure(_too_large(path, image))


def _is_memory(error: BaseException) -> bool:
    """Whether it says that the memory is too small: on the CPU, torch has no error of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)


def _too_large(path: Path, image: Image) -> str:
    height, width = image.shape[:2]
    size = f"{width} x {height} pixels"
    return f"{path}: {size} do not fit into the memory; see it in tiles, e.g. --window 1025"


def _write(seen: Seen | Failure, wanted: Wanted) -> Failure | None:
    if isinstance(seen, Failure):
        return seen
    labels, maps = seen.labels, seen.maps
    try:
        if maps is not None:
            refined = None if wanted.crf is None else refine(seen.image, maps, wanted.crf)
            labels = labels_of(maps) if refined is None else refined
        if labels is None:
            raise ValueError(f"{seen.path}: neither labels nor probabilities")
        if maps is not None and wanted.probabilities:
            write_whole(_place(wanted.out, PROBABILITIES, seen.name, ".npz"), _archive(maps))
        picture = Pillow.fromarray(overlay(seen.image, labels, wanted.palette))
        write_whole(_place(wanted.out, OVERLAYS, seen.name, ".png"), _png(picture))
        write_whole(
            _place(wanted.out, LABELS, seen.name, ".png"), label_png(labels, wanted.palette)
        )
    except MemoryError:
        return Failure(_too_large(seen.path, seen.image))
    return None


def _place(out: Path, kind: str, name: PurePosixPath, suffix: str) -> Path:
    return out / kind / name.parent / f"{name.name}{suffix}"


def label_png(labels: Labels, palette: Palette) -> bytes:
    """A palette PNG: the value of a pixel is its class number, its colour the class's."""
    return _png(palette_picture(labels, palette))


def _png(picture: Pillow.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _archive(maps: npt.NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.savez(file, probabilities=maps.astype(np.float16))
    return file.getvalue()


def _write_classes(predictor: Predictor, out: Path) -> None:
    """classes.json: what the numbers in the label maps mean, and of which network they are."""
    trained = predictor.trained
    write_json(out / "classes.json", {"model": trained.name, "classes": trained.described()})
