import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.config import ModelConfig
from pipeline.models.backbones import Features
from pipeline.models.fc6 import Fc6Branch, MultiScaleFeatures
from pipeline.models.heads import Fc6Head
from pipeline.models.network import SegmentationNetwork, build_model


def config(**changes: object) -> ModelConfig:
    settings: dict[str, object] = {
        "backbone": "vgg16",
        "output_stride": 8,
        "aspp": "fc6",
        "dropout": 0.5,
    }
    return ModelConfig(**settings | changes)  # type: ignore[arg-type]


def build(**changes: object) -> SegmentationNetwork:
    """Shapes only."""
    with torch.device("meta"):
        return build_model(config(**changes), 21)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def head_of(network: SegmentationNetwork) -> Fc6Head:
    assert isinstance(network.head, Fc6Head)
    return network.head


def branches_of(network: SegmentationNetwork) -> list[Fc6Branch]:
    return [branch for branch in head_of(network).branches if isinstance(branch, Fc6Branch)]


@pytest.mark.parametrize(
    ("kernel", "channels", "rates", "millions"),
    [  # v1, Table 2; v2, Table 1; the last two by the same arithmetic
        (7, 4096, [4], 134.3),
        (4, 4096, [4], 65.1),
        (4, 4096, [8], 65.1),
        (3, 1024, [12], 20.5),
        (3, 1024, [2, 4, 8, 12], 37.9),
        (3, 1024, [6, 12, 18, 24], 37.9),
    ],
)
def test_parameters_are_the_papers(
    kernel: int, channels: int, rates: list[int], millions: float
) -> None:
    network = build(fc6_kernel=kernel, fc6_channels=channels, rates=rates)
    assert round(parameters(network) / 1e6, 1) == millions


def test_multi_scale_features_add_640_channels_before_the_classes() -> None:
    with_them, without = build(multi_scale_features=True), build()
    assert branches_of(with_them)[0].fc8.in_channels == 1024 + 640
    assert branches_of(without)[0].fc8.in_channels == 1024
    layers = sum((9 * n + 1) * 128 + (128 + 1) * 128 for n in (3, 64, 128, 256, 512))
    assert parameters(with_them) - parameters(without) == layers + 640 * 21


@pytest.mark.parametrize(
    ("output_stride", "rates", "built"),
    [
        (8, None, [12]),
        (16, None, [6]),
        (32, None, [3]),
        (4, [4], [8]),
        (32, [4], [1]),
        (8, [6, 12, 18, 24], [6, 12, 18, 24]),
        (16, [6, 12, 18, 24], [3, 6, 9, 12]),
        (32, [2, 4, 8, 12], [1, 1, 2, 3]),  # 2 at 8 is 0.5 at 32: never below 1
    ],
)
def test_rates_are_stated_at_output_stride_8(
    output_stride: int, rates: list[int] | None, built: list[int]
) -> None:
    network = build(output_stride=output_stride, rates=rates)
    assert [branch.fc6.dilation[0] for branch in branches_of(network)] == built


def test_a_branch_is_fc6_fc7_fc8() -> None:
    torch.manual_seed(0)
    branch = Fc6Branch(8, 3, kernel=3, rate=2, channels=16, extra_channels=4).eval()
    high, extra = torch.randn(2, 8, 9, 7), torch.randn(2, 4, 9, 7)
    x = F.conv2d(high, branch.fc6.weight, branch.fc6.bias, padding=2, dilation=2).relu()
    x = F.conv2d(x, branch.fc7.weight, branch.fc7.bias).relu()
    wanted = F.conv2d(torch.cat([x, extra], dim=1), branch.fc8.weight, branch.fc8.bias)
    torch.testing.assert_close(branch(high, extra), wanted)


