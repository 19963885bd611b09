"""The strips of pictures: image and truth, then every variant before and after the CRF."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.reporting.compare import comparable, evaluation_of
from pipeline.reporting.load import Variant

#: The longest side on the page, in pixels: large enough to see borders, small enough to carry
#: dozens of pictures in one file.
SIDE = 360


@dataclass(frozen=True)
class Guess:
    """What one variant made of a picture; JPEG bytes, None where there is none."""

    variant: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Strip:
    """One picture of the evaluated split."""

    id: str
    width: int
    height: int
    image: bytes
    truth: bytes
    guesses: list[Guess]

    def rows(self) -> list[list[tuple[str, bytes | None]]]:
        """Two rows of (caption, picture): above without, below with the CRF."""
        above = [("image", self.image), *((g.variant, g.before) for g in self.guesses)]
        below = [("truth", self.truth), *((f"{g.variant} + CRF", g.after) for g in self.guesses)]
        return [above, below]


def strips(variants: Sequence[Variant]) -> list[Strip]:
    """Every picture that a comparable variant saved, in the order of their ids."""
    compared = comparable(variants)
    ids = sorted({id_ for variant in compared for id_ in evaluation_of(variant).pictures})
    return [strip for id_ in ids if (strip := _strip(id_, compared)) is not None]


def _strip(id_: str, compared: Sequence[Variant]) -> Strip | None:
    """One picture's strip; None where nobody saved both the image and the truth."""
    folders = [evaluation_of(variant).pictures.get(id_) for variant in compared]
    for folder in filter(None, folders):
        image, truth = _shrunk(folder / "image.png"), _shrunk(folder / "truth.png")
        if image is not None and truth is not None:
            break
    else:
        return None
    guesses = [
        Guess(
            variant.name,
            _shrunk(folder / "single.png") if folder else None,
            _shrunk(folder / "single_crf.png") if folder else None,
        )
        for variant, folder in zip(compared, folders, strict=True)
    ]
    width, height = Image.open(io.BytesIO(image)).size
    return Strip(id_, width, height, image, truth, guesses)


def _shrunk(path: Path) -> bytes | None:
    """The picture as a small JPEG, None if it is not there."""
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Full colour resolution: a segment's border is a border of colour.
    small.save(buffer, "JPEG", quality=86, subsampling=0, optimize=True)
    return buffer.getvalue()


def data_uri(picture: bytes, kind: str = "image/jpeg") -> str:
    """The picture as an address that carries it."""
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
