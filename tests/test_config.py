import re
from dataclasses import asdict, replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.composition import load_config
from pipeline.config import (
    Config,
    ModelConfig,
    SearchConfig,
    architecture,
    atrous_rates,
    check,
    check_model,
)
from pipeline.config.model import OUTPUT_STRIDES, output_strides
from pipeline.errors import UserError
from pipeline.paths import CONF


def test_v3_rates_follow_the_output_stride() -> None:
    rates = {stride: atrous_rates(ModelConfig(output_stride=stride)) for stride in OUTPUT_STRIDES}
    assert rates == {4: (24, 48, 72), 8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


def test_v2_states_its_rates_at_output_stride_8() -> None:
    assert atrous_rates(ModelConfig(aspp="summed", output_stride=8)) == (6, 12, 18, 24)
    assert atrous_rates(ModelConfig(aspp="summed", output_stride=16)) == (3, 6, 9, 12)


def test_v1_states_its_rate_at_output_stride_8() -> None:
    assert atrous_rates(ModelConfig(aspp="fc6", output_stride=8)) == (12,)
    assert atrous_rates(ModelConfig(aspp="fc6", rates=[4], output_stride=16)) == (2,)


def test_the_papers_names_are_derived_from_the_settings() -> None:
    assert architecture(ModelConfig(aspp="fc6")) == "DeepLabv1"
    assert architecture(ModelConfig(aspp="fc6", rates=[6, 12, 18, 24])) == "DeepLabv2"
    assert architecture(ModelConfig(aspp="summed")) == "DeepLabv2"
    assert architecture(ModelConfig(aspp="none", scales=[0.5, 0.75, 1.0])) == "DeepLabv2"
    assert architecture(ModelConfig(aspp="none")) == "DeepLab"
    assert architecture(ModelConfig(aspp="none", multi_grid=[1, 2, 1])) == "DeepLabv3"
    assert architecture(ModelConfig()) == "DeepLabv3"
    assert architecture(ModelConfig(scales=[0.5, 0.75, 1.0])) == "DeepLabv3"
    assert architecture(ModelConfig(aspp="none", blocks=7)) == "DeepLabv3"
    assert architecture(ModelConfig(decoder=True)) == "DeepLabv3+"
    assert architecture(ModelConfig(network="unet")) == "U-Net"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"network": "u-net"}, "model.network=u-net: did you mean 'unet'"),
        ({"backbone": "resnet51"}, "model.backbone=resnet51: did you mean 'resnet50'"),
        ({"output_stride": 64}, "model.output_stride=64: mobilenet_v2 can be built at"),
        ({"network": "linknet"}, "model.output_stride=16 with model.network=linknet"),
        ({"width": 0.0}, "model.width=0.0: must be above 0"),
        ({"width": 0.5, "backbone": "resnet18"}, "only mobilenet_v2 has a width multiplier"),
        ({"round_channels": False}, "model.round_channels=false with model.width=1.0"),
        ({"stem": "5x5", "backbone": "resnet18"}, "model.stem=5x5"),
        ({"stem": "3x3"}, "model.stem=3x3 with model.backbone=mobilenet_v2: only resnet18"),
        ({"blocks": 5}, "model.blocks=5 with model.backbone=mobilenet_v2: only resnet18"),
        ({"blocks": 8, "backbone": "resnet18"}, "model.blocks=8: the last block is 4, 5, 6 or 7"),
        ({"multi_grid": [1, 2, 4]}, "model.multi_grid=[1, 2, 4] with model.backbone=mobilenet_v2"),
        (
            {"multi_grid": [1, 2, 4], "backbone": "resnet18"},
            "the last block of resnet18 has 2 units",
        ),
        ({"aspp": "v4"}, "model.aspp=v4: did you mean 'v3'"),
        ({"aspp": "none", "rates": [6]}, "there are no atrous branches to take rates"),
        ({"rates": []}, "model.rates=[]: for no atrous branches say model.aspp=no_atrous"),
        ({"rates": [0]}, "model.rates=0: must be at least 1"),
        ({"fc6_kernel": 5}, "model.fc6_kernel=5: 3, 4 or 7"),
        ({"multi_scale_features": True}, "take model.aspp=fc6"),
        ({"head_conv": True, "decoder": True}, "it stands between v3's ASPP and the classes"),
        ({"aspp": "fc6", "decoder": True}, "a decoder needs features; take model.aspp=v3"),
        ({"decoder_kernel": 5}, "model.decoder_kernel=5: 1 or 3"),
        ({"decoder_features": ["conv3"]}, "model.decoder_features=['conv3']: [conv2], or"),
        ({"scales": [0.5]}, "model.scales=[0.5]: a list of scales above 0"),
        ({"scales": [0.5, 1.0], "auxiliary": True}, "each scale has its own loss already"),
        ({"aspp": "fc6", "multi_scale_features": True, "rates": [6, 12]}, "take one rate"),
        ({"dropout": 1.0}, "model.dropout=1.0: must be in 0 <= dropout < 1"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_line(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=re.escape(named)) as error:
        check_model(ModelConfig(**settings))
    assert "\n" not in str(error.value)


def test_a_cascade_reaches_the_output_strides_of_its_blocks() -> None:
    assert output_strides(ModelConfig(backbone="resnet50")) == (4, 8, 16, 32)
    assert output_strides(ModelConfig(backbone="resnet50", blocks=7)) == (
        4,
        8,
        16,
        32,
        64,
        128,
        256,
    )
    check_model(ModelConfig(backbone="resnet50", blocks=7, output_stride=256, aspp="none"))


def test_a_network_is_evaluated_at_strides_that_exist() -> None:
    config = Config()
    config.evaluate.output_stride = 8
    check(config)
    config.evaluate.output_stride = 12
    with pytest.raises(UserError, match=r"evaluate\.output_stride=12: one of 4, 8, 16"):
        check(config)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"images": -1}, "search.images=-1: must be at least 0"),
        ({"rounds": 0}, "search.rounds=0: must be at least 1"),
        ({"w1": []}, "search.w1=[]: the values of the first round, each above the one before"),
        ({"sigma_alpha": [50.0, 40.0]}, "search.sigma_alpha=[50.0, 40.0]: the values of the first"),
        ({"sigma_beta": [3.0, 3.0]}, "search.sigma_beta=[3.0, 3.0]: the values of the first round"),
        ({"sigma_beta": [0.0, 3.0]}, "search.sigma_beta=0.0: must be above 0"),
    ],
)
def test_a_search_that_cannot_run_is_refused_in_one_line(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=re.escape(named)) as error:
        check(Config(search=SearchConfig(**settings)))
    assert "\n" not in str(error.value)


