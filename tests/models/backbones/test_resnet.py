"""Parity with torchvision and timm, and the atrous rate of every 3x3."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from norms import with_statistics
from torch import nn

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones.resnet import ResNet
from pipeline.models.network import build_model

DILATE = {
    8: [False, True, True],
    16: [False, False, True],
    32: [False, False, False],
}


def with_weights_of(theirs: nn.Module, ours: ResNet) -> ResNet:
    state = theirs.state_dict()
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    return ours.eval()


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 32), ("resnet34", 32), ("resnet50", 16), ("resnet50", 8), ("resnet101", 8)],
)
@torch.inference_mode()
def test_features_equal_torchvisions(name: str, output_stride: int) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(
        name, weights=None, replace_stride_with_dilation=DILATE[output_stride]
    )
    with_statistics(theirs, torch.randn(2, 3, 65, 65))
    ours = with_weights_of(theirs, ResNet(name, output_stride))
    images = torch.randn(1, 3, 70, 65)
    levels = ours(images).levels
    x = theirs.relu(theirs.bn1(theirs.conv1(images)))
    torch.testing.assert_close(levels[0], x)
    x = theirs.maxpool(x)
    for level, layer in zip(
        levels[1:], (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True
    ):
        x = layer(x)
        torch.testing.assert_close(level, x)


@torch.inference_mode()
def test_features_equal_those_of_torchvisions_deeplab() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, aux_loss=True
    )
    with_statistics(theirs, torch.randn(2, 3, 65, 65))
    ours = with_weights_of(theirs.backbone, ResNet("resnet50", 8))
    images = torch.randn(1, 3, 70, 65)
    wanted, features = theirs.backbone(images), ours(images)
    torch.testing.assert_close(features.high, wanted["out"])
    torch.testing.assert_close(features.penultimate, wanted["aux"])


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@torch.inference_mode()
def test_features_with_the_3x3_stem_equal_timms(output_stride: int) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model("resnet50s", output_stride=output_stride)
    with_statistics(theirs, torch.randn(2, 3, 65, 65))
    ours = with_weights_of(theirs, ResNet("resnet50", output_stride, stem="3x3"))
    images = torch.randn(1, 3, 70, 65)
    torch.testing.assert_close(ours(images).high, theirs.forward_features(images))


def test_the_3x3_stem_gives_the_papers_parameters() -> None:
    # MobileNetV2, Table 7: DeepLabv3 on ResNet-101 has 58.16M; torchvision's with the 7x7 and a
    # 3x3 before the classes, which the paper has not, 58,630,997.
    with torch.device("meta"):
        network = build_model(ModelConfig(backbone="resnet101", stem="3x3"), 21)
    assert network.backbone.channels == (128, 256, 512, 1024, 2048)
    assert sum(parameter.numel() for parameter in network.parameters()) == 58_164_437


def rates(layer: torch.Tensor | nn.Module) -> list[int]:
    """Of the 3x3s; where one keeps its stride, in pixels before it."""
    assert isinstance(layer, nn.Sequential)
    return [
        module.dilation[0]
        for module in layer.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]


@pytest.mark.parametrize(
    ("output_stride", "block2", "block3", "block4"),
    [
        (32, [1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1]),
        (16, [1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 2, 2]),
        (8, [1, 1, 1, 1], [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        (4, [1, 2, 2, 2], [2, 4, 4, 4, 4, 4], [4, 8, 8]),
    ],
)
def test_rates_without_multi_grid_are_torchvisions(
    output_stride: int, block2: list[int], block3: list[int], block4: list[int]
) -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet50", output_stride)
    assert rates(resnet.layer1) == [1, 1, 1]
    assert rates(resnet.layer2) == block2
    assert rates(resnet.layer3) == block3
    assert rates(resnet.layer4) == block4


@pytest.mark.parametrize(
    ("output_stride", "multi_grid", "block3", "block4"),
    [
        (32, [1, 1, 1], [1, 1, 1, 1, 1, 1], [2, 1, 1]),  # the first one, of stride 2, sees twice
        (32, [1, 2, 4], [1, 1, 1, 1, 1, 1], [2, 2, 4]),  # as many pixels: 1, 2, 4 of its own grid
        (16, [1, 1, 1], [1, 1, 1, 1, 1, 1], [2, 2, 2]),
        (16, [1, 2, 1], [1, 1, 1, 1, 1, 1], [2, 4, 2]),
        (16, [1, 2, 4], [1, 1, 1, 1, 1, 1], [2, 4, 8]),  # the paper's example, section 3.2.1
        (16, [2, 2, 2], [1, 1, 1, 1, 1, 1], [4, 4, 4]),
        (8, [1, 1, 1], [1, 2, 2, 2, 2, 2], [4, 4, 4]),
        (8, [1, 2, 4], [1, 2, 2, 2, 2, 2], [4, 8, 16]),
    ],
)
def test_multi_grid_multiplies_the_rate_of_block_4(
    output_stride: int, multi_grid: list[int], block3: list[int], block4: list[int]
) -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet50", output_stride, multi_grid=multi_grid)
    assert rates(resnet.layer3) == block3
    assert rates(resnet.layer4) == block4


@pytest.mark.parametrize(
    ("output_stride", "multi_grid", "cascade"),
    [
        (256, None, [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        (64, None, [[1, 1, 1], [1, 1, 1], [1, 2, 2], [2, 4, 4]]),
        (32, None, [[1, 1, 1], [1, 2, 2], [2, 4, 4], [4, 8, 8]]),
        (16, None, [[1, 2, 2], [2, 4, 4], [4, 8, 8], [8, 16, 16]]),
        (8, None, [[2, 4, 4], [4, 8, 8], [8, 16, 16], [16, 32, 32]]),
        (256, [1, 2, 1], [[2, 2, 1], [2, 2, 1], [2, 2, 1], [2, 2, 1]]),
        (32, [1, 2, 1], [[2, 2, 1], [2, 4, 2], [4, 8, 4], [8, 16, 8]]),
        (16, [1, 1, 1], [[2, 2, 2], [4, 4, 4], [8, 8, 8], [16, 16, 16]]),  # the paper's Figure 3
        (16, [1, 2, 1], [[2, 4, 2], [4, 8, 4], [8, 16, 8], [16, 32, 16]]),
        (16, [1, 2, 4], [[2, 4, 8], [4, 8, 16], [8, 16, 32], [16, 32, 64]]),
        (8, [1, 2, 1], [[4, 8, 4], [8, 16, 8], [16, 32, 16], [32, 64, 32]]),
    ],
)
def test_rates_double_in_each_block_of_the_cascade(
    output_stride: int, multi_grid: list[int] | None, cascade: list[list[int]]
) -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet50", output_stride, blocks=7, multi_grid=multi_grid)
    assert [
        rates(layer) for layer in (resnet.layer4, resnet.layer5, resnet.layer6, resnet.layer7)
    ] == cascade


@pytest.mark.parametrize(
    ("output_stride", "multi_grid", "block3", "block4"),
    [
        (32, None, [1, 1, 1, 1], [1, 1, 1, 1]),
        (16, None, [1, 1, 1, 1], [1, 2, 2, 2]),
        (8, None, [1, 2, 2, 2], [2, 4, 4, 4]),
        (32, [1, 2], [1, 1, 1, 1], [2, 1, 2, 2]),
        (16, [1, 2], [1, 1, 1, 1], [2, 2, 4, 4]),
        (8, [1, 2], [1, 2, 2, 2], [4, 4, 8, 8]),
    ],
)
def test_both_convolutions_of_a_basic_unit_have_its_rate(
    output_stride: int, multi_grid: list[int] | None, block3: list[int], block4: list[int]
) -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet18", output_stride, multi_grid=multi_grid)
    assert rates(resnet.layer3) == block3
    assert rates(resnet.layer4) == block4


@pytest.mark.parametrize("output_stride", [4, 8, 16, 32, 64, 128, 256])
def test_the_last_level_is_the_end_of_the_cascade(output_stride: int) -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet50", output_stride, blocks=7)
        levels = resnet(torch.empty(1, 3, 513, 257)).levels
    strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 256)]
    assert [tuple(level.shape[1:]) for level in levels] == [
        (channels, 512 // stride + 1, 256 // stride + 1)
        for channels, stride in zip(resnet.channels, strides, strict=True)
    ]


def test_the_copies_have_the_units_of_block_4() -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet50", 16, blocks=6)
    assert not hasattr(resnet, "layer7")
    shapes = [
        {key: tuple(value.shape) for key, value in layer.state_dict().items()}
        for layer in (resnet.layer4, resnet.layer5, resnet.layer6)
        if isinstance(layer, nn.Module)
    ]
    assert shapes[1] == shapes[2]
    # Block 4 is given 1024 channels, the copies are given its 2048.
    differing = {key for key in shapes[0] if shapes[0][key] != shapes[1][key]}
    assert shapes[0].keys() == shapes[1].keys()
    assert differing == {"0.conv1.weight", "0.downsample.0.weight"}


@pytest.mark.parametrize(
    ("name", "multi_grid", "units"),
    [("resnet50", [1, 2], 3), ("resnet18", [1, 2, 4], 2), ("resnet101", [1, 0, 2], 3)],
)
def test_multi_grid_that_is_not_a_rate_a_unit_is_refused(
    name: str, multi_grid: list[int], units: int
) -> None:
    with pytest.raises(UserError) as error:
        ResNet(name, 16, multi_grid=multi_grid)
    assert f"model.multi_grid={multi_grid}: the last block of {name} has {units} units" in str(
        error.value
    )


def test_output_stride_beyond_the_last_block_is_refused() -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"output_stride=128: .* 4 to 64"):
        ResNet("resnet18", 128, blocks=5)
