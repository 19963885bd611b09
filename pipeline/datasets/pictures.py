"""Pictures of label maps: coloured, laid over their image, outlined on it, set side by side.

Void is drawn as a hatch of black and white: on no image can it be taken for a class.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Palette = Sequence[Sequence[int]]

VOID = 255
#: Void in the palette of the masks, as PASCAL VOC paints it.
VOID_COLOUR = (224, 224, 192)
#: Pixels from one white line of the hatch to the next, and of a line's width; a black one follows.
HATCH, STROKE = 8, 2
INK, PAPER = (32, 32, 32), (255, 255, 255)
TEXT = 13


def colourise(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """A label map in the classes' colours, void as the hatch on grey.

    Args:
        labels: uint8 H x W, class numbers and 255.
        palette: RGB of each class.

    Returns:
        uint8 H x W x 3.
    """
    grey = np.full((*labels.shape, 3), 128, dtype=np.uint8)
    return overlay(grey, labels, palette, alpha=1.0)


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Palette, alpha: float = 0.6
) -> np.ndarray:
    """A label map over its image; void leaves the image as it is, under the hatch.

    Args:
        image: uint8 RGB, H x W x 3.
        labels: uint8 H x W, class numbers and 255.
        palette: RGB of each class.
        alpha: share of the class's colour, 0..1.

    Returns:
        uint8 H x W x 3.
    """
    colours = np.zeros((256, 3), dtype=np.float32)
    colours[: len(palette)] = palette
    mixed = (1 - alpha) * image + alpha * colours[labels]
    phase = np.add.outer(np.arange(labels.shape[0]), np.arange(labels.shape[1])) % HATCH
    void = labels == VOID
    mixed[void] = image[void]
    mixed[void & (phase < STROKE)] = 255
    mixed[void & (phase >= STROKE) & (phase < 2 * STROKE)] = 0
    return np.rint(mixed).astype(np.uint8)


def palette_picture(labels: np.ndarray, palette: Palette) -> Image.Image:
    """A label map as a picture whose values are its numbers, and whose colours the classes'.

    Args:
        labels: uint8 H x W, class numbers and 255.
        palette: RGB of each class; void has PASCAL VOC's, all other numbers black.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[VOID] = VOID_COLOUR
    picture = Image.fromarray(labels)
    picture.putpalette(colours.tobytes())
    return picture


def outline(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The borders between the labels drawn on their image: a white line beside a black one.

    Args:
        image: uint8 RGB, H x W x 3.
        labels: uint8 H x W, class numbers and 255.

    Returns:
        uint8 H x W x 3.
    """
    drawn = image.copy()
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    for colour, first in ((0, 1), (255, 0)):
        drawn[:, first : first + across.shape[1]][across] = colour
        drawn[first : first + down.shape[0]][down] = colour
    return drawn


def fit(image: np.ndarray, labels: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels scaled so that the longer side is `side` pixels; classes stay numbers."""
    height, width = labels.shape
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smooth = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    sharp = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    return np.asarray(smooth), np.asarray(sharp)


def pair(
    image: np.ndarray, labels: np.ndarray, palette: Palette, caption: str, side: int
) -> Image.Image:
    """An image with the labels' borders on it, beside the labels in their colours over it in grey.

    The borders show a mask that is shifted; the colours are as in the legend on any image.

    Args:
        image: uint8 RGB, H x W x 3.
        labels: uint8 H x W, class numbers and 255.
        palette: RGB of each class.
        caption: above the two.
        side: pixels of each one's longer side.
    """
    image, labels = fit(image, labels, side)
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    height, width = labels.shape
    cell = Image.new("RGB", (2 * side + 2, height + TEXT + 6), PAPER)
    ImageDraw.Draw(cell).text((2, 1), caption, fill=INK, font=_font())
    pictures = outline(image, labels), overlay(grey, labels, palette)
    for column, picture in enumerate(pictures):
        cell.paste(Image.fromarray(picture), (column * (width + 2), TEXT + 6))
    return cell


def grid(cells: Sequence[Image.Image], columns: int, gap: int = 10) -> Image.Image:
    """Pictures in rows of `columns`, each row as high as its highest."""
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = max(cell.width for cell in cells)
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), PAPER
    )
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (gap + column * (width + gap), top))
        top += height + gap
    return sheet


def legend(
    classes: Sequence[str],
    palette: Palette,
    width: int,
    shares: Sequence[float] | None = None,
    note: str = "",
    gap: int = 10,
) -> Image.Image:
    """Every class with its number, name and colour, and void, in lines of at most `width`.

    Args:
        classes: their names.
        palette: RGB of each class.
        width: in pixels.
        shares: 0..1, of each class and then of void; None: not said.
        note: a line below.
        gap: around the legend, in pixels.
    """
    entries = [(f"{number} {name}", number) for number, name in enumerate(classes)]
    entries.append(("255 void", VOID))
    if shares is not None:
        entries = [
            (f"{text} {percent(share)}", number)
            for (text, number), share in zip(entries, shares, strict=True)
        ]
    swatch, line = 22, TEXT + 9
    font, left, top = _font(), gap, 0
    places: list[tuple[str, int, int, int]] = []
    for text, number in entries:
        needed = swatch + 5 + round(font.getlength(text)) + 18
        if left + needed > width and left > gap:
            left, top = gap, top + line
        places.append((text, number, left, top))
        left += needed
    bottom = top + line * (2 if note else 1)
    picture = Image.new("RGB", (width, bottom + gap), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((gap, top + line + 2), note, fill=INK, font=font)
    for text, number, left, top in places:
        colour = colourise(np.full((TEXT + 3, swatch), number, dtype=np.uint8), palette)
        picture.paste(Image.fromarray(colour), (left, top + 2))
        draw.text((left + swatch + 5, top + 2), text, fill=INK, font=font)
    return picture


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below one another, left edges aligned."""
    width, height = max(p.width for p in pictures), sum(p.height for p in pictures)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def percent(share: float) -> str:
    """Two digits at most: 71 %, 3.4 %, 0.05 %, <0.01 %."""
    if 0 < share < 1e-4:
        return "<0.01 %"
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)
