import pytest
import torch
from torch import nn
from torch.optim import SGD

from pipeline.config import ModelConfig, TrainConfig
from pipeline.models.network import build_model
from pipeline.training.losses import total_loss
from pipeline.training.task import SegmentationTask


def task(model: ModelConfig, config: TrainConfig) -> SegmentationTask:
    torch.manual_seed(0)
    return SegmentationTask(build_model(model, 3), config, num_classes=3)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(width=0.25, aspp="none", scales=[0.5, 1.0]),
        ModelConfig(width=0.25, aspp="none", auxiliary=True),
    ],
)
def test_a_training_step_takes_the_loss_of_all_outputs(model: ModelConfig) -> None:
    config = TrainConfig(freeze_batch_norm=True)  # the same statistics in both passes
    one = task(model, config)
    for module in one.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, labels = torch.rand(2, 3, 33, 33), torch.randint(3, (2, 33, 33))
    loss = one.training_step((images, labels), 0)
    outputs = one.network.outputs(images)
    torch.testing.assert_close(loss, total_loss(one.network, outputs, labels, config))
    without = total_loss(
        one.network, outputs._replace(at_scales=(), auxiliary=None), labels, config
    )
    assert loss.item() > without.item()
    assert one.mean_loss() == pytest.approx(loss.item())


def test_the_optimiser_follows_the_configured_groups_and_policy() -> None:
    config = TrainConfig(
        learning_rate=0.5,
        head_multiplier=10,
        momentum=0.8,
        weight_decay=0.1,
        schedule="step",
        step_every=1,
        step_factor=0.1,
    )
    one = task(ModelConfig(width=0.25, aspp="none", auxiliary=True), config)
    configured = one.configure_optimizers()
    optimizer, policy = configured["optimizer"], configured["lr_scheduler"]
    assert isinstance(optimizer, SGD)
    assert isinstance(policy, dict)
    assert policy["interval"] == "step"
    backbone, head = optimizer.param_groups
    assert one.network.auxiliary is not None
    new = [*one.network.head.parameters(), *one.network.auxiliary.parameters()]
    assert {id(p) for p in head["params"]} == {id(p) for p in new}
    assert (backbone["lr"], head["lr"]) == (0.5, 5.0)
    assert {(g["momentum"], g["weight_decay"]) for g in (backbone, head)} == {(0.8, 0.1)}
    optimizer.step()
    policy["scheduler"].step()
    assert (backbone["lr"], head["lr"]) == pytest.approx((0.05, 0.5))


def test_frozen_batch_norm_stays_frozen_in_training() -> None:
    one = task(ModelConfig(width=0.25), TrainConfig(freeze_batch_norm=True)).train()
    norms = [m for m in one.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert one.network.head.training
