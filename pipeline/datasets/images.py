"""Read images and masks, decoded to the last byte."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from pipeline.errors import UserError

#: Files that are taken for images, and for masks that are images.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
#: Those that every reader of the training-ready set understands.
PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
#: Kinds of pixels that become 8-bit RGB without guessing; transparency is dropped.
IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
#: 16 bits of grey: black is 0, white is 65535.
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
#: What makes an image upright, by EXIF's orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Palette, grey or two-valued: the value of a pixel is its class number.
LABEL_MODES = ("P", "L")
NUMBER_MODES = (*LABEL_MODES, "1", *DEEP_MODES)


@dataclass(frozen=True)
class Picture:
    """An image file, as RGB of 8 bits a channel."""

    #: uint8, H x W x 3, as the file holds its pixels.
    stored: np.ndarray
    #: The same, turned as the camera's note (EXIF) says it is to be looked at.
    upright: np.ndarray
    #: The file itself is 8-bit RGB and upright, of a kind that any reader understands.
    plain: bool


def read_picture(path: Path) -> Picture:
    """An image, whatever kind the user brings.

    Raises:
        UserError: missing, truncated, not an image, or of a kind that cannot become RGB.
    """
    image, orientation = _decode(path)
    stored = _rgb(image, path)
    turned = orientation in TURNS
    plain = not turned and _is_plain(image, path)
    return Picture(stored, _turned(stored, orientation) if turned else stored, plain)


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 RGB, H x W x 3, upright.

    Raises:
        UserError: missing, truncated, not an image, or of a kind that cannot become RGB.
    """
    image, orientation = _decode(path)
    return _turned(_rgb(image, path), orientation)


def read_label(path: Path) -> np.ndarray:
    """The class numbers of a mask in the training-ready set, uint8 H x W.

    Raises:
        UserError: missing, truncated, not an image, or a picture of colours.
    """
    image, _ = _decode(path)
    if image.mode not in LABEL_MODES:
        raise _not_numbers(path, image.mode)
    return np.asarray(image)


def read_numbers(path: Path) -> np.ndarray:
    """The numbers of a mask as it was delivered, uint8 or int64 H x W.

    Raises:
        UserError: missing, truncated, not an image, a picture of colours, or a JPEG.
    """
    image, _ = _decode(path)
    _refuse_lossy(path, image.format)
    if image.mode not in NUMBER_MODES:
        raise _not_numbers(path, image.mode)
    numbers = np.asarray(image)
    return numbers.astype(np.int64 if image.mode in DEEP_MODES else np.uint8)


def read_colours(path: Path) -> np.ndarray:
    """The colours of a mask, uint8 H x W x 3.

    Raises:
        UserError: missing, truncated, not an image, or a JPEG.
    """
    image, _ = _decode(path)
    _refuse_lossy(path, image.format)
    return _rgb(image, path)


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    """uint8 H x W x 3."""
    if image.mode in DEEP_MODES:
        grey = (np.asarray(image, dtype=np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode not in IMAGE_MODES:
        raise UserError(
            f"{path}: pixels of mode {image.mode}, expected RGB or grey of 8 or 16 bits; convert it"
        )
    return np.asarray(image.convert("RGB"))


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation not in TURNS:
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(TURNS[orientation]))


def _is_plain(image: Image.Image, path: Path) -> bool:
    if path.suffix.lower() not in PLAIN_SUFFIXES:
        return False
    if image.format == "PNG":
        # Pillow shortens 16-bit colours on its own; the header tells: depth, then kind of colour.
        with open(path, "rb") as file:
            return file.read(26)[24:] == b"\x08\x02"
    return image.mode == "RGB" and image.format in ("JPEG", "BMP")


def _not_numbers(path: Path, mode: str) -> UserError:
    kind = "an RGB picture" if mode in ("RGB", "RGBA") else f"of mode {mode}"
    return UserError(
        f"{path}: the mask is {kind}, expected one channel of class numbers (palette or grey); "
        "a mask of colours needs `format: colours` in the manifest"
    )


def _refuse_lossy(path: Path, kind: str | None) -> None:
    if kind == "JPEG":
        raise UserError(
            f"{path}: the mask is a JPEG, which blurs classes into each other; save masks as PNG"
        )


def _decode(path: Path) -> tuple[Image.Image, int]:
    """The image, whole, and EXIF's orientation (1: upright)."""
    try:
        with Image.open(path) as image:
            image.load()
            return image, _orientation(image)
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: truncated or not an image ({reason}); get it again") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return 1  # a damaged note does not make the pixels worse
