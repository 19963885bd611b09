from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Pixelwise, Strided, picture
from torch import Tensor

from pipeline.config import EvaluateConfig
from pipeline.errors import UserError
from pipeline.inference.whole_image import probabilities
from pipeline.inference.windows import scores_of_tiles, tile_starts

STRIDE = 8
WHOLE = EvaluateConfig(scales=[0.5, 1.5], flip=True)


@given(st.integers(0, 60), st.integers(2, 20), st.floats(0, 0.99))
def test_tiles_cover_an_axis_on_the_grid_and_overlap_as_asked(
    whole: int, side: int, overlap: float
) -> None:
    whole, side = whole * STRIDE + 1, side * STRIDE + 1
    starts = tile_starts(whole, side, STRIDE, overlap)
    assert starts[0] == 0
    assert all(start % STRIDE == 0 for start in starts)
    assert max(whole, side) == max(starts[-1] + side, whole)
    for one, following in pairwise(starts):
        assert one < following
        common = one + side - following
        # One stride is the least step: with more overlap than that, nothing would move.
        assert common >= min(overlap * side, side - STRIDE) - 1e-6


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([33, 41]),
    st.sampled_from([0.0, 0.33, 0.99]),
    st.sampled_from([1, 4, 8]),
)
@settings(max_examples=25, deadline=None)
def test_where_pixels_stand_alone_tiles_change_nothing(
    height: int, width: int, window: int, overlap: float, every: int
) -> None:
    net, image = Pixelwise(every=every).eval(), picture((height, width))
    tiled = replace(WHOLE, window=window, overlap=overlap)
    torch.testing.assert_close(
        probabilities(net, image, tiled), probabilities(net, image, WHOLE), rtol=1e-4, atol=1e-5
    )


def test_an_image_that_fits_into_a_tile_is_seen_as_a_whole() -> None:
    net, image = Strided().eval(), picture((40, 60))
    for window in (58, 65, 1000):  # 58 is rounded up to 65
        seen = probabilities(net, image, replace(WHOLE, scales=[1.0], window=window))
        assert torch.equal(seen, probabilities(net, image, replace(WHOLE, scales=[1.0])))


class CountsTiles(Strided):
    """Says in its scores which tile it is."""

    def scores(self, images: Tensor) -> Tensor:
        super().scores(images)
        return torch.full((1, 1, 5, 5), float(len(self.sizes)))


def test_scores_are_the_mean_of_the_tiles_that_see_a_position() -> None:
    net = CountsTiles()
    scores = scores_of_tiles(net, torch.zeros(1, 3, 33, 49), 33, 0.5)
    assert net.sizes == [(33, 33), (33, 33)]
    assert scores[0, 0, 0].tolist() == [1, 1, 1.5, 1.5, 1.5, 2, 2]


def test_far_from_the_tiles_borders_a_network_sees_the_same() -> None:
    net, image = Strided().eval(), torch.rand(1, 3, 65, 97)
    with torch.inference_mode():
        whole, tiled = net.scores(image), scores_of_tiles(net, image, 49, 0.5)
    assert tiled.shape == whole.shape
    # A 3 x 3 kernel: only the first row or column of a tile misses what is beyond it.
    differ = (tiled - whole).abs().amax(dim=(0, 1)) > 1e-5
    assert differ.any()
    assert differ.float().mean() < 0.5
    assert not differ[:2, :2].any()


def test_a_grid_that_tiles_do_not_share_is_refused() -> None:
    net = Strided(align_corners=False).eval()
    with pytest.raises(UserError, match=r"evaluate\.window: this network's scores do not lie"):
        scores_of_tiles(net, torch.zeros(1, 3, 65, 65), 33, 0.3)
