from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from pipeline.config import ModelConfig
from pipeline.models.layers import AtrousConv2d
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.networks.cost import (
    count_multiply_adds,
    count_parameters,
    milliseconds_per_image,
    multiply_adds,
    peak_memory,
)


def on_meta(config: ModelConfig) -> SegmentationNetwork:
    with torch.device("meta"):  # shapes are all that counting needs
        return build_model(config, 21)


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
    config = ModelConfig(backbone=backbone, aspp=aspp, decoder=decoder)
    assert count_parameters(on_meta(config)) == parameters


def test_multiply_adds_of_a_convolution_are_taps_times_positions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    assert multiply_adds(model, 33) == (3 * 3 * 3) * 8 * 17 * 17
    grouped = nn.Conv2d(3, 6, 5, padding=4, dilation=2, groups=3)
    assert multiply_adds(grouped, 10) == (5 * 5) * 6 * 10 * 10
    # A transposed convolution multiplies at every position of its input.
    assert multiply_adds(nn.ConvTranspose2d(3, 4, 2, stride=2), 9) == (2 * 2 * 3) * 4 * 9 * 9


@pytest.mark.parametrize("rate", [6, 12, 18])
def test_tensorflow_pads_an_atrous_convolution_to_a_multiple_of_its_rate(rate: int) -> None:
    counted = count_multiply_adds(AtrousConv2d(3, 8, 3, rate=rate), 33)
    assert counted.direct == (3 * 3 * 3) * 8 * 33 * 33
    assert counted.in_tensorflow == (3 * 3 * 3) * 8 * 36 * 36
    depthwise = count_multiply_adds(AtrousConv2d(3, 3, 3, rate=rate, groups=3), 33)
    assert depthwise.in_tensorflow == (3 * 3) * 3 * 36 * 36


@pytest.mark.parametrize(
    "convolution",
    [
        AtrousConv2d(3, 8, 3),
        AtrousConv2d(3, 8, 1, rate=6),
        AtrousConv2d(3, 8, 3, stride=2, rate=6),
        nn.ConvTranspose2d(3, 8, 3, dilation=6),
    ],
)
def test_tensorflow_pads_nothing_else(convolution: nn.Module) -> None:
    counted = count_multiply_adds(convolution, 33)
    assert counted.in_tensorflow == counted.direct


def test_the_padding_is_most_of_what_mobilenet_v2s_aspp_costs_more_in_its_paper() -> None:
    counted = count_multiply_adds(on_meta(ModelConfig(backbone="mobilenet_v2")), 513)
    aspp = 3 * (9 * 320 * 256) * (36 * 36 - 33 * 33)
    last_blocks = 9 * (2 * 960 + 960) * (34 * 34 - 33 * 33)  # depthwise, at rate 2
    assert counted.in_tensorflow - counted.direct == aspp + last_blocks
    assert counted.direct / 1e9 == pytest.approx(5.36, abs=0.005)
    assert counted.in_tensorflow / 1e9 == pytest.approx(5.8, rel=0.01)


#: Of one channel of a 33 x 33 map.
MAP = 4 * 33 * 33


def test_peak_memory_is_weights_image_and_the_maps_alive_at_once() -> None:
    weights = 4 * (8 * 3 + 4 * 8 + 2 * 4)
    layers = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False),
                           nn.Conv2d(4, 2, 1, bias=False))  # fmt: skip
    # The middle one is the worst: the third's input and output are 6 maps, 8 have been freed.
    assert peak_memory(layers, 33) == weights + (3 + 8 + 4) * MAP


@pytest.mark.parametrize(("inplace", "maps"), [(True, 3 + 8), (False, 3 + 8 + 8)])
def test_what_is_done_in_place_takes_no_memory(inplace: bool, maps: int) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(inplace=inplace))
    assert peak_memory(layers, 33) == 4 * 8 * 3 + maps * MAP


def test_a_shortcut_keeps_its_map_alive() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1, bias=False) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            first = self.convs[0](x)
            return first + self.convs[1](first).view_as(first)

    assert peak_memory(Residual(), 33) == 4 * 2 * 3 * 3 + (3 + 3 + 3 + 3) * MAP


def test_shared_weights_are_one() -> None:
    conv = nn.Conv2d(3, 3, 1, bias=False)
    assert peak_memory(nn.Sequential(conv, conv), 33) == 4 * 3 * 3 + (3 + 3 + 3) * MAP


@pytest.mark.parametrize(
    "config",  # of 1x1 and depthwise convolutions: others set memory aside
    [
        ModelConfig(backbone="mobilenet_v2", aspp="no_atrous"),
        ModelConfig(backbone="mobilenet_v2", separable=True, decoder=True),
    ],
)
def test_peak_memory_is_what_pytorch_allocates(config: ModelConfig) -> None:
    model = build_model(config, 5).eval()
    image = torch.rand(1, 3, 65, 65)
    with (
        torch.no_grad(),
        torch.backends.mkldnn.flags(enabled=False),  # it would set memory aside
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        model(image)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    allocated = max(accumulate(event.nbytes() for event in events))
    there = [image, *model.parameters(), *model.buffers()]
    assert peak_memory(model, 65) == allocated + sum(tensor.nbytes for tensor in there)


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = build_model(ModelConfig(backbone="resnet18", aspp_channels=8), 3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert milliseconds_per_image(model, 33, "cpu", repeats=2) > 0
    assert multiply_adds(model, 65) > multiply_adds(model, 33) > 0
    assert peak_memory(model, 65) == peak_memory(model, 65) > peak_memory(model, 33) > 0
    assert model.training
    assert all(module.training for module in model.modules())
    for key, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[key])
