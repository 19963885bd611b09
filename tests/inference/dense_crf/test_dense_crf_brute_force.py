import math

import numpy as np
import numpy.typing as npt
import pytest
from crf_scenes import Image, scene

from pipeline.errors import UserError
from pipeline.inference.dense_crf import DenseCrfSettings, Normalisation, brute_force

Pixel = npt.NDArray[np.intp]

SETTINGS = DenseCrfSettings(w1=2.0, sigma_alpha=3.0, sigma_beta=20.0, w2=1.5, sigma_gamma=2.0)


def pair(settings: DenseCrfSettings, image: Image, a: Pixel, b: Pixel) -> tuple[float, float]:
    """The appearance kernel and the smoothness kernel between two pixels, weighted (v1, eq. 3)."""
    place = float(((a - b) ** 2).sum())
    difference = image[tuple(a)].astype(float) - image[tuple(b)]
    colour = float((difference**2).sum())
    far = math.exp(-place / (2 * settings.sigma_alpha**2) - colour / (2 * settings.sigma_beta**2))
    return far, math.exp(-place / (2 * settings.sigma_gamma**2))


@pytest.mark.parametrize("normalisation", ["symmetric", "after"])
def test_two_steps_are_the_papers_sums_written_out(normalisation: Normalisation) -> None:
    image, maps = scene(0, 3, 3, 4, texture=20)
    settings = DenseCrfSettings(
        w1=2.0,
        sigma_alpha=3.0,
        sigma_beta=20.0,
        w2=1.5,
        sigma_gamma=2.0,
        iterations=2,
        normalisation=normalisation,
    )
    pixels = [np.array(index) for index in np.ndindex(3, 4)]
    kernels = {
        (i, j): pair(settings, image, a, b)
        for i, a in enumerate(pixels)
        for j, b in enumerate(pixels)
    }
    sums = [
        [sum((kernels[i, j][term] for j in range(12)), 0.0) for i in range(12)] for term in range(2)
    ]
    beliefs = {(i, c): float(maps[(c, *pixels[i])]) for i in range(12) for c in range(3)}
    for _ in range(2):
        following = {}
        for i, pixel in enumerate(pixels):
            powers = []
            for c in range(3):
                energy = math.log(maps[(c, *pixel)])
                for term, weight in enumerate((settings.w1, settings.w2)):
                    for j in range(12):
                        norm = sums[term][i]
                        if normalisation == "symmetric":
                            norm = math.sqrt(sums[term][i] * sums[term][j])
                        energy += weight * kernels[i, j][term] / norm * beliefs[j, c]
                powers.append(math.exp(energy))
            following.update({(i, c): power / sum(powers) for c, power in enumerate(powers)})
        beliefs = following
    result = brute_force(maps, image, settings)
    for i, pixel in enumerate(pixels):
        for c in range(3):
            assert result[(c, *pixel)] == pytest.approx(beliefs[i, c], rel=1e-5)


def test_a_lone_pixel_believes_itself_the_more() -> None:
    maps = np.array([0.6, 0.4], np.float32).reshape(2, 1, 1)
    result = brute_force(maps, np.zeros((1, 1, 3), np.uint8), DenseCrfSettings(iterations=1))
    # Every kernel is 1 there: the message is (w1 + w2) times its own belief.
    powers = [p * math.exp(7 * p) for p in (0.6, 0.4)]
    assert result.ravel() == pytest.approx([power / sum(powers) for power in powers], rel=1e-6)


def test_an_image_too_large_for_all_pairs_is_refused() -> None:
    image, maps = np.zeros((100, 130, 3), np.uint8), np.full((2, 100, 130), 0.5, np.float32)
    with pytest.raises(ValueError, match="13000 pixels"):
        brute_force(maps, image, SETTINGS)


def test_what_is_not_finite_is_named() -> None:
    image, maps = scene(1)
    maps[2, 5, 7] = np.nan
    with pytest.raises(UserError, match="nan for class 2 at row 5, column 7"):
        brute_force(maps, image, SETTINGS)
