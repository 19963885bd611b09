import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from norms import with_statistics

from pipeline.config import ModelConfig
from pipeline.models.backbones.mobilenet_v2 import (
    BOTTLENECKS,
    InvertedResidual,
    MobileNetV2,
    scaled_channels,
)
from pipeline.models.network import build_model
from pipeline.networks.cost import multiply_adds


@pytest.mark.parametrize("width", [1.0, 0.5, 0.35, 1.4])
@torch.inference_mode()
def test_features_equal_torchvisions(width: float) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None, width_mult=width)
    with_statistics(theirs, torch.randn(2, 3, 65, 65))
    ours = MobileNetV2(32, width).eval()
    ours.load_state_dict(
        {
            key: value
            for key, value in theirs.state_dict().items()
            if not key.startswith(("features.18.", "classifier."))
        }
    )
    images = torch.randn(1, 3, 70, 65)
    for level, channels, end in zip(
        ours(images).levels, ours.channels, (2, 4, 7, 14, 18), strict=True
    ):
        wanted = theirs.features[:end](images)
        assert wanted.shape[1] == channels
        torch.testing.assert_close(level, wanted)


@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [
        (32, [1] * 17),
        (16, [1] * 14 + [2] * 3),
        (8, [1] * 7 + [2] * 7 + [4] * 3),
        (4, [1] * 4 + [2] * 3 + [4] * 7 + [8] * 3),
    ],
)
def test_depthwise_rates_follow_the_output_stride(output_stride: int, rates: list[int]) -> None:
    with torch.device("meta"):
        network = MobileNetV2(output_stride)
    assert [
        module.dilation[0]
        for block in network.features
        if isinstance(block, InvertedResidual)
        for module in block.modules()
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3)
    ] == rates


@pytest.mark.parametrize(
    ("width", "channels"),
    [
        (1.0, (16, 24, 32, 96, 320)),
        (0.75, (16, 24, 24, 72, 240)),
        (0.5, (8, 16, 16, 48, 160)),
        (1.4, (24, 32, 48, 136, 448)),
    ],
)
def test_channels_follow_the_width(width: float, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = MobileNetV2(16, width)
        features = network(torch.empty(1, 3, 33, 33))
    assert network.channels == channels
    assert tuple(level.shape[1] for level in features.levels) == channels


@given(
    channels=st.sampled_from([channels for _, channels, *_ in BOTTLENECKS]),
    width=st.floats(0.05, 4.0),
)
def test_scaled_channels_are_near_multiples_of_eight(channels: int, width: float) -> None:
    scaled = scaled_channels(channels, width, 8)
    assert scaled >= 8
    assert scaled % 8 == 0
    assert 0.9 * channels * width <= scaled <= channels * width + 8


@pytest.mark.parametrize("width", [0.1, 0.25, 1.0])
@torch.inference_mode()
def test_denser_features_subsampled_are_the_coarser_features_at_every_width(width: float) -> None:
    """Small widths have strides between equal channels: losing one must not add a shortcut."""
    torch.manual_seed(0)
    coarse = MobileNetV2(32, width)
    with_statistics(coarse, torch.randn(2, 3, 65, 65))
    images = torch.randn(1, 3, 65, 33)
    wanted = coarse(images).high
    for output_stride in (16, 8, 4):
        denser = MobileNetV2(output_stride, width).eval()
        denser.load_state_dict(coarse.state_dict())
        features = denser(images).high
        error = (features[..., ::2, ::2] - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-4
        wanted = features


@pytest.mark.parametrize(("round_channels", "costs"), [(False, 0.868e9), (True, 0.911e9)])
def test_exact_channels_bring_half_the_width_near_the_release(
    round_channels: bool, costs: float
) -> None:
    """The released network of width 0.5, at output stride 16 and 513 x 513 pixels: 0.88 G.

    Its channels are halved exactly, 12 at stride 4; rounded as torchvision's they are 16.
    """
    config = ModelConfig(
        backbone="mobilenet_v2", width=0.5, round_channels=round_channels, aspp="no_atrous"
    )
    with torch.device("meta"):
        network = build_model(config, 21)
    assert network.backbone.channels[1] == (16 if round_channels else 12)
    assert multiply_adds(network, 513) == pytest.approx(costs, rel=1e-3)
