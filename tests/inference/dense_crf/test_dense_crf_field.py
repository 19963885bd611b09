import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from crf_scenes import Image, Maps, differing, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.inference.dense_crf import (
    Backend,
    DenseCrf,
    DenseCrfSettings,
    Mode,
    Normalisation,
    brute_force,
    native_available,
    refine,
    refine_labels,
)

needs_native = pytest.mark.skipif(not native_available(), reason="the native code is not compiled")
BACKENDS = [pytest.param("native", marks=needs_native), "portable"]
#: The papers' values, and some for small images.
PAPERS = DenseCrfSettings()
WIDE = DenseCrfSettings(sigma_alpha=20.0, sigma_beta=13.0, sigma_gamma=3.0)

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_mode = pytest.mark.parametrize("mode", ["lattice", "fast"])
each_normalisation = pytest.mark.parametrize("normalisation", ["symmetric", "after"])


@each_backend
@each_normalisation
@pytest.mark.parametrize("chosen", [PAPERS, WIDE])
def test_the_lattice_is_near_exact_inference(
    chosen: DenseCrfSettings, normalisation: Normalisation, backend: Backend
) -> None:
    chosen = dataclasses.replace(chosen, normalisation=normalisation)
    for seed in range(4):
        image, maps = scene(seed)
        exact, ours = brute_force(maps, image, chosen), refine(maps, image, chosen, backend)
        # What the permutohedral lattice costs; pydensecrf is as far off.
        assert np.abs(ours - exact).mean() < 0.02
        assert differing(ours.argmax(0), exact.argmax(0)) < 0.02


@each_backend
@each_normalisation
def test_the_smoothness_term_alone_is_exact(normalisation: Normalisation, backend: Backend) -> None:
    for seed, size in enumerate([(30, 41), (1, 50), (37, 1), (16, 16)]):
        image, maps = scene(seed, 5, *size)
        for sigma in (0.6, 1.0, 4.0, 60.0):
            chosen = DenseCrfSettings(
                w1=0.0, sigma_gamma=sigma, normalisation=normalisation, leave_out=0.0
            )
            exact = brute_force(maps, image, chosen)
            np.testing.assert_allclose(
                refine(maps, image, chosen, backend), exact, atol=2e-3, err_msg=f"{size} {sigma}"
            )


@each_backend
def test_one_step_of_the_lattice_is_as_near_as_the_lattice_is(backend: Backend) -> None:
    image, maps = scene(11, 6, 45, 50, texture=6)
    chosen = DenseCrfSettings(
        w1=1.0, sigma_alpha=10.0, sigma_beta=20.0, w2=0.0, iterations=1, leave_out=0.0
    )
    exact = brute_force(maps, image, chosen)
    assert np.abs(refine(maps, image, chosen, backend) - exact).max() < 0.04


@each_backend
@pytest.mark.parametrize(
    ("chosen", "most"),
    [
        # The lattice is the same one; the smoothness term is exact here, and a lattice there.
        (dataclasses.replace(PAPERS, w2=0.0), 0.0),
        (PAPERS, 0.002),
        (WIDE, 0.002),
        (DenseCrfSettings(sigma_alpha=121.0, sigma_beta=5.0, sigma_gamma=3.0), 0.002),
    ],
)
def test_pydensecrf_gives_the_same_labels(
    chosen: DenseCrfSettings, most: float, backend: Backend
) -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    for seed in range(3):
        image, maps = scene(seed, 21, 90, 120)
        field = densecrf.DenseCRF2D(120, 90, 21)
        field.setUnaryEnergy(-np.log(maps.reshape(21, -1).clip(1e-5, 1)))
        if chosen.w2:
            field.addPairwiseGaussian(sxy=chosen.sigma_gamma, compat=chosen.w2)
        field.addPairwiseBilateral(
            sxy=chosen.sigma_alpha, srgb=chosen.sigma_beta, rgbim=image, compat=chosen.w1
        )
        theirs = np.array(field.inference(10)).reshape(21, 90, 120)
        assert differing(maps.argmax(0), theirs.argmax(0)) > 0.05
        ours = refine(maps, image, dataclasses.replace(chosen, leave_out=0.0), backend)
        assert differing(ours.argmax(0), theirs.argmax(0)) <= most
        assert np.abs(ours - theirs).mean() < 2e-4
        labels = refine_labels(maps, image, chosen, backend)
        assert differing(labels, theirs.argmax(0)) <= most + 0.002  # some classes are left out


