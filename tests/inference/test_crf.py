import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.inference.crf import CrfPool, refine

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]


def random_case(
    seed: int, classes: int = 5, height: int = 40, width: int = 60
) -> tuple[Image, Maps]:
    """Blocks of colour, and probabilities that lean to one class a block, with noise."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, classes, (height // 10 + 1, width // 10 + 1))
    labels = blocks.repeat(10, 0).repeat(10, 1)[:height, :width]
    colours = generator.integers(0, 256, (classes, 3), dtype=np.uint8)
    scores = generator.normal(0, 1, (classes, height, width))
    scores += 2.0 * (labels == np.arange(classes)[:, None, None])
    exponents = np.exp(scores)
    return colours[labels], (exponents / exponents.sum(0)).astype(np.float32)


def agreement(first: Image, second: Image) -> float:
    return float((first == second).mean())


def test_noise_on_an_even_region_is_smoothed_and_the_edge_is_kept() -> None:
    generator = np.random.default_rng(0)
    truth = np.zeros((60, 80), np.uint8)
    truth[:, 37:] = 1
    image = np.where(truth[..., None] == 1, (200, 60, 40), (30, 90, 160)).astype(np.uint8)
    seen = np.where(generator.random(truth.shape) < 0.2, 1 - truth, truth)
    foreground = np.where(seen == 1, 0.7, 0.3)
    maps = np.stack([1 - foreground, foreground]).astype(np.float32)
    refined = refine(image, maps, CrfConfig())
    assert agreement(seen, truth) < 0.85
    assert agreement(refined, truth) == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_classes_does_not_matter(
    seed: int, classes: int, random: "np.random.Generator"
) -> None:
    image, maps = random_case(seed, classes, 20, 30)
    order = list(range(classes))
    random.shuffle(order)
    permuted = refine(image, maps[order], CrfConfig())
    assert agreement(np.array(order, np.uint8)[permuted], refine(image, maps, CrfConfig())) > 0.995


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_mirrored_image_gives_mirrored_labels(seed: int) -> None:
    image, maps = random_case(seed)
    mirrored = refine(image[:, ::-1], maps[:, :, ::-1], CrfConfig())
    # The lattice of the fast filter lies anew on the mirrored image, so a few pixels may differ.
    assert agreement(mirrored[:, ::-1], refine(image, maps, CrfConfig())) > 0.97


def test_without_pairwise_weights_it_is_the_plain_argmax() -> None:
    image, maps = random_case(3)
    assert np.array_equal(refine(image, maps, CrfConfig(w1=0, w2=0)), maps.argmax(0))


@pytest.mark.parametrize("normalisation", ["symmetric", "after"])
@pytest.mark.parametrize(("backend", "least"), [("lattice", 0.998), ("fast", 0.97)])
def test_every_backend_gives_nearly_the_references_labels(
    backend: str, least: float, normalisation: str
) -> None:
    image, maps = random_case(5, 5, 120, 160)
    reference = refine(
        image, maps, CrfConfig(backend="pydensecrf", normalisation=normalisation, sigma_beta=20)
    )
    assert agreement(maps.argmax(0), reference) < 0.95  # the CRF has something to do
    ours = refine(
        image, maps, CrfConfig(backend=backend, normalisation=normalisation, sigma_beta=20)
    )
    assert agreement(ours, reference) >= least


def test_the_same_input_gives_the_same_labels() -> None:
    image, maps = random_case(4)
    assert np.array_equal(refine(image, maps, CrfConfig()), refine(image, maps, CrfConfig()))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2)])
@pytest.mark.parametrize("classes", [1, 2, 21])
def test_the_smallest_images_work(size: tuple[int, int], classes: int) -> None:
    image, maps = random_case(5, classes, *size)
    refined = refine(image, maps, CrfConfig())
    assert refined.shape == size
    assert refined.dtype == np.uint8
    assert refined.max() < classes


def test_probabilities_of_exactly_nought_and_one_work() -> None:
    image, maps = random_case(6)
    sure = (maps == maps.max(0)).astype(np.float32)
    assert agreement(refine(image, sure, CrfConfig()), maps.argmax(0)) > 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    image, maps = random_case(7)
    maps[3, 20, 10] = value
    with pytest.raises(UserError, match=f"{value} for class 3 at row 20, column 10"):
        refine(image, maps, CrfConfig())


@pytest.mark.parametrize(
    ("backend", "key"),
    [
        # This project's Gaussian of sigma_gamma is a plain convolution and knows no least width.
        ("lattice", "sigma_alpha"),
        ("lattice", "sigma_beta"),
        ("pydensecrf", "sigma_alpha"),
        ("pydensecrf", "sigma_beta"),
        ("pydensecrf", "sigma_gamma"),
    ],
)
def test_a_sigma_too_narrow_for_the_filter_is_named(backend: str, key: str) -> None:
    image, maps = random_case(8)
    crf = CrfConfig(backend=backend)
    setattr(crf, key, 1e-6)
    with pytest.raises(UserError, match=rf"crf\.{key}=1e-06: too narrow"):
        refine(image, maps, crf)


def test_image_of_another_size_or_kind_is_refused() -> None:
    image, maps = random_case(9)
    with pytest.raises(ValueError, match="image"):
        refine(image[:-1], maps, CrfConfig())
    with pytest.raises(ValueError, match="image"):
        refine(image.astype(np.float32), maps, CrfConfig())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pool_gives_the_same_in_the_same_order(workers: int) -> None:
    # The first job is the longest, so that the order would change if results came as they end.
    cases = [random_case(seed, 5, 160 // (seed + 1), 120) for seed in range(7)]
    with CrfPool(CrfConfig(), workers) as pool:
        jobs = ((number, *case) for number, case in enumerate(cases))
        results = list(pool.refine_all(jobs))
    assert [number for number, _ in results] == list(range(7))
    for (_, labels), case in zip(results, cases, strict=True):
        assert np.array_equal(labels, refine(*case, CrfConfig()))


def test_only_a_few_jobs_are_drawn_ahead_of_the_results() -> None:
    drawn = 0

    def jobs() -> Iterator[tuple[int, Image, Maps]]:
        nonlocal drawn
        for seed in range(12):
            drawn += 1
            yield seed, *random_case(seed)

    ahead = []
    with CrfPool(CrfConfig(), workers=1, in_flight=3) as pool:
        for given_back, _ in enumerate(pool.refine_all(jobs())):
            ahead.append(drawn - given_back)
    assert drawn == 12
    assert max(ahead) == 3


def test_an_error_in_a_process_comes_back_as_the_users() -> None:
    image, maps = random_case(1)
    maps[0, 0, 0] = np.nan
    with pytest.raises(UserError, match="nan for class 0"), CrfPool(CrfConfig(), 1) as pool:
        list(pool.refine_all([("only", image, maps)]))


def test_a_process_that_dies_is_told_in_one_line() -> None:
    image, maps = random_case(1)
    with pytest.raises(UserError, match=r"trainer\.workers=1: a CRF process died"):
        with CrfPool(CrfConfig(), 1) as pool:
            # More jobs than can be under way, so that some are left when the process dies.
            for _ in pool.refine_all((number, image, maps) for number in range(50)):
                assert pool._executor is not None
                for process in list(pool._executor._processes.values()):
                    process.kill()
                    process.join()


def test_the_module_needs_no_torch() -> None:
    code = "import sys, pipeline.inference.crf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
