"""Where segmentation_models.pytorch's DeepLabs have our structure, the scores are the same.

Its DeepLabV3 at output stride 16 is ours with multi_grid of ones, rates=[12, 24, 36] and
head_conv=true. What differs otherwise:

- A dilated stage has its rate in every convolution, also in the one that lost its stride: for
  block 4 that is our multi-grid of ones; at output stride 8 also for block 3, which ours has not.
- The ASPP's rates are (12, 24, 36) at every output stride; ours follow it.
- The dropout after the ASPP's projection is 0.5; ours is 0.1, as released.
- A separable convolution has no batch norm and no ReLU between its depthwise and its pointwise
  convolution; ours has both. So its v3+ agrees only with a non-separable ASPP.
- Its v3+ has another separable 3x3, batch norm and ReLU after the ASPP.
- Its v3+ has one 3x3 after joining the low-level map; the paper's best has two.
- Height and width must be multiples of the output stride, maps grow by a fixed factor; ours takes
  any size.
- Images come normalised; our network does it.
"""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from norms import with_statistics
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.models.aspp import ASPP
from pipeline.models.backbones.resnet import ResNet
from pipeline.models.decoder import DecoderStage
from pipeline.models.network import build_model

TOLERANCE = 1e-5
RATES = (12, 24, 36)
ONES = [("resnet18", [1, 1]), ("resnet50", [1, 1, 1])]
V3_NAMES = {
    "encoder.": "backbone.",
    "decoder.aspp.convs.": "head.aspp.branches.",
    "decoder.aspp.project.": "head.aspp.projection.",
    "decoder.conv.": "head.conv.0.",
    "decoder.bn.": "head.conv.1.",
    "segmentation_head.0.": "head.classifier.",
}


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


def v3_plus(encoder: str) -> Any:
    torch.manual_seed(0)
    network = smp.DeepLabV3Plus(
        encoder,
        encoder_weights=None,
        encoder_output_stride=16,
        decoder_atrous_rates=RATES,
        decoder_aspp_separable=False,
        classes=21,
    )
    with_statistics(network, torch.randn(4, 3, 64, 64))
    return network


@pytest.mark.parametrize(("encoder", "ones"), ONES)
@torch.inference_mode()
def test_v3_gives_the_same_scores(encoder: str, ones: list[int]) -> None:
    torch.manual_seed(0)
    theirs = smp.DeepLabV3(
        encoder,
        encoder_weights=None,
        encoder_output_stride=16,
        decoder_atrous_rates=RATES,
        classes=21,
    )
    with_statistics(theirs, torch.randn(4, 3, 64, 64))
    config = ModelConfig(backbone=encoder, multi_grid=ones, rates=list(RATES), head_conv=True)
    ours = build_model(config, 21).eval()
    state: dict[str, Tensor] = {
        "input_mean": torch.zeros(1, 3, 1, 1),
        "input_std": torch.ones(1, 3, 1, 1),
    }
    for key, value in theirs.state_dict().items():
        (prefix,) = (prefix for prefix in V3_NAMES if key.startswith(prefix))
        state[V3_NAMES[prefix] + key.removeprefix(prefix)] = value
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 64, 96)
    assert relative_error(ours(images), theirs(images)) < TOLERANCE


@pytest.mark.parametrize(("encoder", "ones"), ONES)
@torch.inference_mode()
def test_v3_plus_has_the_same_backbone_low_level_reduction_and_aspp(
    encoder: str, ones: list[int]
) -> None:
    theirs = v3_plus(encoder)
    backbone = ResNet(encoder, 16, multi_grid=ones).eval()
    backbone.load_state_dict(theirs.encoder.state_dict())
    images = torch.randn(2, 3, 64, 96)
    wanted, features = theirs.encoder(images), backbone(images)
    for level, their_level in zip(features.levels, wanted[1:], strict=True):
        assert relative_error(level, their_level) < TOLERANCE

    stage = DecoderStage(
        256,
        backbone.low_channels,
        low_level_channels=48,
        layers=2,
        kernel=3,
        channels=256,
        separable=False,
        align_corners=True,
    ).eval()
    stage.reduction.load_state_dict(theirs.decoder.block1.state_dict())
    their_low = theirs.decoder.block1(wanted[2])
    assert relative_error(stage.reduction(features.low), their_low) < TOLERANCE

    aspp = ASPP(backbone.high_channels, RATES).eval()
    names = (("convs.", "branches."), ("project.", "projection."))
    state = theirs.decoder.aspp[0].state_dict()
    for their_name, our_name in names:
        state = {key.replace(their_name, our_name): value for key, value in state.items()}
    aspp.load_state_dict(state)
    assert relative_error(aspp(features.high), theirs.decoder.aspp[0](wanted[-1])) < TOLERANCE


@torch.inference_mode()
def test_its_dilation_of_every_convolution_is_not_torchvisions() -> None:
    # The same weights with torchvision's rates, to show that the agreement above is no accident.
    theirs = v3_plus("resnet18")
    torchvisions = ResNet("resnet18", 16).eval()
    torchvisions.load_state_dict(theirs.encoder.state_dict())
    images = torch.randn(2, 3, 64, 96)
    wanted, got = theirs.encoder(images)[-1], torchvisions(images).high
    assert relative_error(got, wanted) > 0.1
