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
from pipeline.files import write_whole

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

#: Pixels of a picture's longer side on the sheet.
SIDE = 220
COLUMNS = 3
#: Masks looked at, per split, to find images that show many classes.
CANDIDATES = 80


def draw_samples(data: Prepared, path: Path, count: int = 12) -> None:
    """Images beside their overlays, from every split, showing as many classes as can be.

    Args:
        data: the training-ready set.
        path: the PNG to write.
        count: images on the sheet.
    """
    cells = []
    for split, id in _choose(data, count):
        image, label = read_image(data.image_path(id)), read_label(data.label_path(id))
        caption = id if id.startswith(split) else f"{split}/{id}"
        cells.append(pair(image, label, data.palette, caption, SIDE))
    _write_sheet(cells, data, path)


def draw_augmentations(
    data: Prepared, transform: Transform, path: Path, seed: int = 0, count: int = 12
) -> None:
    """Random training views beside their overlays, from three images.

    Args:
        data: the training-ready set.
        transform: (uint8 3 x H x W, uint8 H x W) -> (float 3 x c x c in [0, 1], int64 c x c).
        path: the PNG to write.
        seed: of the draws; torch's own generator is left as it was.
        count: views on the sheet.
    """
    ids = _telling(data, _spread(data.ids("train"), CANDIDATES), COLUMNS)
    cells = []
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(count):
            id = ids[number % len(ids)]
            image = torch.from_numpy(read_image(data.image_path(id)).copy()).permute(2, 0, 1)
            label = torch.from_numpy(read_label(data.label_path(id)).copy())
            view, view_label = transform(image, label)
            pixels = (view * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
            labels = view_label.to(torch.uint8).numpy()
            caption = f"{id}, view {number // len(ids) + 1}"
            picture = np.ascontiguousarray(pixels.numpy())
            cells.append(pair(picture, labels, data.palette, caption, SIDE))
    _write_sheet(cells, data, path)


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
        chosen += [(split, id) for id in _telling(data, _spread(ids, CANDIDATES), share)]
    return chosen


def _telling(data: Prepared, ids: list[str], share: int) -> list[str]:
    """First the images that add classes not yet shown, then some from all over the split."""
    classes = {id: _classes(data, id) for id in ids}
    shown: set[int] = set()
    chosen: list[str] = []
    while ids and len(chosen) < share:
        best = max(ids, key=lambda id: len(classes[id] - shown))
        if not classes[best] - shown:
            break
        shown |= classes[best]
        chosen.append(best)
    rest = [id for id in ids if id not in chosen]
    return chosen + _spread(rest, share - len(chosen))


def _spread(ids: list[str], count: int) -> list[str]:
    """At most `count` of the ids, at equal distances."""
    count = min(count, len(ids))
    return [ids[(2 * place + 1) * len(ids) // (2 * count)] for place in range(count)]


def _classes(data: Prepared, id: str) -> set[int]:
    return set(np.unique(read_label(data.label_path(id))).tolist()) - {data.void}


def _write_sheet(cells: Sequence[Image.Image], data: Prepared, path: Path) -> None:
    sheet = grid(cells, COLUMNS)
    buffer = io.BytesIO()
    stack([sheet, legend(data.classes, data.palette, sheet.width)]).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())
