import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.depthwise import (
    depthwise,
    learns_in_half_precision,
    learns_in_its_own_way,
    learns_wrong_on_a_processor,
)
from pipeline.models.layers import AtrousConv2d

Grads = tuple[Tensor, ...]


@pytest.mark.parametrize("size", [(33, 33), (17, 24), (5, 4), (1, 3)])
@pytest.mark.parametrize(
    ("kernel", "rate", "stride"),
    [(3, 2, 1), (3, 4, 1), (3, 12, 1), (5, 3, 1), (3, 1, 2), (3, 2, 2)],
)
def test_it_is_the_convolution_of_that_stride_and_rate(
    size: tuple[int, int], kernel: int, rate: int, stride: int
) -> None:
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    pad = rate * (kernel - 1) // 2
    expected = F.conv2d(x, weight, padding=pad, stride=stride, dilation=rate, groups=6)
    found = depthwise(x, weight, stride, rate)
    torch.testing.assert_close(found, expected)
    outer = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, weight), outer)
    torch.testing.assert_close(torch.autograd.grad(found, (x, weight), outer), wanted)


@pytest.mark.parametrize("rate", [2, 6])
@pytest.mark.parametrize("learns", [(True, True), (False, True), (True, False)])
def test_in_full_precision_atrous_ones_learn_the_same(rate: int, learns: tuple[bool, bool]) -> None:
    x = torch.randn(2, 6, 17, 24).contiguous(memory_format=torch.channels_last)
    given = (x.requires_grad_(learns[0]), torch.randn(6, 1, 3, 3, requires_grad=learns[1]))
    expected = F.conv2d(*given, padding=rate, dilation=rate, groups=6)
    found = depthwise(*given, stride=1, rate=rate)
    torch.testing.assert_close(found, expected)
    asked, outer = [one for one in given if one.requires_grad], torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, asked, outer)
    torch.testing.assert_close(
        torch.autograd.grad(found, asked, outer), wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("stride", "rate", "compiled"),
    [(1, 2, False), (2, 1, False), (1, 1, False), (2, 2, False), (1, 2, True)],
)
def test_a_layer_learns_in_bfloat16_what_it_learns_in_full(
    stride: int, rate: int, compiled: bool
) -> None:
    layer = AtrousConv2d(16, 16, 3, stride=stride, rate=rate, groups=16)
    x = torch.randn(2, 16, 33, 33).contiguous(memory_format=torch.channels_last).requires_grad_()
    full = layer(x)
    outer = torch.randn_like(full)
    wanted = torch.autograd.grad(full, (x, layer.weight), outer)
    run = torch.compile(layer) if compiled else layer
    with torch.autocast("cpu", torch.bfloat16):
        half = run(x)
    assert half.dtype == torch.bfloat16
    assert differ((half.float(),), (full,)) < 0.02
    assert differ(torch.autograd.grad(half, (x, layer.weight), outer.bfloat16()), wanted) < 0.02


def differ(found: Grads, wanted: Grads) -> float:
    """The largest difference as a share of the largest value."""
    return max(
        float((mine - theirs).abs().max() / theirs.abs().max())
        for mine, theirs in zip(found, wanted, strict=True)
    )


def test_torch_s_own_atrous_depthwise_layers_are_known() -> None:
    own = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
    assert learns_wrong_on_a_processor(own)
    assert not learns_wrong_on_a_processor(nn.Conv2d(8, 8, 3, groups=8))
    assert not learns_wrong_on_a_processor(nn.Conv2d(8, 8, 3, padding=2, dilation=2))
    assert not learns_wrong_on_a_processor(AtrousConv2d(8, 8, 3, rate=2, groups=8))
    assert not learns_wrong_on_a_processor(own.requires_grad_(False))


def test_only_learning_in_half_precision_on_a_processor_takes_another_way() -> None:
    x = torch.randn(1, 8, 5, 5)
    assert not learns_in_half_precision(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert learns_in_half_precision(x)
        assert not learns_in_half_precision(x.to("meta"))
        with torch.no_grad():
            assert not learns_in_half_precision(x)


def test_without_avx_512_atrous_ones_learn_in_their_own_way_in_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(1, 8, 33, 33)
    for slow in (False, True):
        monkeypatch.setattr("pipeline.models.processor.WITHOUT_AVX_512", slow)
        assert learns_in_its_own_way(x, 1, 2) == slow
        assert not learns_in_its_own_way(x, 1, 1)
        assert not learns_in_its_own_way(x, 2, 1)
        assert not learns_in_its_own_way(x[..., :5, :5], 1, 2)
        with torch.no_grad():
            assert not learns_in_its_own_way(x, 1, 2)