@needs_native
@each_mode
@each_normalisation
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 23),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 4),
)
@settings(max_examples=15, deadline=None)
def test_the_two_backends_agree(
    normalisation: Normalisation,
    mode: Mode,
    seed: int,
    classes: int,
    height: int,
    width: int,
    iterations: int,
) -> None:
    image, maps = scene(seed, classes, height, width)
    chosen = dataclasses.replace(
        WIDE, mode=mode, normalisation=normalisation, iterations=iterations
    )
    native, portable = (refine(maps, image, chosen, name) for name in ("native", "portable"))
    assert np.abs(native - portable).max() < 2e-3


@each_backend
def test_fast_and_lattice_agree_where_maps_are_smooth(backend: Backend) -> None:
    image, maps = scene(3, 5, 101, 140)
    truth = refine_labels(maps, image, PAPERS, backend)
    fast = refine_labels(maps, image, dataclasses.replace(PAPERS, mode="fast"), backend)
    assert differing(truth, fast) < 0.015 < differing(maps.argmax(0), truth)


@each_backend
@each_mode
@each_normalisation
def test_noise_on_even_regions_is_smoothed_and_the_edge_is_kept(
    normalisation: Normalisation, mode: Mode, backend: Backend
) -> None:
    generator = np.random.default_rng(0)
    truth = np.zeros((60, 81), np.uint8)
    truth[:, 37:] = 1
    image = np.where(truth[..., None] == 1, (200, 60, 40), (30, 90, 160)).astype(np.uint8)
    seen = np.where(generator.random(truth.shape) < 0.2, 1 - truth, truth)
    foreground = np.where(seen == 1, 0.7, 0.3)
    maps = np.stack([1 - foreground, foreground]).astype(np.float32)
    chosen = dataclasses.replace(PAPERS, mode=mode, normalisation=normalisation, iterations=10)
    assert differing(seen, truth) > 0.15
    # On the half grid the column of cells across the edge has a mixed colour.
    most = 0.0 if mode == "lattice" else 0.03
    assert differing(refine_labels(maps, image, chosen, backend), truth) <= most


@each_backend
@each_mode
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_classes_does_not_matter(
    backend: Backend, mode: Mode, seed: int, classes: int, random: "np.random.Generator"
) -> None:
    image, maps = scene(seed, classes, 21, 30)
    order = list(range(classes))
    random.shuffle(order)
    chosen = dataclasses.replace(WIDE, mode=mode)
    permuted = refine(maps[order], image, chosen, backend)
    np.testing.assert_allclose(permuted, refine(maps, image, chosen, backend)[order], atol=1e-2)


@each_backend
@each_mode
@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_gives_mirrored_labels(axis: int, mode: Mode, backend: Backend) -> None:
    chosen = dataclasses.replace(WIDE, mode=mode)
    for seed in range(4):
        image, maps = scene(seed, 4, 50, 64)
        mirrored = refine_labels(np.flip(maps, axis + 1), np.flip(image, axis), chosen, backend)
        # The lattice lies anew on the mirrored image, so a few pixels may differ.
        plain = refine_labels(maps, image, chosen, backend)
        assert differing(np.flip(mirrored, axis), plain) < 0.02


@each_backend
@each_mode
@pytest.mark.parametrize("shift", [2, 7])
def test_what_is_far_away_does_not_matter_much(shift: int, mode: Mode, backend: Backend) -> None:
    # The same picture with a margin that looks like nothing in it: a translation.
    chosen = dataclasses.replace(WIDE, mode=mode)
    image, maps = scene(6, 4, 50, 64)
    moved = np.full((50 + shift, 64 + shift, 3), 255, np.uint8)
    moved[shift:, shift:] = image
    wide = np.zeros((4, 50 + shift, 64 + shift), np.float32)
    wide[0] = 1.0
    wide[:, shift:, shift:] = maps
    labels = refine_labels(wide, moved, chosen, backend)[shift:, shift:]
    assert differing(labels[9:, 9:], refine_labels(maps, image, chosen, backend)[9:, 9:]) < 0.02


