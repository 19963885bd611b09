from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.checkpoint import load_network, save_network
from pipeline.models.network import build_model

ABOUT = {"classes": ["background", "thing", "stuff"]}


@torch.inference_mode()
def test_a_network_trained_at_16_is_the_same_weights_at_8(tmp_path: Path) -> None:
    config = ModelConfig(backbone="resnet18", aspp="no_pooling", aspp_channels=8, rates=[1, 2])
    network = build_model(config, 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of a real pass
    network.train()(torch.rand(2, 3, 65, 65))
    save_network(tmp_path / "model.ckpt", network.eval(), config, ABOUT)

    denser = load_network(tmp_path / "model.ckpt", output_stride=8)
    assert denser.output_stride == 8
    images = torch.rand(1, 3, 65, 97)
    coarse, dense = network.scores(images), denser.scores(images)
    assert dense.shape[-2:] == (9, 13)
    # Without image pooling, which sees another grid, the rates make the scores equal where both
    # have one.
    torch.testing.assert_close(dense[..., ::2, ::2], coarse, rtol=1e-4, atol=1e-4)


def test_an_output_stride_that_the_backbone_has_not_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(backbone="resnet18", aspp="none")
    save_network(tmp_path / "model.ckpt", build_model(config, 3), config, ABOUT)
    with pytest.raises(UserError, match="output_stride=64"):
        load_network(tmp_path / "model.ckpt", output_stride=64)
