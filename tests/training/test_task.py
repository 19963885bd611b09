import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from together import Job, loaders, small_network, trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader

from pipeline.config import ModelConfig, TrainConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.models.network import build_model
from pipeline.training.task import SegmentationTask

Batch = tuple[Tensor, Tensor]


def task(config: TrainConfig, **settings: Any) -> SegmentationTask:
    return SegmentationTask(small_network(3), config, num_classes=3, **settings)


def batches(count: int, images: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        labels = torch.randint(3, (images, 33, 33), generator=generator)
        labels[0, 4:] = 255
        found.append((torch.rand(images, 3, 33, 33, generator=generator), labels))
    return found


def fit(one: SegmentationTask, data: Sequence[Batch], precision: Any = "32-true") -> Trainer:
    found = Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    found.fit(one, DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    return found


def config(**settings: Any) -> TrainConfig:
    known = {"iterations": 3, "batch_size": 4, "learning_rate": 0.1, "weight_decay": 0.01}
    return TrainConfig(**known | settings)


def test_training_is_sgd_on_the_mean_loss_with_the_rate_of_each_iteration() -> None:
    one, data = task(config(power=1.0)), batches(3)
    plain = copy.deepcopy(one.network).train()
    optimizer = SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    losses = []
    for iteration, (images, labels) in enumerate(data):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - iteration / 3)
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(images), labels, ignore_index=255)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert fit(one, data).global_step == 3
    torch.testing.assert_close(one.network.state_dict(), plain.state_dict())
    torch.testing.assert_close(torch.stack(one.losses), torch.stack(losses))
    assert one.mean_loss() == pytest.approx(torch.stack(losses).mean().item())
    assert one.losses == []


def test_a_batch_in_parts_is_the_batch() -> None:
    whole = task(config(freeze_batch_norm=True))
    parts = task(config(freeze_batch_norm=True, accumulate=2))
    assert fit(parts, batches(3)).global_step == 3
    fit(whole, batches(3))
    torch.testing.assert_close(parts.network.state_dict(), whole.network.state_dict())
    torch.testing.assert_close(parts.losses, whole.losses)


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=4: .* 1 process\(es\) times .*accumulate=3"):
        fit(task(config(accumulate=3)), batches(1))


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(width=0.25, aspp="none", scales=[0.5, 1.0]),
        ModelConfig(width=0.25, aspp="none", auxiliary=True),
    ],
)
def test_a_training_step_takes_the_loss_of_all_outputs(model: ModelConfig) -> None:
    torch.manual_seed(0)
    settings = config(freeze_batch_norm=True)  # the same statistics in both passes
    one = SegmentationTask(build_model(model, 3), settings, num_classes=3)
    for module in one.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ((images, labels),) = batches(1)
    outputs = one.network.outputs(images)
    wanted = one.loss(one.network, outputs, labels)
    without = one.loss(one.network, outputs._replace(at_scales=(), auxiliary=None), labels)
    fit(one, [(images, labels)])
    assert one.mean_loss() == pytest.approx(wanted.item())
    assert wanted.item() > without.item()


def test_the_averaged_weights_are_those_that_count() -> None:
    one = task(config(ema_decay=0.9))
    start = copy.deepcopy(one.network.state_dict())
    assert one.evaluated is not one.network
    fit(one, batches(1))
    # After one step the average moves by 1 - (1 + 1) / (10 + 1) of the way.
    for name, average in one.evaluated.state_dict().items():
        if average.is_floating_point():
            wanted = start[name].lerp(one.network.state_dict()[name], 9 / 11)
            torch.testing.assert_close(average, wanted)
    assert not any(module.training for module in one.train().evaluated.modules())
    kept = {name for name in one.state_dict() if name.startswith("average.")}
    assert kept == {f"average.network.{name}" for name in start}


class SaveAfter(Callback):
    """Save a checkpoint after so many steps, on the way."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)


def test_a_training_goes_on_to_the_same_weights_and_the_same_average(
    shapes: Prepared, tmp_path: Path
) -> None:
    settings = {"iterations": 4, "ema_decay": 0.9, "accumulate": 2, "ohem": 0.5}
    config, classes = Job("stopped", settings).config(), len(shapes.classes)
    whole, resumed = (SegmentationTask(small_network(classes), config, classes) for _ in range(2))
    save = SaveAfter(2, tmp_path / "last.ckpt")
    trainer(config, callbacks=[save]).fit(whole, datamodule=loaders(config, shapes))
    trainer(config).fit(
        resumed, datamodule=loaders(config, shapes, start=2), ckpt_path=save.path, weights_only=True
    )
    assert torch.equal(torch.stack(whole.losses[2:]), torch.stack(resumed.losses))
    assert len(resumed.losses) == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_half_precision_trains_almost_the_same() -> None:
    full, half = task(config()), task(config())
    fit(full, batches(3))
    fit(half, batches(3), "bf16-mixed")
    assert all(p.dtype == torch.float32 for p in half.network.parameters())
    losses = [torch.stack(one.losses) for one in (full, half)]
    assert not torch.equal(*losses)
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_trains_the_same() -> None:
    plain, compiled = task(config()), task(config(), compiled=True)
    fit(plain, batches(2))
    fit(compiled, batches(2))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(
        compiled.network.state_dict(), plain.network.state_dict(), rtol=1e-4, atol=1e-5
    )


def test_the_optimiser_follows_the_configured_groups_and_policy() -> None:
    settings = TrainConfig(
        learning_rate=0.5,
        head_multiplier=10,
        momentum=0.8,
        weight_decay=0.1,
        schedule="step",
        step_every=1,
        step_factor=0.1,
    )
    network = build_model(ModelConfig(width=0.25, aspp="none", auxiliary=True), 3)
    one = SegmentationTask(network, settings, num_classes=3)
    configured = one.configure_optimizers()
    optimizer, policy = configured["optimizer"], configured["lr_scheduler"]
    assert isinstance(optimizer, SGD)
    assert isinstance(policy, dict)
    backbone, head = optimizer.param_groups
    assert one.network.auxiliary is not None
    new = [*one.network.head.parameters(), *one.network.auxiliary.parameters()]
    assert {id(p) for p in head["params"]} == {id(p) for p in new}
    assert (backbone["lr"], head["lr"]) == (0.5, 5.0)
    assert {(g["momentum"], g["weight_decay"]) for g in (backbone, head)} == {(0.8, 0.1)}
    optimizer.step()
    policy["scheduler"].step()
    assert (backbone["lr"], head["lr"]) == pytest.approx((0.05, 0.5))


def test_batch_norm_is_frozen_or_has_the_configured_momentum() -> None:
    norms = [
        module
        for settings in (config(freeze_batch_norm=True), config(batch_norm_momentum=3e-4))
        for module in task(settings).train().network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    frozen, moving = norms[: len(norms) // 2], norms[len(norms) // 2 :]
    assert frozen
    assert not any(norm.training for norm in frozen)
    assert all(norm.training and norm.momentum == 3e-4 for norm in moving)
