"""The fully connected CRF on top of the network's probabilities, by the backend that is wanted.

v1 (arXiv 1412.7062), section 2.3; Krähenbühl and Koltun, NIPS 2011. This module needs no torch,
except for the backend `exact`.
"""

from types import ModuleType
from typing import cast

import numpy as np
import numpy.typing as npt

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.inference.dense_crf import (
    DenseCrfSettings,
    Mode,
    Normalisation,
    native_available,
    refine_labels,
)
from pipeline.inference.dense_crf.settings import (
    MOST_SIGMAS,
    SMALLEST_PROBABILITY,
    check_finite,
)


def refine(
    image: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32], crf: CrfConfig
) -> npt.NDArray[np.uint8]:
    """The labels after mean-field inference in the fully connected CRF.

    The energy is -log p for each pixel, plus for each pair of pixels of different labels
    w1 exp(-|dp|^2 / 2 sigma_alpha^2 - |dI|^2 / 2 sigma_beta^2) + w2 exp(-|dp|^2 / 2 sigma_gamma^2)
    (v1, equation 3).

    Args:
        image: H x W x 3, RGB.
        probabilities: C x H x W, the network's softmax.
        crf: weights, widths, how many mean-field iterations, and by what they are computed.

    Returns:
        H x W, class numbers.

    Raises:
        UserError: a probability is not finite, a sigma is too narrow for the filter, or pydensecrf
            is not installed.
        ValueError: the shapes do not fit together.
    """
    height, width = probabilities.shape[1:]
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.dtype} {image.shape} for {height} x {width} probabilities")
    if crf.backend == "pydensecrf":
        return _by_pydensecrf(image, probabilities, crf)
    settings = DenseCrfSettings(
        w1=crf.w1,
        sigma_alpha=crf.sigma_alpha,
        sigma_beta=crf.sigma_beta,
        w2=crf.w2,
        sigma_gamma=crf.sigma_gamma,
        iterations=crf.iterations,
        normalisation=cast(Normalisation, crf.normalisation),
        mode=cast(Mode, crf.backend),
    )
    return refine_labels(probabilities, image, settings)


def _by_pydensecrf(
    image: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32], crf: CrfConfig
) -> npt.NDArray[np.uint8]:
    """The same by pydensecrf, the reference."""
    densecrf = _pydensecrf()
    classes, height, width = probabilities.shape
    check_finite(probabilities)
    _check_sigmas(crf, max(height, width))
    after = crf.normalisation == "after"
    normalisation = densecrf.NORMALIZE_AFTER if after else densecrf.NORMALIZE_SYMMETRIC
    field = densecrf.DenseCRF2D(width, height, classes)
    clipped = np.clip(probabilities.reshape(classes, -1), SMALLEST_PROBABILITY, 1.0)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(clipped), np.float32))
    field.addPairwiseGaussian(sxy=crf.sigma_gamma, compat=crf.w2, normalization=normalisation)
    # A copy: pydensecrf refuses arrays that may not be written to, such as Pillow's.
    field.addPairwiseBilateral(
        sxy=crf.sigma_alpha,
        srgb=crf.sigma_beta,
        rgbim=np.array(image, order="C"),
        compat=crf.w1,
        normalization=normalisation,
    )
    beliefs = np.asarray(field.inference(crf.iterations)).reshape(classes, height, width)
    return beliefs.argmax(axis=0).astype(np.uint8)


def _pydensecrf() -> ModuleType:
    """The reference, which is optional: it does not compile on Python 3.13.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError(
            "crf.backend=pydensecrf: it is not installed; take lattice, which gives the same "
            "labels, or `pip install pydensecrf2` on Python 3.12 or older"
        ) from error
    return cast(ModuleType, densecrf)


def _check_sigmas(crf: CrfConfig, side: int) -> None:
    """Its lattice counts in 16 bits; beyond, pydensecrf crashes or returns nonsense."""
    for key, extent in (("sigma_alpha", side), ("sigma_beta", 255), ("sigma_gamma", side)):
        least = extent / MOST_SIGMAS
        if getattr(crf, key) < least:
            raise UserError(
                f"crf.{key}={getattr(crf, key)}: too narrow for the filter of the CRF on an image "
                f"of {side} pixels; at least {least:.3g}"
            )


def releases_lock(crf: CrfConfig) -> bool:
    """Whether `refine` leaves Python's lock alone, so that threads run side by side."""
    return crf.backend == "exact" or (crf.backend in ("lattice", "fast") and native_available())
