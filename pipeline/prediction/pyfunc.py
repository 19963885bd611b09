"""The registered model: what `mlflow.pyfunc.load_model` and `mlflow models serve` run.

MLflow calls `_load_pyfunc` with the folder that `pipeline.prediction.registry` stored, and the
object's `predict` with a table of images. Nothing of the project is in the stored model but its
weights and settings: the installed package is the code.
"""

import base64
import binascii
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.images import read_image
from pipeline.errors import UserError
from pipeline.prediction.predictor import Image, Labels, Predictor
from pipeline.prediction.trained import find_trained

#: The table's only column.
COLUMN = "image"
EXPECTED = (
    f"column `{COLUMN}`: an array uint8 H x W x 3 (RGB), or an image file's bytes, as they are or "
    "in base64"
)


class LabelMaps:
    """Images to label maps.

    Args:
        predictor: the network.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(
        self, images: Mapping[str, Iterable[Any]], params: Mapping[str, Any] | None = None
    ) -> list[Labels]:
        """The class number of every pixel.

        Args:
            images: a table with a column `image`, of any sizes: arrays uint8 H x W x 3, or the
                bytes of image files, as they are or in base64.
            params: multi_scale, flip and crf, each true or false.

        Returns:
            uint8 H x W for each image, upright.

        Raises:
            MlflowException: it is no image.
        """
        wanted = params or {}
        passes = self.predictor.trained.passes(
            multi_scale=bool(wanted.get("multi_scale")), flip=bool(wanted.get("flip"))
        )
        crf = bool(wanted.get("crf"))
        return [self.predictor.labels(decoded(image), passes, crf=crf) for image in images[COLUMN]]


def decoded(image: Any) -> Image:
    """An image in one of the forms that are taken, as uint8 RGB, H x W x 3, upright."""
    if isinstance(image, str):
        try:
            image = base64.b64decode(image)
        except (binascii.Error, ValueError) as error:
            raise _wrong("text that is not base64") from error
    if isinstance(image, bytes):
        return _read(image)
    try:
        pixels = np.asarray(image)
    except ValueError as error:  # rows of unlike lengths
        raise _wrong("no array") from error
    inside = pixels.dtype.kind in "iu" and pixels.size and 0 <= pixels.min() and pixels.max() <= 255
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not inside:
        raise _wrong(f"an array {pixels.dtype} {pixels.shape}")
    return pixels.astype(np.uint8)


def _read(content: bytes) -> Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(content)
        try:
            return read_image(path)
        except UserError as error:
            raise _wrong(str(error).replace(str(path), "the bytes")) from error


def _wrong(given: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(f"{EXPECTED}; got {given}")


def _load_pyfunc(path: str) -> LabelMaps:
    """What MLflow calls: the model of a folder that `register` stored."""
    return LabelMaps(Predictor(find_trained(path)))
