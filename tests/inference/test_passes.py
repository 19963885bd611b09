from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import EvaluateConfig
from pipeline.inference.passes import (
    UPRIGHT,
    Geometry,
    Pass,
    fuse,
    interpolate,
    labels_of,
    multi_scale,
    passes_of,
    softmax,
)

SIZE = (23, 31)
EVALUATE = EvaluateConfig(scales=[0.5, 1.0, 1.75], flip=True)


def scores_of(passes: list[Pass]) -> dict[Pass, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {which: 4 * torch.randn(5, *SIZE, generator=generator) for which in passes}


def by_torch(scores: Tensor, geometry: Geometry, size: tuple[int, int], scale: float) -> Tensor:
    """Upsampled to the padded image, cropped, resized, one after the other."""
    padded, scaled = geometry.padded(size, scale), geometry.scaled(size, scale)
    maps = F.interpolate(
        scores[None], padded, mode="bilinear", align_corners=geometry.align_corners
    )[..., : scaled[0], : scaled[1]]
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)[0]


@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.sampled_from([0.5, 1.0, 1.25, 1.75]),
    st.sampled_from([None, 57]),
    st.booleans(),
    st.sampled_from([1, 2, 8]),
)
@settings(max_examples=60, deadline=None)
def test_upsampling_is_torchs_step_by_step(
    size: tuple[int, int], scale: float, pad_to: int | None, align: bool, cell: int
) -> None:
    geometry = Geometry(8, pad_to, align)
    height, width = ((side - 1) // cell + 1 for side in geometry.padded(size, scale))
    scores = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    wanted = by_torch(scores, geometry, size, scale)
    torch.testing.assert_close(geometry.upsample(scores, size, scale), wanted, rtol=1e-4, atol=2e-5)
    as_array = geometry.upsample(scores.numpy(), size, scale)
    assert as_array.dtype == np.float32
    np.testing.assert_allclose(as_array, wanted.numpy(), rtol=1e-4, atol=2e-5)


def test_interpolation_to_the_same_number_changes_nothing() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert interpolate(rows, 3, align_corners=False) is rows
    assert interpolate(rows, 5, align_corners=True)[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_scale_one_is_one_pass_of_both_modes() -> None:
    assert passes_of(EVALUATE)[:3] == [UPRIGHT, Pass(0.5), Pass(0.5, True)]
    assert sorted(passes_of(EVALUATE)) == sorted(multi_scale(EVALUATE))
    assert passes_of(replace(EVALUATE, scales=[0.5], flip=False)) == [UPRIGHT, Pass(0.5)]
    assert passes_of(EVALUATE, ["single"]) == [UPRIGHT]


@pytest.mark.parametrize("fusion", ["average", "maximum"])
@pytest.mark.parametrize("flip", [False, True])
def test_fusion_is_that_of_the_papers_for_tensors_and_arrays(fusion: str, flip: bool) -> None:
    evaluate = replace(EVALUATE, fusion=fusion, flip=flip)
    scores = scores_of(passes_of(evaluate))
    asked: list[Pass] = []

    def of(which: Pass) -> Tensor:
        asked.append(which)
        return scores[which]

    both = fuse(of, evaluate)
    assert sorted(asked) == sorted(scores)  # each once
    upright = torch.stack(
        [scores[p].flip(-1) if p.mirrored else scores[p] for p in multi_scale(evaluate)]
    )
    if fusion == "average":
        wanted = upright.softmax(1).mean(0)
    else:
        wanted = upright.amax(0).softmax(0)
    torch.testing.assert_close(both["ms_flip"], wanted)
    torch.testing.assert_close(both["single"], scores[UPRIGHT].softmax(0))
    arrays = fuse(lambda which: scores[which].numpy(), evaluate)
    for mode, maps in arrays.items():
        np.testing.assert_allclose(maps, both[mode].numpy(), rtol=1e-5, atol=1e-6)
    alone = fuse(of, evaluate, ["ms_flip"])
    assert list(alone) == ["ms_flip"]
    assert torch.equal(alone["ms_flip"], both["ms_flip"])


def test_what_is_one_pass_is_one_map() -> None:
    evaluate = replace(EVALUATE, scales=[1.0], flip=False)
    maps = fuse(lambda which: scores_of([UPRIGHT])[which].numpy(), evaluate)
    assert maps["single"] is maps["ms_flip"]


def test_scores_stay_as_they_are_when_their_softmax_is_taken() -> None:
    scores = np.array([[[1000.0]], [[0.0]]], np.float32)
    assert softmax(scores).ravel().tolist() == [1, 0]
    assert scores.ravel().tolist() == [1000, 0]


def test_no_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="scales"):
        fuse(lambda which: np.zeros((1, 1, 1), np.float32), replace(EVALUATE, scales=[]))


@pytest.mark.parametrize("shape", [(21, 75, 40), (1, 3, 5), (256, 2, 2), (3, 33, 1)])
def test_labels_are_the_first_of_the_largest_for_tensors_and_arrays(
    shape: tuple[int, int, int],
) -> None:
    maps = np.random.default_rng(0).integers(-3, 3, shape).astype(np.float32)  # with many ties
    labels = labels_of(maps)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.argmax(maps, axis=0))
    as_tensor = labels_of(torch.from_numpy(maps))
    assert as_tensor.dtype == torch.uint8
    np.testing.assert_array_equal(as_tensor.numpy(), labels)
