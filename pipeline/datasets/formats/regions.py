"""The regions of COCO's JSON and of those made like it, as masks."""

from typing import Any

import numpy as np
from pycocotools import mask as coco


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A region as bool H x W.

    By COCO's own library, which rasterises polygons as the data set's makers did: PIL's filled
    polygons are larger by their outline.

    Args:
        segmentation: polygons ([[x, y, x, y, ...], ...]), or run lengths down the columns
            ({"size": [height, width], "counts": a list, or COCO's compressed text}).
        height: of the image.
        width: of the image.

    Raises:
        ValueError: neither, or of another size.
    """
    try:
        if isinstance(segmentation, list):
            runs = coco.merge(coco.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            runs = coco.frPyObjects(segmentation, height, width)
        else:
            runs = segmentation
        region = coco.decode(runs).astype(bool)
    except Exception as error:  # the library raises bare exceptions
        raise ValueError(f"not a region of polygons or run lengths ({error})") from error
    if region.shape != (height, width):
        raise ValueError(f"a region of {region.shape[1]}x{region.shape[0]} pixels")
    return region