def test_a_crf_preset_wins_over_params_yaml_and_experiments_and_a_value_over_the_preset() -> None:
    ours = load_config([]).crf
    preset = load_config(["crf=v2_vgg16"]).crf
    assert (preset.w1, preset.sigma_alpha, preset.sigma_beta) == (4, 65, 3)
    assert (preset.w2, preset.sigma_gamma, preset.iterations) == (2, 2, 10)
    assert ours.sigma_alpha != preset.sigma_alpha
    assert load_config(["experiment=v1/7x7"]).crf.sigma_alpha == 72
    assert load_config(["experiment=v1/7x7", "crf=v2_vgg16"]).crf == preset
    assert load_config(["crf=v2_vgg16", "crf.w1=7"]).crf == replace(preset, w1=7.0)
    # What a preset does not name stays as it was.
    assert load_config(["crf=v2_vgg16", "crf.backend=fast"]).crf.backend == "fast"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "crf").glob("*.yaml")))
def test_every_crf_preset_composes(name: str) -> None:
    values = yaml.safe_load((CONF / "crf" / f"{name}.yaml").read_text())
    assert set(values) == {"w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma", "iterations"}
    assert values.items() <= asdict(load_config([f"crf={name}"]).crf).items()


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
        assert crop % stride != 1 or crop < 2 * stride + 1
    else:
        assert crop % stride == 1
