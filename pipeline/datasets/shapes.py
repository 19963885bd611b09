"""`shapes`: a small segmentation data set, made from a seed, on which the papers' claims show.

A map seen from above: land, a sea, and figures lying about. Nothing is downloaded, and the same
seed gives the same bytes on every machine. What each class is there to show (v1: arXiv 1412.7062,
v2: 1606.00915, v3: 1706.05587, v3+: 1802.02611):

==========  =========================================================================
background  land with grass, stains, lines and crumbs in the objects' own colours
sea         a region of up to most of the image: objects at all scales (v2, section 3.2)
island      a speckled blob with sea all round, at once or behind a beach, and
rock        the same blob on land: only the surroundings differ, so the field of view
            counts (v1, section 3.2; v2, section 4.1.1 and Table 1)
slab        a chessboard figure, large, and
chip        the same, small: alike up close, told apart by size (ASPP, v2, section 3.2)
frame       a closed thin outline
core        a striped figure inside a frame, and
patch       the same in the open: told apart at 15 to 36 pixels from the centre (field of
            view again; image-level features, v3, section 3.3)
disc        a filled ellipse, and
star        a filled star of the same paint: only the outline differs (output stride, v3,
            section 4.2 and Table 1; decoder, v3+, section 3.1; CRF, v2, section 3.3)
wire        a beaded line 2 to 4 pixels wide: what output stride 16 loses (v3, Table 1)
dot         spots of 12 to 55 pixels in swarms: mostly boundary (v3+, section 4.4)
==========  =========================================================================

A line one pixel wide round every object is void, as PASCAL VOC's borders are.
"""

import multiprocessing
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from pipeline.cores import core_count
from pipeline.datasets import outlines, textures
from pipeline.datasets.outlines import DIRECTIONS, Point
from pipeline.datasets.scenery import UNITS, Painter
from pipeline.datasets.textures import Dice
from pipeline.errors import UserError, nearest
from pipeline.files import whole_folder

CLASSES: tuple[str, ...] = (
    "background", "sea", "island", "rock", "slab", "chip", "frame", "core", "patch", "disc",
    "star", "wire", "dot",
)  # fmt: skip
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0), (64, 120, 192), (240, 200, 96), (150, 110, 70), (128, 64, 160), (224, 128, 224),
    (224, 224, 224), (208, 48, 48), (248, 144, 128), (64, 160, 72), (168, 224, 96), (0, 200, 200),
    (255, 128, 0),
)  # fmt: skip
SPLITS = ("train", "val", "test")
_NUMBER = {name: number for number, name in enumerate(CLASSES)}


