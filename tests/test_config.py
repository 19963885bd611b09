from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import (
    Config,
    ModelConfig,
    architecture,
    atrous_rates,
    check,
)
from pipeline.config.model import OUTPUT_STRIDES
from pipeline.errors import UserError


def test_v3_rates_follow_the_output_stride() -> None:
    rates = {stride: atrous_rates(ModelConfig(output_stride=stride)) for stride in OUTPUT_STRIDES}
    assert rates == {16: (6, 12, 18), 8: (12, 24, 36), 32: (3, 6, 9)}


def test_v2_states_its_rates_at_output_stride_8() -> None:
    assert atrous_rates(ModelConfig(aspp="summed", output_stride=8)) == (6, 12, 18, 24)
    assert atrous_rates(ModelConfig(aspp="summed", output_stride=16)) == (3, 6, 9, 12)


def test_the_papers_names_are_derived_from_the_settings() -> None:
    assert architecture(ModelConfig(aspp="summed")) == "DeepLabv2"
    assert architecture(ModelConfig()) == "DeepLabv3"
    assert architecture(ModelConfig(decoder=True)) == "DeepLabv3+"


@given(crop=st.integers(1, 700), stride=st.sampled_from(OUTPUT_STRIDES))
def test_a_crop_is_accepted_exactly_if_the_grids_of_all_strides_align(
    crop: int, stride: int
) -> None:
    config = Config()
    config.train.crop_size, config.model.output_stride = crop, stride
    try:
        check(config)
    except UserError as error:
        assert "train.crop_size" in str(error)
        assert crop % stride != 1 or crop < 4 * stride + 1
    else:
        assert crop % stride == 1
