import pytest
import torch
from norms import with_statistics
from torch import nn

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones.xception import SeparableConv, Xception
from pipeline.models.network import build_model
from pipeline.networks.cost import count_parameters, multiply_adds

NAMES = ("xception41", "xception65", "xception71")


def shapes_only(name: str, output_stride: int) -> Xception:
    with torch.device("meta"):
        return Xception(name, output_stride)


def subsampled(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    step = (maps.shape[-1] - 1) // (like.shape[-1] - 1)
    return maps[..., ::step, ::step]


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_level_subsampled_is_that_of_the_coarser_network(name: str) -> None:
    torch.manual_seed(0)
    coarse = Xception(name, 32)
    with_statistics(coarse, torch.randn(2, 3, 65, 65))
    images = torch.randn(1, 3, 65, 33)
    wanted = coarse.eval()(images)
    for output_stride in (16, 8, 4):
        denser = Xception(name, output_stride)
        denser.load_state_dict(coarse.state_dict())
        features = denser.eval()(images)
        assert features.high.shape[-2:] == (64 // output_stride + 1, 32 // output_stride + 1)
        for got, level in zip(features.levels, wanted.levels, strict=True):
            assert subsampled(got, level).shape == level.shape
            error = (subsampled(got, level) - level).abs().max() / level.abs().max()
            assert error < 1e-4
        wanted = features


@pytest.mark.parametrize(
    ("name", "output_stride", "rates"),
    [
        # Entry flow, middle flow, the two units of the exit flow.
        ("xception65", 32, [1, 1, 1] + [1] * 16 + [1, 1]),
        ("xception65", 16, [1, 1, 1] + [1] * 16 + [1, 2]),
        ("xception65", 8, [1, 1, 1] + [2] * 16 + [2, 4]),
        ("xception65", 4, [1, 1, 2] + [4] * 16 + [4, 8]),
        ("xception41", 16, [1, 1, 1] + [1] * 8 + [1, 2]),
        ("xception41", 8, [1, 1, 1] + [2] * 8 + [2, 4]),
        ("xception71", 16, [1, 1, 1, 1, 1] + [1] * 16 + [1, 2]),
        ("xception71", 8, [1, 1, 1, 1, 1] + [2] * 16 + [2, 4]),
        ("xception71", 4, [1, 1, 1, 2, 2] + [4] * 16 + [4, 8]),
    ],
)
def test_rates_of_each_unit_follow_the_output_stride(
    name: str, output_stride: int, rates: list[int]
) -> None:
    for unit, rate in zip(shapes_only(name, output_stride).blocks, rates, strict=True):
        convolutions = [module for module in unit.modules() if isinstance(module, SeparableConv)]
        assert [module.conv_dw.dilation for module in convolutions] == [(rate, rate)] * 3


@pytest.mark.parametrize(
    ("name", "strided"),
    [("xception41", (0, 1, 2, 11)), ("xception65", (0, 1, 2, 19)), ("xception71", (0, 2, 4, 21))],
)
def test_strides_are_on_the_third_convolution_and_on_the_shortcut(
    name: str, strided: tuple[int, ...]
) -> None:
    layers = ("stack.conv3.conv_dw", "shortcut.conv")
    assert {
        key
        for key, module in shapes_only(name, 32).blocks.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    } == {f"{unit}.{layer}" for unit in strided for layer in layers}


@pytest.mark.parametrize(
    ("name", "with_classifier"),
    # timm's numbers; its classifier has 1000 classes.
    [("xception41", 26_969_560), ("xception65", 39_916_312), ("xception71", 42_338_736)],
)
def test_parameters_are_timms_without_the_classifier(name: str, with_classifier: int) -> None:
    assert count_parameters(shapes_only(name, 16)) == with_classifier - (2048 + 1) * 1000


def test_every_batch_norm_has_the_released_epsilon() -> None:
    norms = [m for m in shapes_only("xception65", 16).modules() if isinstance(m, nn.BatchNorm2d)]
    # Two a separable convolution, one a layer of the stem, one a projection.
    assert len(norms) == 2 * 3 * 21 + 2 + 4
    assert {norm.eps for norm in norms} == {1e-3}


def test_last_unit_alone_has_relus_within_its_convolutions() -> None:
    *residual, last = (
        [module.act for module in unit.modules() if isinstance(module, SeparableConv)]
        for unit in shapes_only("xception65", 16).blocks
    )
    assert all(isinstance(act, nn.Identity) for acts in residual for act in acts)
    assert all(isinstance(act, nn.ReLU) for act in last)


@torch.inference_mode()
def test_no_level_is_overwritten_by_what_follows() -> None:
    torch.manual_seed(0)
    network = Xception("xception41", 16).eval()
    images = torch.randn(1, 3, 33, 33)
    features = network(images)
    torch.testing.assert_close(features.levels[0], network.stem(images), rtol=0, atol=0)
    torch.testing.assert_close(features.image, images, rtol=0, atol=0)
    _, x = network.blocks[0](network.stem(images))
    unstrided, _ = network.blocks[1](x)
    torch.testing.assert_close(features.low, unstrided, rtol=0, atol=0)


def test_every_weight_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = Xception("xception41", 16)
    features = network(torch.randn(2, 3, 33, 33))
    torch.stack([level.square().mean() for level in features.levels]).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0
        for parameter in network.parameters()
    )


@pytest.mark.parametrize(("output_stride", "papers"), [(16, 54.17e9), (8, 177.10e9)])
def test_papers_network_costs_what_the_paper_says(output_stride: int, papers: float) -> None:
    """DeepLab v3+, Table 5: with decoder and separable convolutions, at 513 x 513 pixels."""
    config = ModelConfig(
        backbone="xception65", output_stride=output_stride, decoder=True, separable=True
    )
    with torch.device("meta"):
        network = build_model(config, 21)
    assert multiply_adds(network, 513) == pytest.approx(papers, rel=0.01)


@pytest.mark.parametrize("output_stride", [12, 64])
def test_impossible_output_stride_is_refused(output_stride: int) -> None:
    with pytest.raises(UserError, match=f"output_stride={output_stride}"):
        shapes_only("xception65", output_stride)