def test_dropout_stands_after_fc6_and_after_fc7_in_training_only() -> None:
    torch.manual_seed(0)
    branch = Fc6Branch(8, 3, channels=16, dropout=0.5)
    seen: dict[str, torch.Tensor] = {}
    branch.fc7.register_forward_pre_hook(lambda _, x: seen.update(fc6=x[0]))
    branch.fc8.register_forward_pre_hook(lambda _, x: seen.update(fc7=x[0]))
    for layer in (branch.fc6, branch.fc7):
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.ones_(layer.bias)
    branch(torch.randn(2, 8, 9, 9))
    for name in ("fc6", "fc7"):
        assert set(seen[name].unique().tolist()) == {0.0, 2.0}  # dropped, or doubled in return
    branch.eval()(torch.randn(2, 8, 9, 9))
    for name in ("fc6", "fc7"):
        assert seen[name].unique().tolist() == [1.0]


def test_branches_are_summed() -> None:
    torch.manual_seed(0)
    branches = [Fc6Branch(8, 3, rate=rate, channels=16) for rate in (1, 2, 4)]
    head = Fc6Head(branches).eval()
    high = torch.randn(2, 8, 9, 9)
    scores = head(Features(torch.empty(2, 3, 72, 72), (high,)))
    torch.testing.assert_close(scores, branches[0](high) + branches[1](high) + branches[2](high))


@pytest.mark.parametrize("multi_scale", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (71, 90)])
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
@pytest.mark.parametrize("kernel", [3, 4, 7])
def test_scores_have_the_last_maps_size(
    kernel: int, output_stride: int, size: tuple[int, int], multi_scale: bool
) -> None:
    network = build(
        fc6_kernel=kernel,
        rates=[4],
        output_stride=output_stride,
        multi_scale_features=multi_scale,
    )
    images = torch.empty(2, 3, *size, device="meta")
    height, width = (-(-side // output_stride) for side in size)
    assert network.scores(images).shape == (2, 21, height, width)
    assert network(images).shape == (2, 21, *size)


@pytest.mark.parametrize(
    ("output_stride", "strides"),
    [
        (8, [8, 4, 2, 1, 1]),  # the authors' release
        (16, [16, 8, 4, 2, 1]),
        (32, [32, 16, 8, 4, 2]),
        (4, [4, 2, 1, 1, 1]),
    ],
)
def test_multi_scale_features_are_strided_to_the_last_map(
    output_stride: int, strides: list[int]
) -> None:
    multi_scale = head_of(build(output_stride=output_stride, multi_scale_features=True)).multi_scale
    assert multi_scale is not None
    built = [m.stride[0] for m in multi_scale.modules() if isinstance(m, nn.Conv2d)]
    assert built[::2] == strides
    assert built[1::2] == [1] * 5


def test_gradients_reach_the_image_and_every_pool_through_the_multi_scale_features() -> None:
    torch.manual_seed(0)
    multi_scale = MultiScaleFeatures((4, 5, 6, 7), 8, channels=8)
    head = Fc6Head(
        [Fc6Branch(9, 3, channels=16, extra_channels=multi_scale.out_channels)], multi_scale
    )
    image = torch.randn(2, 3, 65, 65, requires_grad=True)
    levels = tuple(
        torch.randn(2, channels, size, size, requires_grad=True)
        for channels, size in ((4, 33), (5, 17), (6, 9), (7, 9), (9, 9))
    )
    head(Features(image, levels)).square().sum().backward()
    for tensor in (image, *levels, *head.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_multi_scale_features_of_a_map_of_another_size_are_resized() -> None:
    multi_scale = MultiScaleFeatures((4, 5, 6, 7), 8, channels=8)
    levels = tuple(
        torch.randn(1, channels, size, size)
        for channels, size in ((4, 35), (5, 18), (6, 10), (7, 9), (9, 9))
    )
    features = Features(torch.randn(1, 3, 65, 65), levels)
    assert multi_scale(features).shape == (1, 40, 9, 9)


def test_head_stands_on_another_backbone() -> None:
    network = build(backbone="resnet18", multi_scale_features=True)
    assert network(torch.empty(2, 3, 65, 66, device="meta")).shape == (2, 21, 65, 66)


def test_a_training_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    network = build_model(config(fc6_channels=32, multi_scale_features=True, dropout=0.0), 3)
    images = torch.rand(2, 3, 33, 33)
    labels = (images.mean(dim=1) > 0.5).long()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
