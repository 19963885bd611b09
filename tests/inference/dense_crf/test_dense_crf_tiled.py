import dataclasses
import io
import tarfile
from typing import Any

import numpy as np
import pytest
import torch
from crf_scenes import Image, Maps, differing, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from pipeline.errors import UserError
from pipeline.inference.dense_crf import (
    DenseCrf,
    DenseCrfSettings,
    Normalisation,
    brute_force,
    refine,
    refine_labels,
    tiled,
)
from pipeline.inference.dense_crf.tiled import (
    NEGLIGIBLE,
    TILE,
    TiledField,
    features_of,
    gaussian,
    neighbours_of,
    tiles_of,
)
from pipeline.paths import PROJECT

PHOTOGRAPHS = PROJECT.parent / "shared" / "data" / "voc2012-subset.tar"
#: The papers' values, and some for small images.
PAPERS = DenseCrfSettings(mode="exact")
WIDE = DenseCrfSettings(sigma_alpha=20.0, sigma_beta=13.0, sigma_gamma=3.0, mode="exact")
#: What leaving out negligible pairs may do to a belief.
NEAR = 5e-4

each_normalisation = pytest.mark.parametrize("normalisation", ["symmetric", "after"])
DEVICES = [
    pytest.param("cpu", torch.float64, id="cpu"),
    pytest.param("cpu", torch.float32, id="cpu-float32"),
    pytest.param(
        "cuda",
        torch.float32,
        id="gpu",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    ),
]


def exact(
    maps: Maps, image: Image, chosen: DenseCrfSettings, tile: int, device: str, dtype: torch.dtype
) -> Maps:
    return TiledField(image, chosen, torch.device(device), dtype, tile).probabilities(maps, chosen)


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@each_normalisation
@pytest.mark.parametrize(
    ("size", "tile"), [((30, 40), 64), ((27, 33), 100), ((1, 50), 7), ((3, 1), 1), ((1, 1), 512)]
)
def test_it_is_the_brute_force(
    size: tuple[int, int],
    tile: int,
    normalisation: Normalisation,
    device: str,
    dtype: torch.dtype,
) -> None:
    chosen = dataclasses.replace(WIDE, normalisation=normalisation)
    image, maps = scene(sum(size), 5, *size)
    wanted = brute_force(maps, image, chosen)
    ours = exact(maps, image, chosen, tile, device, dtype)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, wanted, atol=NEAR)


@each_normalisation
def test_with_one_tile_nothing_is_left_out(normalisation: Normalisation) -> None:
    chosen = dataclasses.replace(WIDE, normalisation=normalisation)
    image, maps = scene(1, 5, 20, 25)
    ours = exact(maps, image, chosen, 500, "cpu", torch.float64)
    np.testing.assert_allclose(ours, brute_force(maps, image, chosen), atol=1e-6)


@pytest.mark.parametrize("changes", [{"w1": 0.0}, {"w2": 0.0}, {"iterations": 0}])
def test_each_term_alone_is_the_brute_force(changes: dict[str, Any]) -> None:
    chosen = dataclasses.replace(WIDE, **changes)
    image, maps = scene(2, 4, 30, 31)
    np.testing.assert_allclose(
        refine(maps, image, chosen), brute_force(maps, image, chosen), atol=NEAR
    )


def test_an_image_of_one_colour_is_the_brute_force() -> None:
    image, maps = scene(3, 4, 30, 40)
    image[:] = 128
    field = TiledField(image, WIDE, tile=100)
    wanted = brute_force(maps, image, WIDE)
    np.testing.assert_allclose(field.probabilities(maps, WIDE), wanted, atol=NEAR)


def test_maps_that_say_nothing_stay_so_and_one_class_is_certain() -> None:
    image, _ = scene(4, 4, 20, 30)
    even = np.full((4, 20, 30), 0.25, np.float32)
    np.testing.assert_allclose(refine(even, image, WIDE), even, atol=1e-6)
    assert (refine(np.ones((1, 20, 30), np.float32), image, WIDE) == 1).all()


