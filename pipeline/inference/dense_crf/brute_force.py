"""Exact mean-field inference, every pair of pixels in float64: what the filters approximate."""

import numpy as np
import numpy.typing as npt

from pipeline.inference.dense_crf.settings import (
    SMALLEST_PROBABILITY,
    DenseCrfSettings,
    Normalisation,
    check_finite,
    checked_image,
    checked_maps,
)

Matrix = npt.NDArray[np.float64]

#: Above this a kernel takes more than 1 GB.
MOST_PIXELS = 12_000


def brute_force(
    probabilities: npt.NDArray[np.floating],
    image: npt.NDArray[np.uint8],
    settings: DenseCrfSettings,
) -> npt.NDArray[np.float64]:
    """Algorithm 1 of Krähenbühl and Koltun (NIPS 2011) as it stands, in O(N^2).

    The filters' own approximations are left out: all classes take part, and no kernel is cut off.
    As in pydensecrf and in the papers' code, a pixel's message holds its own belief.

    Args:
        probabilities: C x H x W, the network's softmax.
        image: H x W x 3, RGB.
        settings: the mode and `leave_out` have no meaning here.

    Returns:
        C x H x W.

    Raises:
        UserError: a probability is not finite.
        ValueError: shapes or types do not fit together, or the image has over 12 000 pixels.
    """
    image = checked_image(image)
    height, width = image.shape[:2]
    maps = checked_maps(probabilities, height, width)
    check_finite(maps)
    if height * width > MOST_PIXELS:
        raise ValueError(f"{height * width} pixels: brute force takes {MOST_PIXELS} at most")

    rows, columns = np.mgrid[:height, :width]
    positions = np.stack([rows.ravel(), columns.ravel()]).astype(np.float64)
    colours = image.reshape(-1, 3).T.astype(np.float64)
    far = kernel(np.concatenate([positions / settings.sigma_alpha, colours / settings.sigma_beta]))
    near = kernel(positions / settings.sigma_gamma)
    coupling = settings.w1 * normalised(far, settings.normalisation)
    coupling += settings.w2 * normalised(near, settings.normalisation)

    clipped = np.clip(maps.reshape(len(maps), -1).astype(np.float64), SMALLEST_PROBABILITY, 1.0)
    unary = -np.log(clipped)
    beliefs = softmax(-unary)
    for _ in range(settings.iterations):
        # Potts: agreeing neighbours lower the energy, a constant apart.
        beliefs = softmax(-unary + beliefs @ coupling.T)
    return beliefs.reshape(maps.shape)


def kernel(features: Matrix) -> Matrix:
    """exp(-|f_i - f_j|^2 / 2) for D x N features: N x N."""
    distances = np.zeros((features.shape[1], features.shape[1]))
    for feature in features:
        distances += (feature[:, None] - feature[None, :]) ** 2
    return np.asarray(np.exp(-0.5 * distances))


def normalised(matrix: Matrix, normalisation: Normalisation) -> Matrix:
    """The kernel with its rows divided by their sums, or symmetrically by the sums' roots."""
    sums = matrix.sum(axis=1)
    if normalisation == "after":
        return matrix / sums[:, None]
    return matrix / np.sqrt(sums[:, None] * sums[None, :])


def softmax(energies: Matrix) -> Matrix:
    """exp(e_c) / sum of exp(e_c) over the first axis."""
    exponents = np.exp(energies - energies.max(axis=0))
    return np.asarray(exponents / exponents.sum(axis=0))
