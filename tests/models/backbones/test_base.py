import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.models.backbones.base import Stage, atrous_stages


@pytest.mark.parametrize(
    ("output_stride", "stages"),
    [
        (32, [Stage(1, 1, 1), Stage(2, 1, 1), Stage(2, 1, 1), Stage(2, 1, 1)]),
        (16, [Stage(1, 1, 1), Stage(2, 1, 1), Stage(2, 1, 1), Stage(1, 1, 2)]),
        (8, [Stage(1, 1, 1), Stage(2, 1, 1), Stage(1, 1, 2), Stage(1, 2, 4)]),
    ],
)
def test_resnet_stages_trade_strides_for_rates(output_stride: int, stages: list[Stage]) -> None:
    assert atrous_stages((1, 2, 2, 2), output_stride, stem_stride=4) == stages


@given(strides=st.lists(st.sampled_from([1, 2]), max_size=8), kept=st.integers(0, 8))
def test_stride_times_rate_is_the_classifiers_stride(strides: list[int], kept: int) -> None:
    output_stride = 2 * 2 ** min(kept, strides.count(2))
    stages = atrous_stages(strides, output_stride, stem_stride=2)
    assert 2 * math.prod(stage.stride for stage in stages) == output_stride
    reached, original, rate_before = 2, 2, 1
    for stage, stride in zip(stages, strides, strict=True):
        assert stage.entry_rate == rate_before  # the grid that the strided convolution sees
        assert stage.original_stride == stride
        reached, original, rate_before = reached * stage.stride, original * stride, stage.rate
        assert reached * stage.rate == original


def test_strides_beyond_the_classifiers_32_turn_into_rates_as_well() -> None:
    # v3, section 3.2: the cascade's blocks 4 to 7 have the rates 2, 4, 8 and 16 at 16.
    cascade = (1, 2, 2, 2, 2, 2, 2)
    assert [stage.rate for stage in atrous_stages(cascade, 16, stem_stride=4)[3:]] == [2, 4, 8, 16]
    assert atrous_stages(cascade, 256, stem_stride=4)[1:] == [Stage(2, 1, 1)] * 6
    assert atrous_stages(cascade, 64, stem_stride=4)[5:] == [Stage(1, 1, 2), Stage(1, 2, 4)]


def test_output_stride_beyond_the_strides_is_refused() -> None:
    with pytest.raises(UserError, match="output_stride=64"):
        atrous_stages((1, 2, 2, 2), 64, stem_stride=4)