def test_the_order_of_the_classes_and_of_the_columns_does_not_matter() -> None:
    image, maps = scene(5, 5, 37, 41)
    plain = refine(maps, image, WIDE)
    order = [3, 0, 4, 1, 2]
    np.testing.assert_allclose(refine(maps[order], image, WIDE), plain[order], atol=1e-6)
    mirrored = refine(maps[:, :, ::-1], image[:, ::-1], WIDE)
    np.testing.assert_allclose(mirrored[:, :, ::-1], plain, atol=NEAR)


def test_far_tiles_are_left_out_and_no_label_changes() -> None:
    image, maps = scene(6, 5, 50, 60)
    image[:, 30:] = 255 - image[:, 30:]
    field = TiledField(image, PAPERS, tile=32)
    assert field.share < 0.4
    labels = field.labels(maps, PAPERS)
    assert labels.dtype == np.uint8
    assert differing(maps.argmax(0), labels) > 0.02  # the CRF has something to do
    assert differing(labels, brute_force(maps, image, PAPERS).argmax(0)) == 0.0


def test_the_memory_that_it_works_in_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    image, maps = scene(7, 3, 30, 40)
    wanted = exact(maps, image, WIDE, 100, "cpu", torch.float64)
    monkeypatch.setattr(tiled, "AT_ONCE", 100 * 100)
    few = exact(maps, image, WIDE, 100, "cpu", torch.float64)
    np.testing.assert_allclose(few, wanted, atol=1e-6)


@given(st.integers(1, 700), st.integers(1, 100), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_pixel_is_in_one_tile_of_at_most_that_size(count: int, most: int, seed: int) -> None:
    features = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    pixels = tiles_of(features, most)
    assert pixels.shape[1] <= most
    assert pixels.flatten().sort().values.tolist() == list(range(pixels.numel()))
    assert count <= pixels.numel() < count + len(pixels)


@given(st.integers(0, 99), st.floats(1, 60))
@settings(max_examples=20, deadline=None)
def test_no_pair_of_tiles_that_matters_is_left_out(seed: int, spread: float) -> None:
    features = spread * torch.rand(320, 5, generator=torch.Generator().manual_seed(seed))
    tiles = features[tiles_of(features, 10)]
    near = neighbours_of(tiles)
    for own, others in zip(tiles, near, strict=True):
        far = torch.ones(len(tiles), dtype=torch.bool)
        far[others] = False
        distances = torch.cdist(own, tiles[far].flatten(0, 1))
        assert (torch.exp(-0.5 * distances**2) <= NEGLIGIBLE).all()


def test_the_kernel_keeps_its_digits_far_from_the_origin() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(40, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    wanted = torch.exp(-0.5 * torch.cdist(first, second) ** 2)
    ours = gaussian((first + 80).float(), (second + 80).float())
    np.testing.assert_allclose(ours, wanted, rtol=1e-4)


def test_weights_and_iterations_can_be_given_anew() -> None:
    image, maps = scene(8, 4, 20, 30)
    crf = DenseCrf(image, WIDE)
    other = dataclasses.replace(WIDE, w1=1.0, iterations=3)
    assert np.array_equal(crf.labels(maps, other), refine_labels(maps, image, other))
    with pytest.raises(ValueError, match="other filters"):
        crf.labels(maps, dataclasses.replace(WIDE, sigma_alpha=9.0))


def test_what_is_not_finite_is_named() -> None:
    image, maps = scene(9)
    maps[3, 20, 10] = np.nan
    with pytest.raises(UserError, match="nan for class 3 at row 20, column 10"):
        refine_labels(maps, image, PAPERS)


@pytest.mark.real_data
@pytest.mark.skipif(not PHOTOGRAPHS.is_file(), reason=f"{PHOTOGRAPHS} is not here")
def test_most_pairs_of_tiles_of_photographs_are_left_out() -> None:
    with tarfile.open(PHOTOGRAPHS) as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")][:100:20]
        shares = []
        for name in names:
            member = archive.extractfile(name)
            assert member is not None
            image = np.array(Pillow.open(io.BytesIO(member.read())).convert("RGB"))
            features = features_of(image, PAPERS)
            pixels = tiles_of(features, TILE).clamp(max=len(features) - 1)
            near = neighbours_of(features[pixels])
            shares.append(sum(map(len, near)) / len(near) ** 2)
    assert len(shares) == 5
    assert np.mean(shares) < 0.25
