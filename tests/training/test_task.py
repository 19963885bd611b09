import pytest
import torch

from pipeline.training.schedule import poly
from pipeline.training.task import cross_entropy


def test_void_pixels_neither_count_nor_weigh() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.randint(3, (2, 4, 5))
    labels[0, 0], labels[1, :, 2] = 255, 255
    loss = cross_entropy(logits, labels)
    valid = labels != 255
    plain = -logits.log_softmax(1).permute(0, 2, 3, 1)[valid][
        torch.arange(int(valid.sum())), labels[valid]
    ]
    assert loss.item() == pytest.approx(plain.mean().item())
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.permute(0, 2, 3, 1)[~valid].any()


def test_a_batch_of_void_alone_costs_nothing() -> None:
    assert cross_entropy(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 255)).item() == 0


def test_poly_starts_at_one_and_ends_at_zero() -> None:
    factor = poly(100, 0.9)
    assert (factor(0), factor(50), factor(100)) == (1.0, pytest.approx(0.5**0.9), 0.0)
    assert factor(101) == 0.0
