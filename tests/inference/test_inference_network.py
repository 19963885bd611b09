import pytest
import torch
from networks import Strided

from pipeline.errors import UserError
from pipeline.inference.network import find_device, on_device


def test_accelerator_that_is_not_there_is_named() -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "gpu"
    with pytest.raises(UserError, match=f"trainer.accelerator={missing}: not available"):
        find_device(missing)


def test_auto_always_finds_a_device() -> None:
    net, device = on_device(Strided().train(), "auto")
    assert not net.training
    assert next(net.parameters()).device.type == device.type


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_more_gpus_than_there_are_are_refused() -> None:
    count = torch.cuda.device_count()
    assert find_device("gpu", count - 1).index == count - 1
    with pytest.raises(UserError, match=f"trainer.devices={count + 1}: {count} GPUs are here"):
        find_device("gpu", count)
