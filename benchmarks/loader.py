"""Training crops a second of one core: this project's loader beside a plain PIL + torchvision one.

    python -m benchmarks.loader FOLDER --set voc2012-subset --set camvid-trainval

fetches and prepares the sets in FOLDER by the project's own stages, then draws 513 x 513 crops with
the papers' augmentation (v3, section 4.1: scales 0.5 to 2.0, crop, flip) by every loader in turn,
over and over. The plain loader is written as the well-known DeepLab repositories write theirs. What
is compared is the time that the processor works, which other programs on the machine change less
than the time that passes; every figure is the median over the rounds.
"""

import argparse
import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks.contestants import PILViews
from pipeline.datasets.datamodule import TrainingViews, as_floats, read_pair
from pipeline.datasets.decoded import DecodedPairs
from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.datasets.transforms import TrainTransform, scaled_crop, scaled_crop_of_label
from pipeline.entry import run

CROP = 513
BATCH = 8
LARGE = (2048, 1024)
SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Batch = tuple[Tensor, ...]


class Ours(Dataset[tuple[Tensor, Tensor]]):
    """The project's views, by number."""

    def __init__(self, data: Prepared, ids: list[str], decoded: Path | None = None) -> None:
        transform = TrainTransform(CROP, 0.5, 2.0, 0.25, True, False, MEAN)
        self.views = TrainingViews(data, ids, transform, 0, decoded)

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.views[(index, index)]


