"""A small training, or a validation alone, as one of several real processes would run it."""

import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from pipeline.config import ModelConfig, TrainConfig
from pipeline.datasets.datamodule import SegmentationData
from pipeline.datasets.prepared import Prepared
from pipeline.models.backbones.base import Backbone, Features
from pipeline.models.heads import build_head
from pipeline.models.layers import conv_bn_relu
from pipeline.models.network import SegmentationNetwork
from pipeline.training.batch_norm import SyncedBatchNorm2d
from pipeline.training.class_weights import class_weights
from pipeline.training.task import SegmentationTask

#: Without dropout, whose random numbers are each process's own.
HEAD = ModelConfig(aspp="no_pooling", rates=[1, 2], aspp_channels=8, dropout=0.0)


class SmallBackbone(Backbone):
    """Three convolutions with batch norm, at output stride 8: few messages between processes."""

    name = "small"
    channels = (8, 8, 16, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            conv_bn_relu(into, out, 3, stride=2) for into, out in ((3, 8), (8, 8), (8, 16))
        )

    def forward(self, images: Tensor) -> Features:
        """Maps at strides 2, 4 and 8."""
        levels = []
        maps = images
        for stage in self.stages:
            maps = stage(maps)
            levels.append(maps)
        return Features(images, (*levels, maps, maps))


def small_network(classes: int) -> SegmentationNetwork:
    """v3's ASPP on the small backbone, the same each time."""
    torch.manual_seed(0)
    backbone = SmallBackbone()
    return SegmentationNetwork(backbone, build_head(HEAD, backbone, classes), output_stride=8)


@dataclass
class Job:
    """What is run, and what it is called."""

    name: str
    #: Of `TrainConfig`; no iterations: the network is validated as it starts.
    train: dict[str, Any] = field(default_factory=dict)

    def config(self) -> TrainConfig:
        """For a few steps on small crops; five images are validated."""
        settings = {"iterations": 3, "batch_size": 4, "crop_size": 65, "learning_rate": 0.05}
        return TrainConfig(**settings | {"overfit_images": 5} | self.train)


def run(job: Job, data: Prepared, processes: int = 1) -> dict[str, Any]:
    """One process's part of a job: weights, losses and the confusion matrix in the end."""
    config, classes = job.config(), len(data.classes)
    weights = class_weights(config, data)
    task = SegmentationTask(small_network(classes), config, classes, class_weights=weights)
    if config.iterations:
        trainer(config, processes).fit(task, datamodule=loaders(config, data))
        return _outcome(task)
    return validated(task, data, processes)


def validated(task: SegmentationTask, data: Prepared, processes: int = 1) -> dict[str, Any]:
    """The same of a network as it is."""
    one = trainer(task.config, processes)
    one.validate(task, datamodule=loaders(task.config, data), verbose=False)
    return _outcome(task)


def _outcome(task: SegmentationTask) -> dict[str, Any]:
    state = {name: value.clone() for name, value in task.state_dict().items()}
    counts = torch.as_tensor(task.matrix.counts)
    return {"state": state, "losses": task.losses, "counts": counts}


def trainer(config: TrainConfig, processes: int = 1, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Lightning's, without anything beside the training."""
    return Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy(process_group_backend="gloo") if processes > 1 else "auto",
        max_epochs=1,
        max_steps=config.iterations,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loaders(config: TrainConfig, data: Prepared, start: int = 0) -> SegmentationData:
    """The batches of a training from an iteration on."""
    return SegmentationData(data, config, 0, (0.5, 0.5, 0.5), workers=0, start=start)


def normalise(norm: nn.BatchNorm2d, part: slice) -> dict[str, Tensor]:
    """Batch norm of some images of a fixed batch, in double precision: results and gradients."""
    generator = torch.Generator().manual_seed(0)
    images, outer = torch.randn(2, 4, 3, 5, 7, generator=generator, dtype=torch.float64)
    images = (images[part] + 100).requires_grad_()  # a mean that is large beside the deviation
    result = norm.double()(images)
    (result * outer[part]).sum().backward()
    gradients = {name: cast(Tensor, value.grad) for name, value in norm.named_parameters()}
    values = {"result": result.detach(), "images": cast(Tensor, images.grad)}
    return values | gradients | dict(norm.named_buffers())


def run_on(
    processes: int, jobs: Sequence[Job], data: Prepared, folder: Path
) -> list[dict[str, dict[str, Any]]]:
    """Run jobs, one after the other, on several processes; what each of them has in the end."""
    # Forked from a server that has imported torch, and not from here, where its threads run.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.training.task", "pipeline.datasets.datamodule"])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = [
        context.Process(target=_child, args=(rank, processes, port, jobs, data, folder))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=240)
    alive = [child for child in children if child.is_alive()]
    for child in alive:
        child.kill()
    assert not alive, "the processes wait for each other"
    assert [child.exitcode for child in children] == [0] * processes
    return [torch.load(_result(folder, rank), weights_only=True) for rank in range(processes)]


def _child(
    rank: int, processes: int, port: int, jobs: Sequence[Job], data: Prepared, folder: Path
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    results: dict[str, Any] = {job.name: run(job, data, processes) for job in jobs}
    norm = SyncedBatchNorm2d(nn.BatchNorm2d(3, momentum=0.3))
    results["batch norm"] = normalise(norm, slice(rank, None, processes))
    torch.save(results, _result(folder, rank))
    dist.destroy_process_group()


def _result(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.pt"
