"""A small training, or a validation alone, as one of several real processes would run it."""

import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from pipeline.config import ModelConfig, TrainConfig
from pipeline.datasets.datamodule import SegmentationData
from pipeline.datasets.prepared import Prepared
from pipeline.models.backbones.base import Backbone, Features
from pipeline.models.heads import build_head
from pipeline.models.layers import conv_bn_relu
from pipeline.models.network import SegmentationNetwork
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
    config = job.config()
    task = SegmentationTask(
        small_network(len(data.classes)),
        config,
        len(data.classes),
        class_weights=class_weights(config, data),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy(process_group_backend="gloo") if processes > 1 else "auto",
        max_epochs=1,
        max_steps=config.iterations,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = SegmentationData(data, config, 0, (0.5, 0.5, 0.5), workers=0)
    if config.iterations:
        trainer.fit(task, datamodule=loaders)
    else:
        trainer.validate(task, datamodule=loaders, verbose=False)
    state = {name: value.clone() for name, value in task.state_dict().items()}
    counts = torch.as_tensor(task.matrix.counts)
    return {"state": state, "losses": task.losses, "counts": counts}


def run_on(
    processes: int, jobs: Sequence[Job], data: Prepared, folder: Path
) -> list[dict[str, dict[str, Any]]]:
    """Run jobs, one after the other, on several processes; what each of them has in the end."""
    # Forked from a server that has imported torch, and not from here, where its threads run.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["together"])
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
    torch.save({job.name: run(job, data, processes) for job in jobs}, _result(folder, rank))


def _result(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.pt"