def main() -> None:
    """Prepare the sets, draw, and print the tables."""
    options = _options()
    torch.set_num_threads(1)
    for name in options.sets or ["voc2012-subset", "camvid-trainval"]:
        data = _prepared(name, options.folder)
        ids = data.ids("train")[:: max(1, len(data.ids("train")) // options.images)]
        ids = ids[: options.images]
        if options.enlarge:
            data = _enlarged(data, ids, options.folder / f"enlarged-{name}")
        title = f"{data.name}, {len(ids)} images, {CROP} x {CROP} crops, {options.rounds} rounds"
        print(f"\n{title}")
        _compare(data, ids, options.folder / "decoded", options.rounds)
        _dissect(data, ids, options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for downloads, raw, prepared and decoded data")
    parser.add_argument("--set", dest="sets", action="append", help="a manifest's name; repeatable")
    parser.add_argument("--images", type=int, default=64, help="of each set")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--enlarge", action="store_true", help="to PNGs of 2048 x 1024, as Cityscapes has them"
    )
    return parser.parse_args()


def _prepared(name: str, folder: Path) -> Prepared:
    manifest, out = load_manifest(name), folder / "prepared" / name
    if not (out / "dataset.json").is_file():
        fetch(manifest, folder / "raw", downloads=folder / "downloads")
        prepare(manifest, folder / "raw" / name, out)
    return load_prepared(out)


def _enlarged(data: Prepared, ids: Sequence[str], folder: Path) -> Prepared:
    """The same images as PNGs of 2048 x 1024, with the noise that gives them Cityscapes' 2.2 MB."""
    noise = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for id in ids:
        image, label = (Image.fromarray(pixels) for pixels in read_pair(data, id))
        smooth = np.asarray(image.resize(LARGE, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = noise.normal(size=smooth.shape[:2]).round().astype(np.int16)[..., None]
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{id}.png")
        label.resize(LARGE, Image.Resampling.NEAREST).save(folder / "labels" / f"{id}.png")
    names = {id: f"{id}.png" for id in ids}
    return dataclasses.replace(data, folder=folder, name=folder.name, images=names)


def _compare(data: Prepared, ids: list[str], decoded: Path, rounds: int) -> None:
    """One core's crops a second by each loader, and as multiples of the plain one's."""
    plain, ours, kept = PILViews(data, ids, CROP), Ours(data, ids), Ours(data, ids, decoded)
    pairs = DecodedPairs(data, decoded)
    for id in ids:
        pairs.read(id)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    # Starting a process takes time too: as many crops as make that little.
    passes = -(-512 // len(ids))

    def converted() -> Iterator[Batch]:
        for images, labels in DataLoader(ours, BATCH):
            yield (as_floats(images) - mean) / std, labels.long()

    def from_worker(views: Dataset[Any]) -> Iterable[Batch]:
        order = list(range(len(ids))) * passes
        return DataLoader(views, BATCH, sampler=order, num_workers=1)

    here: dict[str, Callable[[], Iterable[Batch]]] = {
        "plain": lambda: DataLoader(plain, BATCH),
        "ours": lambda: DataLoader(ours, BATCH),
        "ours, normalised floats made here": converted,
        "ours, kept decoded": lambda: DataLoader(kept, BATCH),
    }
    worker: dict[str, Callable[[], Iterable[Batch]]] = {
        "plain, from a worker": lambda: from_worker(plain),
        "ours, from a worker": lambda: from_worker(ours),
        "ours, kept decoded, from a worker": lambda: from_worker(kept),
    }
    print(f"{'':36}{'CPU ms':>8}{'/s/core':>9}{'of plain':>10}{'range':>13}{'wall ms':>9}")
    for loaders, crops in ((here, len(ids)), (worker, passes * len(ids))):
        _print(_interleaved({name: _drain(one) for name, one in loaders.items()}, rounds), crops)
    files = [path for id in ids for path in pairs.folder.glob(f"{id}.*")]
    sources = [path for id in ids for path in (data.image_path(id), data.label_path(id))]
    sizes = [sum(path.stat().st_size for path in one) / len(ids) / 1e3 for one in (sources, files)]
    print(f"disk, KB an image and label: {sizes[0]:.0f}, kept decoded {sizes[1]:.0f}")


def _print(times: dict[str, list[tuple[float, float]]], crops: int) -> None:
    """A line a loader; the first is the plain one."""
    plain = next(iter(times.values()))
    for name, measured in times.items():
        busy, passed = (statistics.median(one[k] for one in measured) / crops for k in (0, 1))
        ratios = [one[0] / other[0] for one, other in zip(plain, measured, strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(
            f"{name:36}{1000 * busy:8.2f}{1 / busy:9.0f}{statistics.median(ratios):9.2f}x"
            f"{spread:>13}{1000 * passed:9.1f}"
        )


def _dissect(data: Prepared, ids: list[str], rounds: int) -> None:
    """Where the time of ours goes, in milliseconds a crop."""
    pairs = [read_pair(data, id) for id in ids]
    transform = TrainTransform(CROP, 0.5, 2.0, 0.25, True, False, MEAN)
    views = [transform(*pair, np.random.default_rng(n)) for n, pair in enumerate(pairs)]
    batches = [views[start : start + BATCH] for start in range(0, len(views), BATCH)]
    collated = [default_collate(batch) for batch in batches]
    windows = [_window(label, np.random.default_rng(n)) for n, (_, label) in enumerate(pairs)]
    parts: dict[str, Callable[[], Any]] = {
        "decode image and label": lambda: [read_pair(data, id) for id in ids],
        "augment": lambda: [
            transform(*pair, np.random.default_rng(n)) for n, pair in enumerate(pairs)
        ],
        "  of which crop and scale the image": lambda: [
            scaled_crop(image, *window) for (image, _), window in zip(pairs, windows, strict=True)
        ],
        "  of which crop and scale the label": lambda: [
            scaled_crop_of_label(label, *window)
            for (_, label), window in zip(pairs, windows, strict=True)
        ],
        "collate": lambda: [default_collate(batch) for batch in batches],
        "(where the network is) to floats": lambda: [
            (as_floats(images), labels.long()) for images, labels in collated
        ],
    }
    for name, measured in _interleaved(parts, rounds).items():
        print(f"  {name:36}{1000 * statistics.median(t for t, _ in measured) / len(ids):6.2f} ms")


def _window(label: np.ndarray, generator: np.random.Generator) -> tuple[Fraction, range, range]:
    """A scale and a place that the augmentation may draw."""
    scale = Fraction(str(generator.choice(SCALES)))
    rows, columns = (
        range(start, min(start + CROP, side))
        for side in (int(side * scale) for side in label.shape)
        for start in [int(generator.integers(max(side - CROP, 0) + 1))]
    )
    return scale, rows, columns


def _drain(loader: Callable[[], Iterable[Batch]]) -> Callable[[], None]:
    def draw() -> None:
        for _ in loader():
            pass

    return draw


def _interleaved(
    tasks: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of work and seconds passed, of each task in each round; one round warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            busy, passed = _busy(), time.perf_counter()
            task()
            if number:
                times[name].append((_busy() - busy, time.perf_counter() - passed))
    return times


def _busy() -> float:
    """Seconds that the processor worked for this process and its ended children."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


if __name__ == "__main__":
    run(main)
