import pytest
import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.models.cost import count_parameters, milliseconds_per_image, multiply_adds
from pipeline.models.network import SegmentationNetwork, build_model


def published(backbone: str, aspp: str, decoder: bool = False) -> SegmentationNetwork:
    with torch.device("meta"):  # shapes are all that counting needs
        return build_model(ModelConfig(backbone=backbone, aspp=aspp, decoder=decoder), 21)


#: A 3x3 convolution of 256 channels with batch norm. torchvision's v3 head has one after the ASPP
#: that the paper has not; the v3+ ports counted here have one after the concatenation, we two.
ONE_3X3 = 9 * 256 * 256 + 2 * 256


@pytest.mark.parametrize(
    ("backbone", "aspp", "decoder", "parameters"),
    [
        ("resnet101", "summed", False, 44_048_532),
        ("resnet50", "v3", False, 39_638_869 - ONE_3X3),
        ("resnet101", "v3", False, 58_630_997 - ONE_3X3),
        ("resnet50", "v3", True, 39_761_845 + ONE_3X3),
        ("resnet101", "v3", True, 58_753_973 + ONE_3X3),
        ("mobilenet_v2", "v3", True, 5_225_717 + ONE_3X3),
    ],
)
def test_parameters_are_those_of_public_networks(
    backbone: str, aspp: str, decoder: bool, parameters: int
) -> None:
    assert count_parameters(published(backbone, aspp, decoder)) == parameters


#: TensorFlow pads the 33 x 33 map of an atrous convolution to a multiple of its rate: all three
#: rates then compute 36 x 36 positions, and the paper counts them.
PADDED_BY_TENSORFLOW = 3 * (9 * 320 * 256) * (36 * 36 - 33 * 33)


@pytest.mark.parametrize(
    ("aspp", "parameters_m", "giga_multiply_adds", "padding"),
    [("no_atrous", 2.11, 2.75, 0), ("v3", 4.52, 5.8, PADDED_BY_TENSORFLOW)],
)
def test_mobilenet_v2_costs_what_its_paper_says(
    aspp: str, parameters_m: float, giga_multiply_adds: float, padding: int
) -> None:
    model = published("mobilenet_v2", aspp)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters_m, abs=0.005)
    counted = (multiply_adds(model, 513) + padding) / 1e9
    assert counted == pytest.approx(giga_multiply_adds, rel=0.01)


def test_multiply_adds_of_a_convolution_are_taps_times_positions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    assert multiply_adds(model, 33) == (3 * 3 * 3) * 8 * 17 * 17
    grouped = nn.Conv2d(3, 6, 5, padding=4, dilation=2, groups=3)
    assert multiply_adds(grouped, 10) == (5 * 5) * 6 * 10 * 10


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = build_model(ModelConfig(backbone="resnet18", aspp_channels=8), 3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert milliseconds_per_image(model, 33, "cpu", repeats=2) > 0
    assert multiply_adds(model, 65) > multiply_adds(model, 33) > 0
    assert model.training
    assert all(module.training for module in model.modules())
    for key, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[key])
