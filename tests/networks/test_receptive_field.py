import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.models.backbones.resnet import BasicBlock
from pipeline.models.backbones.vgg import AtrousAvgPool2d, VGGConv2d
from pipeline.models.layers import AtrousConv2d, conv_bn_relu, resize
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.networks.field_of_view import Field
from pipeline.networks.receptive_field import NotFollowedError, receptive_field, spans

SIDE = 65


class Scaled(nn.Module):
    """v2's scales: the image, and its half, fused by maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = AtrousConv2d(3, 2, 3, stride=2, rate=2)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.conv(x)
        half = F.interpolate(x, size=(33, 33), mode="bilinear", align_corners=True)
        return torch.stack([whole, resize(self.conv(half), whole)]).amax(dim=0)


class Joined(nn.Module):
    """A decoder: coarse features brought to the size of fine ones, joined, refined."""

    def __init__(self, bring: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.fine, self.coarse = conv_bn_relu(3, 2, 3, stride=2), conv_bn_relu(2, 2, 3, stride=4)
        self.refine = conv_bn_relu(4, 2, 3)
        self.bring = bring

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.refine(torch.cat([self.bring(self.coarse(fine), fine), fine], dim=1))


class Transposed(nn.Module):
    """LinkNet's way up: a transposed convolution, cut to size."""

    def __init__(self) -> None:
        super().__init__()
        self.down = AtrousConv2d(3, 2, 3, stride=2)
        self.up = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))[..., : x.shape[-2] - 3, 2:-1]


class Branches(nn.Module):
    """A summed ASPP."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = AtrousConv2d(3, 2, 3, stride=4)
        self.branches = nn.ModuleList(AtrousConv2d(2, 2, 3, rate=rate) for rate in (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(dim=0)


NETWORKS = {
    "resnet": nn.Sequential(
        nn.Conv2d(3, 2, 7, stride=2, padding=3),
        nn.MaxPool2d(3, stride=2, padding=1),
        BasicBlock(2, 2, stride=2, entry_rate=1, rate=1, projected=True),
        BasicBlock(2, 2, stride=1, entry_rate=1, rate=2, projected=False),
    ),
    "vgg": nn.Sequential(
        VGGConv2d(3, 2, 3),
        nn.MaxPool2d(2),
        nn.ConstantPad2d(2, -float("inf")),
        nn.MaxPool2d(3, stride=1, dilation=2),
        AtrousAvgPool2d(2),
        nn.AvgPool2d(3, stride=2, padding=1),
        VGGConv2d(2, 2, 4, rate=3),
    ),
    "branches": Branches(),
    "scales": Scaled(),
    "decoder": Joined(resize),
    "pixel areas": Joined(lambda x, like: resize(x, like, align_corners=False)),
    "nearest": Joined(lambda x, like: F.interpolate(x, size=like.shape[-2:], mode="nearest")),
    "transposed": Transposed(),
}


def every_path_counts(network: nn.Module) -> nn.Module:
    """The network with weights of one size, so that more light anywhere is more everywhere."""
    network = network.double()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1 / max(1, parameter[0].numel()))
    return network


@torch.no_grad()
def by_trial(network: nn.Module, side: int) -> tuple[list[int], list[int]]:
    """The first and the last column of the image whose brightening changes each column's score."""
    images = torch.ones(side + 1, 3, side, side, dtype=torch.float64)
    for column in range(side):
        images[column, :, :, column] = 1e9
    scores = network(images)
    changed = ((scores[:-1] - scores[-1]).abs() > 1e-3).amax(dim=(1, 2)).numpy()
    return (
        [int(np.flatnonzero(by_column)[0]) for by_column in changed.T],
        [int(np.flatnonzero(by_column)[-1]) for by_column in changed.T],
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_each_score_depends_on_exactly_these_columns(name: str) -> None:
    network = NETWORKS[name].eval()
    seen, image = spans(copy.deepcopy(network).to("meta"), SIDE)
    assert not image
    assert (seen.first.tolist(), seen.last.tolist()) == by_trial(every_path_counts(network), SIDE)


def on_meta(config: ModelConfig) -> SegmentationNetwork:
    with torch.device("meta"):
        return build_model(config, 5).eval()


#: VGG-16 at output stride 8 with LargeFOV: (kernel - 1) * rate * stride before it, layer by layer.
LARGE_FOV = (
    1
    + 2 * 2 + 2  # conv1, pool1
    + 2 * (2 * 2 + 2)
    + 4 * (3 * 2 + 2)
    + 8 * (3 * 2 + 2)  # pool4 has lost its stride
    + 8 * (3 * 2 * 2 + 2 * 2 + 2 * 4)  # conv5 and pool5 at rate 2, the average pool at 4
    + 8 * 2 * 12  # fc6
)  # fmt: skip


def test_the_field_of_a_chain_is_the_sum_of_its_taps() -> None:
    config = ModelConfig("deeplab", "vgg16", 8, aspp="fc6")
    assert receptive_field(on_meta(config).scores) == Field(LARGE_FOV, image=False)


def test_the_output_stride_changes_no_receptive_field() -> None:
    configs = [
        ModelConfig("deeplab", "resnet18", output_stride, aspp="no_pooling")
        for output_stride in (8, 16, 32)
    ]
    assert len({receptive_field(on_meta(config).scores) for config in configs}) == 1


def test_image_pooling_is_said_and_leaves_the_pixels() -> None:
    with_it, without = (
        receptive_field(on_meta(ModelConfig("deeplab", "resnet18", 16, aspp=aspp)).scores)
        for aspp in ("v3", "no_pooling")
    )
    assert with_it is not None and without is not None
    assert with_it == (without.pixels, True)
    assert not without.image


def test_half_the_image_sees_twice_as_far() -> None:
    single, fused = (
        receptive_field(
            on_meta(ModelConfig("deeplab", "resnet18", 8, aspp="summed", scales=scales)).scores
        )
        for scales in ([1.0], [0.5, 1.0])
    )
    assert single is not None and fused is not None
    # Its scores are 2 * 8 pixels apart, and between them two count.
    assert fused.pixels == 2 * (single.pixels - 1) + 1 + 2 * 8


def test_what_cannot_be_followed_has_no_receptive_field() -> None:
    def mirrored(image: Tensor) -> Tensor:
        return F.conv2d(image, image.new_ones(1, 3, 3, 3)).flip(-1)

    assert receptive_field(mirrored) is None
    with pytest.raises(NotFollowedError, match="flip"):
        spans(mirrored, SIDE)


def test_a_field_that_no_image_holds_is_none() -> None:
    # Taps so far apart jump over the borders.
    network = nn.Sequential(*(AtrousConv2d(3, 3, 3, rate=rate) for rate in (4096, 8192, 16384)))
    assert receptive_field(network.to("meta")) is None
