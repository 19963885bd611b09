import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.backbones.mobilenet_v2 import MobileNetV2
from pipeline.models.backbones.resnet import ResNet
from pipeline.models.backbones.xception import Xception
from pipeline.models.layers import conv_bn_relu
from pipeline.models.remade import WAY, BatchNorm2d, ReLU, ReLU6, added, keep, remade
from pipeline.training.batch_norm import freeze

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: MobileNetV2(16, 0.25),
    "resnet18": lambda: ResNet("resnet18", 16),
    "resnet50": lambda: ResNet("resnet50", 8),
    "xception41": lambda: Xception("xception41", 16),
}


def learnt(network: nn.Module, images: Tensor, inside: Any, precision: torch.dtype) -> list[Tensor]:
    """The gradients and statistics after one backward pass."""
    half = precision is torch.bfloat16
    with inside, torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = network(images).levels[-1].float().square().mean()
    loss.backward()
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    return [*gradients, *network.buffers()]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_to_the_bit(name: str, frozen: bool, precision: torch.dtype) -> None:
    images, results = torch.randn(2, 3, 65, 65), []
    for inside in (nullcontext(), remade()):
        torch.manual_seed(0)
        network = NETWORKS[name]().train()
        if frozen:
            freeze(network)
        results.append(learnt(network, images, inside, precision))
    assert len(results[0]) > 50
    assert all(torch.equal(kept, made) for kept, made in zip(*results, strict=True))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_a_map_is_made_again_to_the_bit(affine: bool, precision: torch.dtype) -> None:
    layer = BatchNorm2d(96, affine=affine, dtype=max(precision, torch.float32, key=width))
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    input = (torch.randn(2, 96, 33, 33) * torch.rand(96, 1, 1) + 3).to(precision)
    input = input.contiguous(memory_format=torch.channels_last).requires_grad_()
    maps = layer(input)
    kept = [buffer.clone() for buffer in layer.buffers()]
    assert torch.equal(getattr(maps, WAY).maps(), maps)
    assert all(map(torch.equal, kept, layer.buffers()))


def width(kind: torch.dtype) -> int:
    """Bytes of a number."""
    return kind.itemsize


@pytest.mark.parametrize("inside", [False, True])
def test_a_map_that_can_be_made_again_is_not_kept(inside: bool) -> None:
    network = nn.Sequential(
        conv_bn_relu(3, 8, 3), conv_bn_relu(8, 8, 3, activation=ReLU6), nn.Conv2d(8, 1, 1)
    )
    seen: list[weakref.ref[Tensor]] = []
    for module in network.modules():
        if isinstance(module, ReLU | ReLU6):
            module.register_forward_hook(lambda *call: seen.append(weakref.ref(call[-1])))
    with remade() if inside else nullcontext():
        scores = network(torch.randn(2, 3, 9, 9))
    assert [map() is None for map in seen] == [inside, inside]
    scores.sum().backward()


def test_a_map_that_was_changed_since_is_kept() -> None:
    norm, relu, conv = BatchNorm2d(2), ReLU(), nn.Conv2d(2, 1, 1)
    images, gradients = torch.randn(2, 2, 3, 3), []
    for inside in (nullcontext(), remade()):
        conv.zero_grad()
        with inside:
            map = relu(norm(images))
            map += 1
            conv(map).sum().backward()
        assert conv.weight.grad is not None
        gradients.append(conv.weight.grad.clone())
    assert torch.equal(*gradients)
    torch.testing.assert_close(gradients[0][0], map.sum((0, 2, 3))[:, None, None])


def test_a_relu_of_maps_that_were_changed_learns_from_what_it_saw() -> None:
    norm, relu, gradients = BatchNorm2d(2), ReLU(), []
    images = torch.randn(2, 2, 3, 3)
    for inside in (nullcontext(), remade()):
        norm.zero_grad()
        with inside:
            map = norm(images)
            map += 1
            relu(map).square().sum().backward()
        assert norm.bias.grad is not None
        gradients.append(norm.bias.grad.clone())
    assert torch.equal(*gradients)
    torch.testing.assert_close(gradients[0], 2 * (norm(images) + 1).clamp(min=0).sum((0, 2, 3)))


