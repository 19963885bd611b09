import pytest
import torch
from torch import nn

from pipeline.config import BACKBONES, ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones import Backbone
from pipeline.models.backbones import build_backbone as build


def build_backbone(name: str, output_stride: int) -> Backbone:
    return build(ModelConfig(backbone=name, output_stride=output_stride))


def randomise_batch_norms(network: nn.Module) -> None:
    """Random scales and shifts, and the statistics of random images.

    Statistics drawn at random would not do: MobileNetV2's small depthwise weights would leave
    nothing of the image, only the shifts, and every rate would look right.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0
    network.train()(torch.randn(2, 3, 97, 97))


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_denser_features_subsampled_are_the_coarser_features(name: str) -> None:
    torch.manual_seed(0)
    coarse = build_backbone(name, 32)
    randomise_batch_norms(coarse)
    images = torch.randn(1, 3, 3 * 32 + 1, 2 * 32 + 1)
    wanted = coarse.eval()(images)
    for output_stride in (16, 8):
        denser = build_backbone(name, output_stride)
        denser.load_state_dict(coarse.state_dict())
        features = denser.eval()(images)
        assert features.high.shape[-2:] == (
            3 * 32 // output_stride + 1,
            2 * 32 // output_stride + 1,
        )
        assert relative_error(features.high[..., ::2, ::2], wanted.high) < 1e-4
        assert relative_error(features.low, wanted.low) < 1e-4
        wanted = features


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_have_the_stated_channels_and_strides(name: str, output_stride: int) -> None:
    with torch.device("meta"):  # shapes only
        backbone = build_backbone(name, output_stride)
        features = backbone(torch.empty(2, 3, 96, 65))
    assert backbone.name == name
    assert features.low.shape == (2, backbone.low_channels, 24, 17)
    for level, channels, stride in zip(
        features.levels, backbone.channels, (2, 4, 8, 16, 32), strict=True
    ):
        stride = min(stride, output_stride)
        assert level.shape == (2, channels, 96 // stride, 64 // stride + 1)


def test_unknown_backbone_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match=r"model\.backbone=resnet51: did you mean 'resnet50'"):
        build_backbone("resnet51", 16)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("output_stride", [12, 64])
def test_impossible_output_stride_is_refused(name: str, output_stride: int) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=f"output_stride={output_stride}"):
        build_backbone(name, output_stride)
