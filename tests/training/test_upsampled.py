from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.training import upsampled
from pipeline.training.upsampled import upsampled_cross_entropy, upsampled_losses

#: Of the scores and of the labels: enlarged, as they are, one score alone, made smaller.
SIZES = [
    ((5, 3), (33, 17)),
    ((3, 4), (20, 19)),
    ((7, 7), (7, 7)),
    ((1, 1), (9, 9)),
    ((9, 5), (4, 3)),
]


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(upsampled.CHUNK, "cpu", 3000)
    yield


def case(
    size: tuple[int, int], to: tuple[int, int], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    scores = torch.randn(2, 4, *size, dtype=dtype, requires_grad=True)
    weights = torch.rand(2, *to, dtype=dtype)
    weights[0, :2] = 0  # void
    return scores, torch.randint(4, (2, *to)), weights


def plain(scores: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    size = labels.shape[-2:]
    large = F.interpolate(scores, size, mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(large, labels, reduction="none")


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "to"), SIZES)
def test_it_is_interpolation_and_cross_entropy(
    size: tuple[int, int], to: tuple[int, int], align_corners: bool
) -> None:
    scores, labels, weights = case(size, to)
    ours = upsampled_cross_entropy(scores, labels, weights, align_corners=align_corners)
    losses = plain(scores, labels, align_corners)
    theirs = (losses * weights).sum()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(one, scores)[0] for one in (ours, theirs)))
    found = upsampled_losses(scores, labels, align_corners=align_corners)
    torch.testing.assert_close(found, losses)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_gradient_is_the_losss_slope(align_corners: bool) -> None:
    scores, labels, weights = case((3, 2), (9, 7))
    assert torch.autograd.gradcheck(
        lambda one: (
            0.3 * upsampled_cross_entropy(one, labels, weights, align_corners=align_corners)
        ),
        scores,
    )


def test_scores_that_lie_apart_in_memory_or_are_huge() -> None:
    scores, labels, weights = case((5, 5), (17, 17), torch.float32)
    plain_loss = upsampled_cross_entropy(scores, labels, weights, align_corners=True)
    apart = scores.detach().to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        upsampled_cross_entropy(apart, labels, weights, align_corners=True), plain_loss
    )
    huge = upsampled_cross_entropy(1e4 * scores, labels, weights, align_corners=True)
    assert torch.isfinite(huge)
    assert torch.isfinite(torch.autograd.grad(huge, scores)[0]).all()


def test_the_scores_are_left_as_they_were_and_unsaved_without_a_gradient() -> None:
    scores, labels, weights = case((3, 3), (3, 3))
    before = scores.detach().clone()
    upsampled_cross_entropy(scores, labels, weights, align_corners=True).backward()
    assert torch.equal(scores, before)
    with torch.no_grad():
        assert not upsampled_cross_entropy(
            scores, labels, weights, align_corners=True
        ).requires_grad


def test_autocast_does_not_round_it() -> None:
    scores, labels, weights = case((5, 5), (17, 17), torch.float32)
    wanted = upsampled_cross_entropy(scores, labels, weights, align_corners=True)
    (slope,) = torch.autograd.grad(wanted, scores)
    with torch.autocast("cpu", torch.bfloat16):
        found = upsampled_cross_entropy(scores, labels, weights, align_corners=True)
    assert torch.equal(found, wanted)
    assert torch.equal(torch.autograd.grad(found, scores)[0], slope)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The elements of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_upsampled_scores_are_never_all_there() -> None:
    scores, labels, weights = case((9, 9), (65, 65), torch.float32)
    with Largest() as seen:
        upsampled_cross_entropy(scores, labels, weights, align_corners=True).backward()
    assert seen.elements <= labels.numel()  # a quarter: there are 4 classes
    with Largest() as seen:
        (plain(scores, labels, True) * weights).sum().backward()
    assert seen.elements == 4 * labels.numel()
