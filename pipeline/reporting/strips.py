"""The strips of pictures: image and truth, then every setting before and after the CRF."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.pictures import INK, PAPER, TEXT, fit, grid, overlay
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.reporting.disagreement import label_map, most_disagreed
from pipeline.reporting.groups import Group, Study

#: The longest side on the page, in pixels: large enough to see borders, small enough to carry
#: dozens of pictures in one file.
SIDE = 320
#: Settings in a strip at most, the best of them; strips at most, and pictures in all of them.
MOST_GUESSES, MOST_STRIPS, MOST_PICTURES = 8, 6, 90


@dataclass(frozen=True)
class Guess:
    """What one setting made of a picture; JPEG bytes, None where there is none."""

    variant: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Strip:
    """One picture of the evaluated split."""

    id: str
    #: Percent of the scored pixels, as in `Disagreement`.
    disagreement: float
    width: int
    height: int
    image: bytes
    truth: bytes
    guesses: list[Guess]
    #: Class numbers that the truth or a guess shows, without void.
    shows: frozenset[int]

    def rows(self) -> list[list[tuple[str, bytes | None]]]:
        """Two rows of (caption, picture): above without, below with the CRF."""
        above = [("image", self.image), *((g.variant, g.before) for g in self.guesses)]
        below = [("truth", self.truth), *((f"{g.variant} + CRF", g.after) for g in self.guesses)]
        return [above, below]


@dataclass(frozen=True)
class Strips:
    """The pictures on which the settings disagree most, and among how many they were found."""

    strips: list[Strip]
    looked_at: int
    #: The settings whose predictions are shown.
    shown: list[str]


def strips(study: Study, data: Prepared | None) -> Strips:
    """Draw the images on which the compared settings disagree most; none without the data."""
    ranked = sorted(study.compared, key=lambda group: -group.miou)[:MOST_GUESSES]
    groups = [group for group in study.compared if group in ranked]
    if data is None or not groups:
        return Strips([], 0, [])
    count = min(MOST_STRIPS, max(2, MOST_PICTURES // (2 + 2 * len(groups))))
    found, looked_at = most_disagreed(groups, data, count)
    drawn = [_strip(one.id, one.percent, groups, data) for one in found]
    return Strips(drawn, looked_at, [group.label for group in groups])


def _strip(id: str, percent: float, groups: Sequence[Group], data: Prepared) -> Strip:
    image, truth = read_image(data.image_path(id)), read_label(data.label_path(id))
    shows = set(np.unique(truth).tolist())

    def drawn(labels: NDArray[np.uint8]) -> bytes:
        small, numbers = fit(image, labels, SIDE)
        return _jpeg(overlay(small, numbers, data.palette))

    def guessed(group: Group, mode: str) -> bytes | None:
        try:
            labels = read_label(label_map(group, mode, id))
        except UserError:
            return None
        shows.update(np.unique(labels).tolist())
        return drawn(labels)

    guesses = [
        Guess(group.label, guessed(group, "single"), guessed(group, "single_crf"))
        for group in groups
    ]
    small, numbers = fit(image, truth, SIDE)
    return Strip(
        id=id,
        disagreement=percent,
        width=small.shape[1],
        height=small.shape[0],
        image=_jpeg(small),
        truth=_jpeg(overlay(small, numbers, data.palette)),
        guesses=guesses,
        shows=frozenset(shows - {data.void}),
    )


def sheet(strip: Strip) -> Image.Image:
    """All pictures of a strip in two rows, each under its caption."""
    columns = len(strip.guesses) + 1
    cells = [
        _captioned(caption, data, (strip.width, strip.height))
        for row in strip.rows()
        for caption, data in row
    ]
    return grid(cells, columns, gap=6)


def _captioned(caption: str, data: bytes | None, size: tuple[int, int]) -> Image.Image:
    cell = Image.new("RGB", (size[0], size[1] + TEXT + 6), PAPER)
    ImageDraw.Draw(cell).text((1, 1), caption, fill=INK, font=ImageFont.load_default(TEXT))
    if data is not None:
        cell.paste(Image.open(io.BytesIO(data)), (0, TEXT + 6))
    return cell


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Full colour resolution: a segment's border is a border of colour.
    Image.fromarray(picture).save(buffer, "JPEG", quality=84, subsampling=0, optimize=True)
    return buffer.getvalue()


def data_uri(picture: bytes, kind: str = "image/jpeg") -> str:
    """The picture as an address that carries it."""
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