class Chain(nn.Module):
    """Three blocks with shortcuts, and a decoder's look at the last one's result."""

    def __init__(self, kept: bool) -> None:
        super().__init__()
        self.first = conv_bn_relu(3, 4, 3)
        self.norms = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), BatchNorm2d(4)) for _ in range(3)
        )
        self.relu, self.last, self.kept = ReLU(), nn.Conv2d(4, 1, 1), kept
        self.sums: list[weakref.ref[Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        for block in self.norms:
            x = self.relu(added(block(x), x))
            self.sums.append(weakref.ref(x))
        x = keep(x) if self.kept else x
        return self.last(x)


@pytest.mark.parametrize("kept", [False, True])
def test_sums_are_made_again_from_the_one_that_is_kept(kept: bool) -> None:
    network, images, gradients = Chain(kept), torch.randn(2, 3, 9, 9), []
    for inside in (False, True):
        network.zero_grad()
        network.sums.clear()
        with remade() if inside else nullcontext():
            scores = network(images)
        assert [sum() is None for sum in network.sums] == [inside] * 3
        scores.square().sum().backward()
        gradients.append([value.grad.clone() for value in network.parameters()])  # type: ignore[union-attr]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_what_is_kept_is_not_made_again() -> None:
    norm, relu, images = BatchNorm2d(2), ReLU(), torch.randn(2, 2, 3, 3)
    assert keep(images) is images
    map, changed = (relu(added(norm(images), images)) for _ in range(2))
    assert keep(map) is map
    assert getattr(map, WAY).maps().data_ptr() == map.data_ptr()
    keep(changed)
    changed += 1
    with pytest.raises(RuntimeError, match="a weight or map was changed"):
        changed.sum().backward()


def test_a_sum_of_other_kinds_of_numbers_is_made_as_it_was() -> None:
    norm, shortcut = BatchNorm2d(2), torch.randn(2, 2, 3, 3)
    images = torch.randn(2, 2, 3, 3, dtype=torch.bfloat16)
    with remade():
        sum = added(norm(images), shortcut)
        loss = sum.square().sum()
        wanted = sum.detach().clone()
    assert loss.grad_fn is not None
    made = loss.grad_fn.next_functions[0][0]._saved_self  # type: ignore[union-attr]
    assert made.dtype is torch.float32 and torch.equal(made, wanted)


def test_a_weight_in_half_precision_is_not_kept() -> None:
    conv = nn.Conv2d(2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        with remade():
            scores = conv(torch.randn(1, 2, 5, 5))
            assert not torch.is_autocast_cache_enabled()
        assert torch.is_autocast_cache_enabled()
    conv.weight.data += 0  # the same, but not known to be
    scores.sum().backward()
    with torch.autocast("cpu", torch.bfloat16), remade():
        scores = conv(torch.randn(1, 2, 5, 5))
    with torch.no_grad():
        conv.weight += 1
    with pytest.raises(RuntimeError, match="a weight or map was changed"):
        scores.sum().backward()


@pytest.mark.parametrize("top", [None, 6.0])
@pytest.mark.parametrize("compiled", [False, True])
def test_it_learns_as_torchs(top: float | None, compiled: bool) -> None:
    values = torch.tensor([-1.0, 0.0, 0.5, 3.0, 6.0, 7.0], requires_grad=True)
    ours: nn.Module = ReLU() if top is None else ReLU6()
    run = torch.compile(ours, backend="eager") if compiled else ours
    found = run(values * 1.0)
    wanted = F.relu(values) if top is None else F.relu6(values)
    assert torch.equal(found, wanted)
    outer = torch.arange(1.0, 7.0)
    gradients = (torch.autograd.grad(one, values, outer)[0] for one in (found, wanted))
    assert torch.equal(*gradients)


def test_a_second_backward_is_refused() -> None:
    with remade():
        loss = conv_bn_relu(3, 4, 1)(torch.randn(2, 3, 5, 5)).square().sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward was called before"):
        loss.backward()
