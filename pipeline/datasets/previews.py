"""Contact sheets of a training-ready set, to see blunders: a shifted mask, swapped colours."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.pictures import grid, legend, pair, stack
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.statistics import read_statistics
from pipeline.files import write_whole

Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[Tensor, Tensor]]

#: Pixels of a picture's longer side on the sheet.
SIDE = 300
COLUMNS = 3


def draw_samples(data: Prepared, path: Path, split: str = "train", count: int = 12) -> None:
    """Images beside their labels, from every split, showing as many classes as can be.

    Args:
        data: the training-ready set.
        path: the PNG to write.
        split: the one whose shares of the pixels the legend says.
        count: images on the sheet.
    """
    cells = []
    for one, id in _choose(data, count):
        image, label = read_image(data.image_path(id)), read_label(data.label_path(id))
        caption = id if id.startswith(one) else f"{one}/{id}"
        cells.append(pair(image, label, data.palette, caption, SIDE))
    _write_sheet(cells, data, split, path)


def draw_augmentations(
    data: Prepared,
    transform: Transform,
    path: Path,
    seed: int = 0,
    split: str = "train",
    count: int = 12,
) -> None:
    """Random training views beside their labels, from three images.

    Args:
        data: the training-ready set.
        transform: (uint8 H x W x 3, uint8 H x W, generator) -> (uint8 c x c x 3, uint8 c x c).
        path: the PNG to write.
        seed: of the draws.
        split: the one that is learned from.
        count: views on the sheet.
    """
    ids = _telling(data, data.ids(split), COLUMNS)
    cells = []
    with _one_thread():
        for number in range(count):
            id = ids[number % len(ids)]
            image = read_image(data.image_path(id)).copy()
            label = read_label(data.label_path(id)).copy()
            view, view_label = transform(image, label, np.random.default_rng((seed, number)))
            caption = f"{id}, view {number // len(ids) + 1}"
            cells.append(pair(view.numpy(), view_label.numpy(), data.palette, caption, SIDE))
    _write_sheet(cells, data, split, path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: on busy cores, more of them take several times longer for a crop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _choose(data: Prepared, count: int) -> list[tuple[str, str]]:
    """(split, id), the splits taking equal parts, no image twice."""
    chosen: list[tuple[str, str]] = []
    for number, split in enumerate(data.splits):
        share = count // len(data.splits) + (number < count % len(data.splits))
        taken = {id for _, id in chosen}
        ids = [id for id in data.splits[split] if id not in taken]
        chosen += [(split, id) for id in _telling(data, ids, share)]
    return chosen


def _telling(data: Prepared, ids: list[str], share: int) -> list[str]:
    """First the images that add classes not yet shown, then some from all over the split."""
    shown: set[int] = set()
    chosen: list[str] = []
    while ids and len(chosen) < share:
        best = max(ids, key=lambda id: len(shown.union(data.shows[id])))
        if shown.issuperset(data.shows[best]):
            break
        shown.update(data.shows[best])
        chosen.append(best)
    rest = [id for id in ids if id not in chosen]
    return chosen + _spread(rest, share - len(chosen))


def _spread(ids: list[str], count: int) -> list[str]:
    """At most `count` of the ids, at equal distances."""
    count = min(count, len(ids))
    return [ids[(2 * place + 1) * len(ids) // (2 * count)] for place in range(count)]


def _write_sheet(cells: Sequence[Image.Image], data: Prepared, split: str, path: Path) -> None:
    measured = read_statistics(data.folder)["splits"][split]
    shares = [measured["frequency"][name] for name in data.classes] + [measured["void"]]
    note = f"% of the pixels of {split} that are not void; void: of all"
    sheet = grid(cells, COLUMNS)
    below = legend(data.classes, data.palette, sheet.width, shares, note)
    buffer = io.BytesIO()
    stack([sheet, below]).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())
