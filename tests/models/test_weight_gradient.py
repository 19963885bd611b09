from itertools import product

import pytest
import torch
from torch.nn import functional as F

from pipeline.models import processor, weight_gradient
from pipeline.models.backbones.resnet import ResNet
from pipeline.models.backbones.vgg import VGGConv2d
from pipeline.models.layers import AtrousConv2d
from pipeline.models.remade import remade
from pipeline.models.weight_gradient import convolution, learns_slowly, of_weights


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without AVX-512, with small strips, and small maps taken for large ones."""
    monkeypatch.setattr(processor, "WITHOUT_AVX_512", True)
    monkeypatch.setattr(weight_gradient, "LARGE", 8)
    monkeypatch.setattr(weight_gradient, "STRIP", 1 << 13)


def maps(*shape: int) -> torch.Tensor:
    """Random ones, channels last."""
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "rate"),
    [
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (3, 1, 4, 4),
        (3, 2, 2, 2),
        (7, 2, 3, 1),
        (4, 1, 4, 3),
        (3, 1, 0, 1),
    ],
)
def test_it_is_the_gradient_whatever_the_strips(
    rows: int, kernel: int, stride: int, padding: int, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 5, 19, 14, dtype=torch.float64)
    weight = torch.randn(3, 5, kernel, kernel, dtype=torch.float64, requires_grad=True)
    result = F.conv2d(x, weight, None, stride, padding, rate)
    outer = torch.randn_like(result)
    (wanted,) = torch.autograd.grad(result, weight, outer)
    monkeypatch.setattr(weight_gradient, "STRIP", rows * stride * x[0, :, 0].nbytes)
    torch.testing.assert_close(of_weights(outer, x, weight, stride, padding, rate), wanted)


@pytest.mark.parametrize(("stride", "rate", "bias"), product([1, 2], [1, 3], [False, True]))
def test_a_convolution_learns_the_same(stride: int, rate: int, bias: bool, slow: None) -> None:
    x = maps(2, 16, 33, 29).requires_grad_()
    weight = torch.randn(8, 16, 3, 3, requires_grad=True)
    shift = torch.randn(8, requires_grad=True) if bias else None
    given = [one for one in (x, weight, shift) if one is not None]
    usual = F.conv2d(x, weight, shift, stride, rate, rate)
    found = convolution(x, weight, shift, stride=stride, padding=rate, rate=rate)
    assert "InStrips" in str(found.grad_fn)
    torch.testing.assert_close(found, usual)
    outer = torch.randn_like(usual)
    wanted = torch.autograd.grad(usual, given, outer)
    torch.testing.assert_close(
        torch.autograd.grad(found, given, outer), wanted, rtol=1e-4, atol=1e-3
    )


def test_only_what_is_slow_takes_another_way(slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = maps(1, 16, 9, 9), torch.randn(8, 16, 3, 3, requires_grad=True)
    assert learns_slowly(x, weight, 1)
    assert not learns_slowly(x.contiguous(), weight, 1)
    assert not learns_slowly(x.double(), weight.double(), 1)
    assert not learns_slowly(x, weight[..., :1, :1], 1)
    assert not learns_slowly(x, weight[:, :1], 1), "few channels"
    assert not learns_slowly(x, weight, 2), "small"
    assert not learns_slowly(x, weight.detach(), 1)
    with torch.no_grad():
        assert not learns_slowly(x, weight, 1)
    with torch.device("meta"):
        shapes = maps(1, 16, 9, 9), torch.empty(8, 16, 3, 3, requires_grad=True)
    assert not learns_slowly(*shapes, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not learns_slowly(x, weight, 1)
    monkeypatch.setattr(processor, "WITHOUT_AVX_512", False)
    assert not learns_slowly(x, weight, 1)


def test_the_networks_layers_take_it(slow: None) -> None:
    x = maps(1, 16, 9, 9)
    assert "InStrips" in str(AtrousConv2d(16, 8, 3, rate=2)(x).grad_fn)
    assert "InStrips" in str(VGGConv2d(16, 8, 3)(x).grad_fn)


def test_a_network_learns_the_same(slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = ResNet("resnet18", 16).train().to(memory_format=torch.channels_last)
    images, results = maps(2, 3, 65, 65), []
    for one_way in (True, False):
        monkeypatch.setattr(processor, "WITHOUT_AVX_512", one_way)
        network.zero_grad()
        with remade():
            loss = network(images).levels[-1].square().mean()
        loss.backward()
        results.append([one.grad.clone() for one in network.parameters() if one.grad is not None])
    assert len(results[0]) > 50
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
