import pytest
import torch
from torch import nn

from pipeline.config import ASPP_RATES, ModelConfig, atrous_rates
from pipeline.config.model import FEATURE_ASPPS
from pipeline.models.network import SegmentationNetwork, build_model

HEADS = [(aspp, False) for aspp in ASPP_RATES] + [(aspp, True) for aspp in FEATURE_ASPPS]


def small(backbone: str, aspp: str, decoder: bool, **settings: int) -> SegmentationNetwork:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, aspp=aspp, decoder=decoder, aspp_channels=16, dropout=0)
    for key, value in settings.items():
        setattr(config, key, value)
    return build_model(config, num_classes=5)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize(("aspp", "decoder"), HEADS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_every_head_gives_scores_at_its_stride_and_logits_of_the_inputs_size(
    backbone: str, output_stride: int, aspp: str, decoder: bool
) -> None:
    with torch.device("meta"):  # shapes only, nothing is computed
        model = small(backbone, aspp, decoder, output_stride=output_stride)
        images = torch.empty(2, 3, 129, 66)  # an odd and an even side
        assert model(images).shape == (2, 5, 129, 66)
        stride = 4 if decoder else output_stride
        assert model.scores(images).shape == (2, 5, 128 // stride + 1, -(-66 // stride))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("aspp", ["summed", "v3"])
def test_head_has_the_rates_of_its_output_stride(aspp: str, output_stride: int) -> None:
    config = ModelConfig(aspp=aspp, output_stride=output_stride)
    with torch.device("meta"):
        head = build_model(config, 21).head
    built = [
        m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1
    ]
    assert tuple(built) == atrous_rates(config)


@pytest.mark.parametrize(("aspp", "decoder"), HEADS)
@torch.inference_mode()
def test_upsampling_keeps_the_scores_on_aligned_grids(aspp: str, decoder: bool) -> None:
    model = small("mobilenet_v2", aspp, decoder).eval()
    images = torch.rand(1, 3, 4 * 16 + 1, 5 * 16 + 1)
    stride = 4 if decoder else 16
    torch.testing.assert_close(model(images)[..., ::stride, ::stride], model.scores(images))


@torch.inference_mode()
def test_normalisation_is_part_of_the_network() -> None:
    model = small("mobilenet_v2", "v3", False).eval()
    images = torch.rand(1, 3, 65, 65)
    wanted = model(images)
    normalised = (images - model.input_mean) / model.input_std
    model.input_mean.zero_()
    model.input_std.fill_(1)
    torch.testing.assert_close(model(normalised), wanted)
    assert {"input_mean", "input_std"} <= set(model.state_dict())
