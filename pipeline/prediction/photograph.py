"""A photograph that is on every machine: the one that matplotlib brings with it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.datasets.images import read_image
from pipeline.errors import UserError

#: Grace Hopper, 512 x 600 pixels, in the public domain.
NAME = "grace_hopper.jpg"


def photograph() -> npt.NDArray[np.uint8]:
    """Uint8 RGB, H x W x 3.

    Raises:
        UserError: this matplotlib was installed without its sample data.
    """
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "sample_data" / NAME
    if not path.is_file():
        raise UserError(f"{path}: not installed with matplotlib; name an image by --image")
    return read_image(path)
