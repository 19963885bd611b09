from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.backbones import Features
from pipeline.models.decoder import Decoder, DecoderStage

#: Of ResNet-101.
RESNET_LEVELS = (64, 256, 512, 1024, 2048)
#: Of a made-up backbone.
LEVELS = (2, 3, 4, 5, 6)


def features(*sizes: tuple[int, int]) -> Features:
    """Levels of the sizes given; the last size serves for the rest."""
    sides = (*sizes, *[sizes[-1]] * (5 - len(sizes)))
    maps = (torch.randn(2, n, *size) for n, size in zip(LEVELS, sides, strict=True))
    return Features(torch.empty(2, 3, 1, 1), tuple(maps))


def shapes(decoder: Decoder) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in decoder.parameters() if p.dim() == 4]


@pytest.mark.parametrize("channels", [8, 16, 32, 48, 64])
def test_low_level_channels_are_those_of_table_1(channels: int) -> None:
    decoder = Decoder(256, RESNET_LEVELS, 21, low_level_channels=channels, layers=1)
    assert shapes(decoder) == [
        (channels, 256, 1, 1),
        (256, 256 + channels, 3, 3),
        (21, 256, 1, 1),
    ]


@pytest.mark.parametrize(
    ("names", "layers", "kernel", "channels", "wanted"),
    [
        (["conv2"], 1, 3, 256, [(48, 256, 1, 1), (256, 304, 3, 3)]),
        (["conv2"], 2, 3, 256, [(48, 256, 1, 1), (256, 304, 3, 3), (256, 256, 3, 3)]),
        (["conv2"], 3, 3, 256, [(48, 256, 1, 1), (256, 304, 3, 3), *[(256, 256, 3, 3)] * 2]),
        (["conv2"], 1, 3, 128, [(48, 256, 1, 1), (128, 304, 3, 3)]),
        (["conv2"], 1, 1, 256, [(48, 256, 1, 1), (256, 304, 1, 1)]),
        (
            ["conv3", "conv2"],
            1,
            3,
            256,
            [(48, 512, 1, 1), (256, 304, 3, 3), (48, 256, 1, 1), (256, 304, 3, 3)],
        ),
    ],
)
def test_structures_are_those_of_table_2(
    names: Sequence[str],
    layers: int,
    kernel: int,
    channels: int,
    wanted: list[tuple[int, ...]],
) -> None:
    decoder = Decoder(
        256, RESNET_LEVELS, 21, features=names, layers=layers, kernel=kernel, channels=channels
    )
    assert shapes(decoder) == [*wanted, (21, channels, 1, 1)]
    norms = [m.num_features for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == [shape[0] for shape in wanted]


def test_the_default_is_the_papers_best() -> None:
    # v3+, Table 1 (48 channels) and Table 2 (two 3x3 of 256).
    assert shapes(Decoder(256, RESNET_LEVELS, 21)) == [
        (48, 256, 1, 1),
        (256, 304, 3, 3),
        (256, 256, 3, 3),
        (21, 256, 1, 1),
    ]


def test_separable_refinement_keeps_the_reduction_and_the_classifier_whole() -> None:
    assert shapes(Decoder(256, RESNET_LEVELS, 21, separable=True)) == [
        (48, 256, 1, 1),
        *[(304, 1, 3, 3), (256, 304, 1, 1)],
        *[(256, 1, 3, 3), (256, 256, 1, 1)],
        (21, 256, 1, 1),
    ]


@pytest.mark.parametrize("names", [["conv2"], ["conv3", "conv2"]])
@pytest.mark.parametrize(
    ("conv2", "conv3", "high"),
    [
        ((17, 14), (9, 7), (5, 4)),  # output stride 16
        ((17, 14), (9, 7), (9, 7)),  # 8
        ((17, 14), (17, 14), (17, 14)),  # 4
    ],
)
def test_scores_are_at_conv2s_size(
    names: Sequence[str], conv2: tuple[int, int], conv3: tuple[int, int], high: tuple[int, int]
) -> None:
    decoder = Decoder(6, LEVELS, 5, features=names, low_level_channels=4, channels=8)
    scores = decoder(torch.randn(2, 6, *high), features((33, 27), conv2, conv3, high))
    assert scores.shape == (2, 5, *conv2)


@pytest.mark.parametrize("names", [["conv2"], ["conv3", "conv2"]])
@pytest.mark.parametrize("separable", [False, True])
def test_every_input_and_parameter_matters(names: Sequence[str], separable: bool) -> None:
    torch.manual_seed(0)
    decoder = Decoder(
        6, LEVELS, 3, features=names, low_level_channels=4, channels=8, separable=separable
    )
    maps = features((17, 17), (9, 9), (5, 5), (3, 3))
    encoded = torch.randn(2, 6, 3, 3, requires_grad=True)
    for level in maps.levels:
        level.requires_grad_()
    decoder(encoded, maps).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())
    assert encoded.grad is not None
    assert encoded.grad.any()
    reached = {i for i, level in enumerate(maps.levels) if level.grad is not None}
    assert reached == ({1, 2} if "conv3" in names else {1})


@pytest.mark.parametrize("align_corners", [True, False])
def test_conv3_joins_first_then_conv2_each_at_its_own_size(align_corners: bool) -> None:
    decoder = Decoder(
        6,
        LEVELS,
        3,
        features=["conv3", "conv2"],
        low_level_channels=4,
        channels=8,
        align_corners=align_corners,
    ).eval()
    maps = features((33, 33), (17, 17), (9, 9), (5, 5))
    encoded = torch.randn(2, 6, 5, 5)

    def upsampled(x: Tensor, size: int) -> Tensor:
        return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=align_corners)

    coarse, fine = decoder.stages
    assert isinstance(coarse, DecoderStage)
    assert isinstance(fine, DecoderStage)
    x = torch.cat([upsampled(encoded, 9), coarse.reduction(maps.middle)], dim=1)
    x = torch.cat([upsampled(coarse.refinement(x), 17), fine.reduction(maps.low)], dim=1)
    wanted = decoder.classifier(fine.refinement(x))
    torch.testing.assert_close(decoder(encoded, maps), wanted)
