import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.inference.crf import refine, releases_lock
from pipeline.inference.dense_crf import DenseCrfSettings, brute_force, native_available
from pipeline.inference.dense_crf import refine as refine_beliefs
from pipeline.paths import PROJECT

SHARED = PROJECT.parent / "shared" / "data"

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
    pytest.importorskip("pydensecrf")
    image, maps = random_case(5, 5, 120, 160)
    reference = refine(
        image, maps, CrfConfig(backend="pydensecrf", normalisation=normalisation, sigma_beta=20)
    )
    assert agreement(maps.argmax(0), reference) < 0.95  # the CRF has something to do
    ours = refine(
        image, maps, CrfConfig(backend=backend, normalisation=normalisation, sigma_beta=20)
    )
    assert agreement(ours, reference) >= least


def test_the_exact_backend_has_the_brute_forces_labels() -> None:
    image, maps = random_case(2, 5, 30, 40)
    crf = CrfConfig(backend="exact", sigma_beta=20)
    wanted = brute_force(maps, image, DenseCrfSettings(sigma_beta=20))
    assert np.array_equal(refine(image, maps, crf), wanted.argmax(0))


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


def test_maps_that_say_nothing_stay_as_they_are() -> None:
    # As where a whole image is void, and the network was never told what is there.
    image, _ = random_case(6)
    beliefs = refine_beliefs(np.full((5, 40, 60), 0.2, np.float32), image, DenseCrfSettings())
    np.testing.assert_allclose(beliefs, 0.2, atol=1e-4)


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
    if backend == "pydensecrf":
        pytest.importorskip("pydensecrf")
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


def test_pydensecrf_that_is_not_installed_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, maps = random_case(1)
    crf = CrfConfig(backend="pydensecrf")
    with pytest.raises(UserError, match=r"^crf\.backend=pydensecrf: it is not installed; .*$"):
        refine(image, maps, crf)
    assert refine(image, maps, CrfConfig()).shape == image.shape[:2]


def test_only_the_compiled_code_and_torch_let_threads_run_side_by_side() -> None:
    lets = {
        name: releases_lock(CrfConfig(backend=name))
        for name in ("lattice", "fast", "exact", "pydensecrf")
    }
    compiled = native_available()
    assert lets == {"lattice": compiled, "fast": compiled, "exact": True, "pydensecrf": False}


def test_the_module_needs_neither_torch_nor_pydensecrf() -> None:
    code = "import sys, pipeline.inference.crf; print({'torch', 'pydensecrf'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


#: Maps as a network's, 3 classes, on a photograph's noise.
LARGE = """
import sys
from pathlib import Path
import numpy as np
from pipeline.config import CrfConfig
from pipeline.inference.crf import refine

generator = np.random.default_rng(0)
rows, columns = np.mgrid[:3000, :4000].astype(np.float32)
disc = np.hypot(rows - 1500, columns - 2000) < 1000
image = np.where(disc[..., None], np.uint8((200, 60, 40)), np.uint8((30, 90, 160)))
image += generator.integers(0, 7, image.shape, dtype=np.uint8)
maps = np.full((3, 3000, 4000), 0.25, np.float32)
maps[0] += 0.25 * (columns > 2000)
maps[1] += 0.25 * (columns <= 2000)
maps[2, :300] = 0.5
maps /= maps.sum(axis=0)
del rows, columns, disc
def memory(key):  # not getrusage: its peak counts the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

before = memory("VmRSS")
labels = refine(image, maps, CrfConfig(backend=sys.argv[1]))
assert labels.shape == (3000, 4000) and len(np.unique(labels)) > 1
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not native_available(), reason="the native code is not compiled")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
@pytest.mark.parametrize(("backend", "most"), [("lattice", 1.5e9), ("fast", 1.0e9)])
def test_twelve_million_pixels_take_the_memory_that_is_stated(backend: str, most: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, backend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < most


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")
@pytest.mark.parametrize("normalisation", ["symmetric", "after"])
def test_on_photographs_it_is_as_pydensecrf(
    photographs: list[tuple[Image, Maps]], normalisation: str
) -> None:
    pytest.importorskip("pydensecrf")
    changed: dict[str, list[float]] = {"argmax": [], "lattice": [], "fast": []}
    for image, maps in photographs:
        wanted = refine(image, maps, CrfConfig(backend="pydensecrf", normalisation=normalisation))
        changed["argmax"].append(1 - agreement(maps.argmax(0), wanted))
        for backend in ("lattice", "fast"):
            ours = refine(image, maps, CrfConfig(backend=backend, normalisation=normalisation))
            changed[backend].append(1 - agreement(ours, wanted))
    assert np.mean(changed["lattice"]) < 0.001
    assert np.mean(changed["lattice"]) < np.mean(changed["fast"]) < np.mean(changed["argmax"])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Image, Maps]]:
    """Two of VOC's, with the ready-trained network's maps of 21 classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROJECT))
        benchmark = import_module("benchmarks.crf")
        files = benchmark.cached_logits(tmp_path_factory.mktemp("logits"), SHARED, 2)
    cases = [benchmark.read_case(file) for file in files]
    return [(case.image, case.maps) for case in cases]
