"""Pictures of label maps: coloured, laid over their image, set side by side.

Void is drawn as a white hatch, so that it can never be taken for a class.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Palette = Sequence[Sequence[int]]

VOID = 255
#: Pixels from one line of the hatch to the next, and of a line's width.
HATCH, STROKE = 8, 2
INK, PAPER = (32, 32, 32), (255, 255, 255)
TEXT = 13


def colourise(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """A label map in the classes' colours, void as a white hatch on grey.

    Args:
        labels: uint8 H x W, class numbers and 255.
        palette: RGB of each class.

    Returns:
        uint8 H x W x 3.
    """
    grey = np.full((*labels.shape, 3), 96, dtype=np.uint8)
    return overlay(grey, labels, palette, alpha=1.0)


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Palette, alpha: float = 0.6
) -> np.ndarray:
    """A label map over its image; void leaves the image as it is, under a white hatch.

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
    diagonal = np.add.outer(np.arange(labels.shape[0]), np.arange(labels.shape[1]))
    void = labels == VOID
    mixed[void] = image[void]
    mixed[void & (diagonal % HATCH < STROKE)] = 255
    return np.rint(mixed).astype(np.uint8)


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
    """An image beside its overlay, the longer side `side` pixels, with a caption above.

    The overlay is over the image in grey: a class looks as in the legend on any colours.
    """
    image, labels = fit(image, labels, side)
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    height, width = labels.shape
    cell = Image.new("RGB", (2 * side + 2, height + TEXT + 6), PAPER)
    ImageDraw.Draw(cell).text((2, 1), caption, fill=INK, font=_font())
    for column, picture in enumerate((image, overlay(grey, labels, palette))):
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


def legend(classes: Sequence[str], palette: Palette, width: int, gap: int = 10) -> Image.Image:
    """Every class with its number, name and colour, and void, in lines of at most `width`."""
    entries = [(f"{number} {name}", number) for number, name in enumerate(classes)]
    entries.append(("255 void", VOID))
    swatch, line = 22, TEXT + 9
    font, left, top = _font(), gap, 0
    places: list[tuple[str, int, int, int]] = []
    for text, number in entries:
        needed = swatch + 5 + round(font.getlength(text)) + 18
        if left + needed > width and left > gap:
            left, top = gap, top + line
        places.append((text, number, left, top))
        left += needed
    picture = Image.new("RGB", (width, top + line + gap), PAPER)
    draw = ImageDraw.Draw(picture)
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


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)