@each_backend
@each_mode
@pytest.mark.parametrize("changes", [{"w1": 0.0, "w2": 0.0}, {"iterations": 0}])
def test_without_coupling_the_unary_term_comes_back(
    changes: dict[str, Any], mode: Mode, backend: Backend
) -> None:
    image, maps = scene(4, 6, 33, 47)
    chosen = dataclasses.replace(PAPERS, mode=mode, leave_out=0.0, **changes)
    np.testing.assert_allclose(refine(maps, image, chosen, backend), maps, atol=1e-4)
    assert np.array_equal(refine_labels(maps, image, chosen, backend), maps.argmax(0))


@each_backend
@each_mode
@pytest.mark.parametrize("classes", [1, 2, 3, 21, 60])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2), (17, 33)])
def test_any_size_and_number_of_classes_works(
    size: tuple[int, int], classes: int, mode: Mode, backend: Backend
) -> None:
    image, maps = scene(5, classes, *size)
    chosen = dataclasses.replace(PAPERS, mode=mode, leave_out=0.0)
    beliefs, labels = (
        refine(maps, image, chosen, backend),
        refine_labels(maps, image, chosen, backend),
    )
    assert beliefs.shape == (classes, *size)
    assert beliefs.dtype == np.float32
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(beliefs.sum(axis=0), 1, atol=1e-5)
    # Beliefs may be equal where energies differ in the last digit.
    chosen_beliefs = np.take_along_axis(beliefs, labels[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(chosen_beliefs, beliefs.max(axis=0), atol=1e-6)


@each_backend
@each_mode
def test_certain_maps_stay_as_they_are(mode: Mode, backend: Backend) -> None:
    image, maps = scene(6)
    chosen = dataclasses.replace(PAPERS, mode=mode)
    sure = (maps == maps.max(axis=0)).astype(np.float32)
    assert differing(refine_labels(sure, image, chosen, backend), maps.argmax(0)) < 0.02
    one = np.zeros_like(maps)
    one[2] = 1.0
    beliefs = refine(one, image, chosen, backend)
    np.testing.assert_array_equal(beliefs, one)
    assert (refine_labels(one, image, chosen, backend) == 2).all()


@each_backend
def test_the_least_likely_classes_take_no_part(backend: Backend) -> None:
    image, maps = scene(7, 5)
    maps = np.concatenate(
        [maps * np.float32(0.99), np.full((1, *maps.shape[1:]), 0.01, np.float32)]
    )
    everything = refine(maps, image, dataclasses.replace(PAPERS, leave_out=0.0), backend)
    pruned = refine(maps, image, PAPERS, backend)
    assert (everything[5] > 0).all()
    assert (pruned[5] == 0).all()
    np.testing.assert_allclose(pruned.sum(axis=0), 1, atol=1e-5)
    assert differing(pruned.argmax(0), everything.argmax(0)) < 0.005


@each_backend
def test_a_class_that_wins_anywhere_takes_part_however_improbable(backend: Backend) -> None:
    generator = np.random.default_rng(8)
    maps = generator.uniform(0.99, 1, (40, 30, 37)).astype(np.float32)
    maps[33, 10:20, 10:20] = 1.1
    maps /= maps.sum(axis=0)
    image = np.zeros((30, 37, 3), np.uint8)
    image[10:20, 10:20] = 200
    labels = refine_labels(maps, image, PAPERS, backend)
    assert maps.max() < PAPERS.leave_out / 3
    assert (labels[10:20, 10:20] == 33).all()


@each_backend
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float, backend: Backend) -> None:
    image, maps = scene(9)
    maps[3, 20, 10] = value
    for use in (refine, refine_labels):
        with pytest.raises(UserError, match=f"{value} for class 3 at row 20, column 10"):
            use(maps, image, PAPERS, backend)


@each_backend
@pytest.mark.parametrize("key", ["sigma_alpha", "sigma_beta"])
def test_a_sigma_too_narrow_for_the_lattice_is_named(key: str, backend: Backend) -> None:
    image, maps = scene(10)
    for value in (1e-30, 1e-3):
        narrow: dict[str, Any] = {key: value}
        chosen = dataclasses.replace(PAPERS, **narrow)
        with pytest.raises(UserError, match=rf"crf\.{key}={value}: too narrow"):
            refine(maps, image, chosen, backend)
    both = dataclasses.replace(PAPERS, sigma_alpha=0.0172, sigma_beta=0.073)
    with pytest.raises(UserError, match=r"too narrow for the lattice; take wider ones"):
        refine(maps, image, both, backend)


@each_backend
def test_shapes_and_types_that_do_not_fit_are_refused(backend: Backend) -> None:
    image, maps = scene(12)
    floats: Any = image.astype(np.float32)
    for other in (image[:-1], image[..., :2], floats, image[:0], image[..., 0]):
        with pytest.raises(ValueError, match=r"image|probabilities"):
            refine(maps, other, PAPERS, backend)
    integers: Any = (maps * 255).astype(np.uint8)
    for wrong in (maps[:, 1:], maps[0], maps[:0], integers):
        with pytest.raises(ValueError, match="probabilities"):
            refine(wrong, image, PAPERS, backend)
    with pytest.raises(UserError, match="257 classes"):
        refine(np.ones((257, 40, 60), np.float32), image, PAPERS, backend)


@each_backend
@each_mode
def test_memory_layout_and_precision_of_the_input_do_not_matter(
    mode: Mode, backend: Backend
) -> None:
    image, maps = scene(13)
    chosen = dataclasses.replace(WIDE, mode=mode)
    wanted = refine(maps, image, chosen, backend)
    strided = np.repeat(maps, 2, axis=2)[:, :, ::2]
    turned = np.asfortranarray(image)
    image.setflags(write=False)
    maps.setflags(write=False)
    assert np.array_equal(refine(strided, turned, chosen, backend), wanted)
    assert np.array_equal(refine(maps, image, chosen, backend), wanted)
    assert np.array_equal(refine(maps.astype(np.float64), image, chosen, backend), wanted)
    halves = refine(maps.astype(np.float16), image, chosen, backend)
    assert differing(halves.argmax(0), wanted.argmax(0)) < 0.005


@each_backend
@each_mode
def test_one_field_serves_many_weights(mode: Mode, backend: Backend) -> None:
    image, maps = scene(14)
    base = dataclasses.replace(WIDE, mode=mode)
    crf = DenseCrf(image, base, backend)
    many: list[dict[str, Any]] = [{"w1": 7.0}, {"w2": 0.0}, {"w1": 0.0}, {"iterations": 2}, {}]
    for changes in many:
        chosen = dataclasses.replace(base, **changes)
        assert np.array_equal(crf.probabilities(maps, chosen), refine(maps, image, chosen, backend))
    assert np.array_equal(crf.labels(maps), refine_labels(maps, image, base, backend))
    with pytest.raises(ValueError, match="other filters"):
        crf.labels(maps, dataclasses.replace(base, sigma_beta=99.0))


@each_backend
@each_mode
def test_threads_do_not_disturb_each_other(mode: Mode, backend: Backend) -> None:
    chosen = dataclasses.replace(WIDE, mode=mode)
    scenes = [scene(seed, 3 + seed % 4, 40 + seed, 60 - seed) for seed in range(12)]
    alone = [refine(maps, image, chosen, backend) for image, maps in scenes]

    def job(case: tuple[Image, Maps]) -> Maps:
        return refine(case[1], case[0], chosen, backend)

    with ThreadPoolExecutor(4) as pool:
        for together, wanted in zip(pool.map(job, scenes * 2), alone * 2, strict=True):
            assert np.array_equal(together, wanted)
    image, maps = scenes[0]
    shared = DenseCrf(image, chosen, backend)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: shared.probabilities(maps), range(8)):
            assert np.array_equal(together, alone[0])


def test_without_the_native_code_numpy_takes_over_with_one_line() -> None:
    program = """
import sys
sys.modules["pipeline.inference.dense_crf._native"] = None  # as where it was not compiled
import numpy as np
from pipeline.inference.dense_crf import DenseCrfSettings, native_available, refine
assert not native_available()
image, maps = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
for _ in range(2):
    assert refine(maps, image, DenseCrfSettings()).shape == (2, 4, 5)
try:
    refine(maps, image, DenseCrfSettings(), "native")
except Exception as error:
    print(type(error).__name__, error)
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("\n") == 1
    assert "runs in numpy" in done.stderr
    assert done.stdout.startswith("UserError the dense CRF's native code is not compiled")
