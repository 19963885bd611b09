import torch

from pipeline.models.backbones import Features
from pipeline.models.decoder import Decoder


def features(low: torch.Tensor) -> Features:
    return Features(low[:, :3], (low, low, low, low, low))


def test_scores_are_at_the_low_level_maps_size() -> None:
    decoder = Decoder(encoder_channels=16, low_channels=24, num_classes=5, low_level_channels=6)
    scores = decoder(torch.randn(2, 16, 5, 4), features(torch.randn(2, 24, 17, 14)))
    assert scores.shape == (2, 5, 17, 14)


def test_both_inputs_reach_the_scores() -> None:
    decoder = Decoder(encoder_channels=16, low_channels=24, num_classes=5)
    encoded = torch.randn(2, 16, 5, 5, requires_grad=True)
    low = torch.randn(2, 24, 17, 17, requires_grad=True)
    decoder(encoded, features(low))[:, 1].square().sum().backward()
    assert encoded.grad is not None
    assert encoded.grad.any()
    assert low.grad is not None
    assert low.grad.any()


def test_structure_is_the_papers_best() -> None:
    # v3+, Table 1 (48 channels) and Table 2 (two 3x3 of 256), batch norm after each.
    decoder = Decoder(encoder_channels=256, low_channels=256, num_classes=21)
    shapes = [tuple(p.shape) for p in decoder.parameters() if p.dim() == 4]
    assert shapes == [(48, 256, 1, 1), (256, 304, 3, 3), (256, 256, 3, 3), (21, 256, 1, 1)]
