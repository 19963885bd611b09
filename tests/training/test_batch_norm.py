"""Batch norm over several processes is in test_processes.py."""

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from pipeline.training.batch_norm import SyncedBatchNorm2d, freeze, synchronise

CPU = torch.device("cpu")


def layers() -> nn.Sequential:
    """torch's batch norm and timm's, which applies a ReLU."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(BatchNormAct2d(4, momentum=0.3))
    )


def test_synced_batch_norm_keeps_parameters_names_and_activations() -> None:
    plain, synced = layers(), layers()
    parameters = list(synced.parameters())
    synchronise(synced, CPU)
    assert sum(isinstance(module, SyncedBatchNorm2d) for module in synced.modules()) == 2
    assert all(a is b for a, b in zip(parameters, synced.parameters(), strict=True))
    assert list(plain.state_dict()) == list(synced.state_dict())
    images = torch.randn(2, 3, 5, 5)
    for mode in (True, False):
        torch.testing.assert_close(synced.train(mode)(images), plain.train(mode)(images))
    torch.testing.assert_close(synced.state_dict(), plain.state_dict())


def test_what_is_synced_stays_as_it_is() -> None:
    synced = layers()
    synchronise(synced, CPU)
    before = list(synced.modules())
    synchronise(synced, CPU)
    assert all(a is b for a, b in zip(before, synced.modules(), strict=True))


def test_a_gpus_are_torchs_own_with_timms_activations() -> None:
    synced = layers()
    parameters = list(synced.parameters())
    synchronise(synced, torch.device("cuda"))
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synced.modules()) == 2
    assert sum(isinstance(module, nn.ReLU) for module in synced.modules()) == 1
    assert all(a is b for a, b in zip(parameters, synced.parameters(), strict=True))


def test_frozen_statistics_stay_while_scale_and_shift_learn() -> None:
    network = layers().train()
    freeze(network)
    before = [buffer.clone() for buffer in network.buffers()]
    network(torch.randn(2, 3, 5, 5)).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    assert all(parameter.grad is not None for parameter in network.parameters())
