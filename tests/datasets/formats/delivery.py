"""What a delivery of a data set is, and files in the official formats to put into it."""

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from scipy.io import savemat

HEIGHT, WIDTH = 40, 50
VOID = 255
#: The fields of PASCAL-Part's structs.
OBJECT = ("class", "class_ind", "mask", "parts")
PART = ("part_name", "mask")


@dataclass
class Delivery:
    """What the archives hold, and what must come out."""

    #: Archive -> member -> content.
    archives: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: Split -> ids, in order.
    splits: dict[str, list[str]] = field(default_factory=dict)
    #: Id -> uint8 H x W class numbers, 255 void.
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def png(pixels: np.ndarray, palette: bool = False) -> bytes:
    """A PNG; with a palette whose colours are not the numbers."""
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([(7 * value) % 256 for value in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def photo(seed: int, kind: str = "JPEG") -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def matlab(name: str, value: Any) -> bytes:
    """A MATLAB file of version 5 with one variable."""
    buffer = io.BytesIO()
    savemat(buffer, {name: value}, do_compression=True)
    return buffer.getvalue()


def struct_array(fields: tuple[str, ...], *records: tuple[Any, ...]) -> np.ndarray:
    """MATLAB's array of structs, 1 x N; without records the empty matrix that MATLAB writes."""
    if not records:
        return np.zeros((0, 0))
    array = np.zeros((1, len(records)), dtype=[(name, object) for name in fields])
    for number, record in enumerate(records):
        array[0, number] = record
    return array


def objects(seed: int, classes: int, count: int = 3) -> np.ndarray:
    """Rectangles of some classes on class 0."""
    rng = np.random.default_rng(seed)
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for _ in range(count):
        top, left = rng.integers(1, 25), rng.integers(1, 35)
        label[top : top + 12, left : left + 10] = rng.integers(1, classes)
    return label


def with_borders(label: np.ndarray) -> np.ndarray:
    """A label whose objects have a border of void, as VOC draws them."""
    edge = np.zeros(label.shape, dtype=bool)
    for axis in (0, 1):
        step = np.diff(label.astype(int), axis=axis) != 0
        edge |= np.pad(step, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    return np.where(edge, VOID, label).astype(np.uint8)


def sbd_file(label: np.ndarray) -> bytes:
    """SBD's mask, with the fields beside it."""
    return matlab(
        "GTcls",
        {
            "Boundaries": np.array([[np.zeros((2, 2))]], dtype=object),
            "Segmentation": label,
            "CategoriesPresent": np.unique(label[label > 0])[:, None],
        },
    )


def text(ids: list[str]) -> bytes:
    """A list, as the official ones are."""
    return "".join(f"{id}\n" for id in ids).encode()


def runs(region: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths."""
    encoded = coco.encode(np.asfortranarray(region.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def plain_runs(region: np.ndarray) -> dict[str, Any]:
    """Run lengths as numbers down the columns, of zeros first."""
    flat = np.concatenate([[0], region.astype(np.uint8).ravel("F"), [2]])
    changes = np.flatnonzero(np.diff(flat)) + 0
    counts = np.diff(np.concatenate([[0], changes])).tolist()
    return {"size": list(region.shape), "counts": counts}


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    """A rectangle, as bool."""
    region = np.zeros((HEIGHT, WIDTH), dtype=bool)
    region[top : top + height, left : left + width] = True
    return region


def polygon(top: int, left: int, height: int, width: int) -> list[list[float]]:
    """The outline of the same rectangle."""
    bottom, right = top + height, left + width
    return [[left, top, right, top, right, bottom, left, bottom]]
