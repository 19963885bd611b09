"""Read images and masks, decoded to the last byte."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import UserError

#: Kinds of pixels that become RGB without loss or guessing.
IMAGE_MODES = ("RGB", "L", "P", "RGBA")
#: Palette, or 8-bit grey: the value of a pixel is its class number.
LABEL_MODES = ("P", "L")


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 RGB, H x W x 3.

    Raises:
        UserError: missing, truncated, not an image, or of a kind that is not 8 bits a channel.
    """
    image = _decode(path)
    if image.mode not in IMAGE_MODES:
        raise UserError(
            f"{path}: pixels of mode {image.mode}, expected 8-bit RGB or grey; convert it"
        )
    return np.asarray(image.convert("RGB"))


def read_label(path: Path) -> np.ndarray:
    """A mask's class numbers, uint8 H x W.

    Raises:
        UserError: missing, truncated, not an image, or a picture of colours.
    """
    image = _decode(path)
    if image.mode not in LABEL_MODES:
        kind = "an RGB picture" if image.mode in ("RGB", "RGBA") else f"of mode {image.mode}"
        raise UserError(
            f"{path}: the mask is {kind}, expected one channel of class numbers "
            "(8-bit palette or grey); convert its colours to class numbers"
        )
    return np.asarray(image)


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise UserError(f"{path}: the file is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: truncated or not an image ({reason}); get it again") from error