def scene(seed: int, split: str, index: int, side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """One image and its label.

    Args:
        seed: of the data set, 0 or more.
        split: train, val or test.
        index: of the image within its split.
        side: pixels; the objects grow with it.

    Returns:
        RGB, (side, side, 3) uint8, and class numbers with 255 = void, (side, side) uint8.

    Raises:
        UserError: for an unknown split, a negative seed or a side below 32.
    """
    _check(seed, {split: 1}, side)
    dice = Dice(seed, SPLITS.index(split), index)
    painter = Painter(dice, side)
    painter.clutter(dice.integer(4, 10))
    _sea(painter)
    _slab(painter)
    painter.clutter(dice.integer(2, 5))
    _framed(painter)
    _stones(painter)
    _striped_patches(painter)
    for draw in dice.shuffled((_figures, _chips)):
        draw(painter)
    _wires(painter)
    _dots(painter)
    return textures.light(dice, painter.x, painter.y, painter.image, UNITS), painter.label


def generate(
    root: Path, seed: int, sizes: dict[str, int], side: int = 128, workers: int | None = None
) -> None:
    """Write the data set: root/<split>/{images,labels}/0000.bmp, 0001.bmp, ...

    BMP, because the bytes of a compressed file depend on the compressor's version. A split takes
    its place only when it is whole.

    Args:
        root: folder; made if it is missing.
        seed: the same seed gives the same bytes.
        sizes: number of images for each split.
        side: pixels.
        workers: processes; None: one a core. They do not change the result.

    Raises:
        UserError: for an unknown split, a negative seed or size, or a side below 32.
    """
    _check(seed, sizes, side)
    with ExitStack() as stack:
        draw = partial(_write, seed, side)
        jobs = []
        for split, size in sizes.items():
            folder = stack.enter_context(whole_folder(root / split))
            for kind in ("images", "labels"):
                (folder / kind).mkdir()
            jobs += [(folder, split, index) for index in range(size)]
        # A process more pays from about 50 images on.
        processes = min(workers or core_count(), len(jobs) // 50 + 1)
        if processes > 1:
            pool = stack.enter_context(multiprocessing.Pool(processes))
            done: Iterable[None] = pool.imap_unordered(draw, jobs, chunksize=8)
        else:
            done = map(draw, jobs)
        for _ in track(done, "shapes", total=len(jobs)):
            pass


def _write(seed: int, side: int, job: tuple[Path, str, int]) -> None:
    """Draw one image and write it and its label."""
    folder, split, index = job
    image, label = scene(seed, split, index, side)
    (folder / "images" / f"{index:04d}.bmp").write_bytes(_bmp(image[:, :, ::-1], b"", 24))
    colours = (*PALETTE, *((255, 255, 255),) * (256 - len(PALETTE)))
    table = b"".join(bytes((blue, green, red, 0)) for red, green, blue in colours)
    (folder / "labels" / f"{index:04d}.bmp").write_bytes(_bmp(label, table, 8))


def _bmp(pixels: np.ndarray, table: bytes, bits: int) -> bytes:
    """An uncompressed Windows bitmap: two headers, the colour table, rows from the bottom up."""
    height, width = pixels.shape[:2]
    rows = pixels[::-1].reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    start = 14 + 40 + len(table)
    file_header = struct.pack("<2sIHHI", b"BM", start + rows.size, 0, 0, start)
    image_header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, 0, rows.size, 2835, 2835, len(table) // 4, 0
    )
    return file_header + image_header + table + rows.tobytes()


def _check(seed: int, sizes: dict[str, int], side: int) -> None:
    for split, size in sizes.items():
        if split not in SPLITS:
            raise UserError(f"shapes: split '{split}': {nearest(split, SPLITS)}")
        if size < 0:
            raise UserError(f"shapes: {size} images for split '{split}': must be at least 0")
    if seed < 0:
        raise UserError(f"shapes: seed {seed}: must be at least 0")
    if side < 32:
        raise UserError(f"shapes: side {side}: must be at least 32 pixels")


def _sea(p: Painter) -> None:
    """In half of the images: a sea from one side, a lake, or a moat round an island's beach."""
    if not p.dice.chance(0.55):
        return
    kind = p.dice.uniform(0.0, 1.0)
    if kind < 0.5:
        reach = p.dice.uniform(-15.0, 40.0)
        along, _ = outlines.turn(p.x, p.y, (UNITS / 2, UNITS / 2), p.dice.pick(DIRECTIONS))
        shore = along - reach
    elif kind < 0.65:
        centre = p.dice.uniform(30.0, 98.0), p.dice.uniform(30.0, 98.0)
        shore = outlines.disc(p.x, p.y, centre, p.dice.uniform(32.0, 50.0))
    else:
        radius, width = p.dice.uniform(26.0, 36.0), p.dice.uniform(19.0, 42.0)
        p.beach = p.dice.uniform(44.0, 84.0), p.dice.uniform(44.0, 84.0)
        p.take(p.beach, 0.8 * radius)
        inner = outlines.disc(p.x, p.y, p.beach, radius)
        shore = np.maximum(-inner, inner - width)
    p.shore = p.ragged(p.ragged(shore, 10.0, 33.0), 3.0, 9.0)
    p.stamp(p.shore, p.water, _NUMBER["sea"])


def _slab(p: Painter) -> None:
    """A chessboard figure of 28 to 48 units' radius, in a third of the images."""
    if not p.dice.chance(0.32):
        return
    radius = p.dice.uniform(28.0, 48.0)
    centre = p.place(radius, keep=0.55)
    if centre:
        p.stamp(_rounded(p, centre, radius), p.checks, _NUMBER["slab"])


def _chips(p: Painter) -> None:
    """The same figure with a radius of 7 to 12.5 units."""
    if not p.dice.chance(0.45):
        return
    for _ in range(p.dice.integer(1, 3)):
        radius = p.dice.uniform(7.0, 12.5)
        centre = p.place(radius, keep=0.9)
        if centre:
            p.stamp(_rounded(p, centre, radius), p.checks, _NUMBER["chip"])


def _framed(p: Painter) -> None:
    """A frame, empty or around a striped figure."""
    if not p.dice.chance(0.65):
        return
    radius, width = p.dice.uniform(24.0, 36.0), p.dice.uniform(2.8, 5.0)
    centre = p.place(radius, keep=1.0)
    if not centre:
        return
    shape = p.dice.integer(0, 2)
    if shape == 0:
        outline = outlines.disc(p.x, p.y, centre, radius)
    else:
        half = 0.82 * radius, (0.82 if shape == 1 else p.dice.uniform(0.6, 0.75)) * radius
        outline = outlines.box(p.x, p.y, centre, half, p.dice.pick(DIRECTIONS))
    p.stamp(outlines.band(outline, width), p.line, _NUMBER["frame"])
    if p.dice.chance(0.75):
        inner = radius * p.dice.uniform(0.4, 0.56)
        p.stamp(_rounded(p, centre, inner), p.stripes, _NUMBER["core"])


def _striped_patches(p: Painter) -> None:
    """The core's figure without a frame, now and then beside a line that encloses nothing."""
    if not p.dice.chance(0.42):
        return
    for _ in range(p.dice.integer(1, 2)):
        radius = p.dice.uniform(10.0, 20.0)
        centre = p.place(radius, keep=1.0)
        if centre is None:
            continue
        if p.dice.chance(0.5):
            dx, dy = p.dice.pick(DIRECTIONS)
            off, long = p.dice.uniform(1.4, 2.1) * radius, p.dice.uniform(0.8, 1.6) * radius
            x, y = centre[0] + off * dx, centre[1] + off * dy
            ends = [(x - long * dy, y + long * dx), (x + long * dy, y - long * dx)]
            p.stamp(outlines.polyline(p.x, p.y, ends, p.dice.uniform(2.8, 5.0)), p.line, None)
        p.stamp(_rounded(p, centre, radius), p.stripes, _NUMBER["patch"])


def _stones(p: Painter) -> None:
    """Islands in the sea or behind its beach, rocks on land, of the same paint and sizes."""
    if p.beach:
        p.stamp(p.blob(p.beach, p.dice.uniform(9.0, 18.0)), p.stone, _NUMBER["island"])
    for name, chance, ground in (("island", 0.7, -1), ("rock", 0.5, 1)):
        if not p.dice.chance(chance):
            continue
        for _ in range(p.dice.integer(1, 2)):
            radius = p.dice.uniform(8.0, 21.0)
            centre = p.place(radius, keep=0.95, ground=ground)
            if centre:
                p.stamp(p.blob(centre, radius), p.stone, _NUMBER[name])


def _figures(p: Painter) -> None:
    """Discs and stars of the same paint and sizes."""
    for name in ("disc", "star"):
        if not p.dice.chance(0.5):
            continue
        for _ in range(p.dice.integer(1, 2)):
            radius = p.dice.uniform(7.0, 23.0)
            centre = p.place(radius, keep=0.7)
            if centre is None:
                continue
            if name == "disc":
                distance = _ellipse(p, centre, 0.9 * radius)
            else:
                radii = radius * p.dice.uniform(0.34, 0.46), 1.5 * radius
                spikes, turned = p.dice.integer(4, 7), p.dice.integer(0, 119)
                distance = outlines.star(p.x, p.y, centre, radii, spikes, turned)
            p.stamp(distance, p.plain, _NUMBER[name])


def _wires(p: Painter) -> None:
    """Crooked lines of light and dark beads, over everything."""
    if not p.dice.chance(0.42):
        return
    dark = (p.wire[0] * 0.35, p.wire[1] * 0.35, p.wire[2] * 0.35)
    for _ in range(p.dice.integer(1, 2)):
        points = p.crooked(p.dice.uniform(18.0, 34.0), p.dice.integer(3, 6))
        width = p.dice.uniform(2.4, 4.4)
        beads = textures.triangle(outlines.disc(p.x, p.y, points[0], 0.0) / 6.0)
        paint = textures.blend(p.wire, dark, textures.step(beads, 2.0))
        p.stamp(outlines.polyline(p.x, p.y, points, width), paint, _NUMBER["wire"])


def _dots(p: Painter) -> None:
    """Swarms of spots with a bright rim and a dark heart."""
    if not p.dice.chance(0.5):
        return
    middle = p.dice.uniform(20.0, 108.0), p.dice.uniform(20.0, 108.0)
    for _ in range(p.dice.integer(5, 11)):
        centre = middle[0] + p.dice.uniform(-20.0, 20.0), middle[1] + p.dice.uniform(-20.0, 20.0)
        radius = p.dice.uniform(2.0, 4.2)
        spot = outlines.disc(p.x, p.y, centre, radius)
        p.stamp(spot, (250.0, 246.0, 236.0), _NUMBER["dot"])
        p.stamp(spot + 0.55 * radius, (36.0, 30.0, 44.0), None)


def _rounded(p: Painter, centre: Point, radius: float) -> np.ndarray:
    """A rectangle with round corners, or an ellipse."""
    if p.dice.chance(0.3):
        return _ellipse(p, centre, radius)
    half = 0.62 * radius, p.dice.uniform(0.42, 0.62) * radius
    return outlines.box(p.x, p.y, centre, half, p.dice.pick(DIRECTIONS)) - 0.22 * radius


def _ellipse(p: Painter, centre: Point, radius: float) -> np.ndarray:
    """An ellipse; its distance is exact along the axes only, near enough for a soft edge."""
    u, v = outlines.turn(p.x, p.y, centre, p.dice.pick(DIRECTIONS))
    flat = p.dice.uniform(0.7, 1.0)
    return flat * (np.sqrt(u * u + v * v / (flat * flat)) - radius)
