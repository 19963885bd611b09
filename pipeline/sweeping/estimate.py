"""What a training will cost: parameters, multiply-adds, memory, and time from what ran before."""

import csv
import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from pipeline.composition import to_config
from pipeline.config import Config, ModelConfig
from pipeline.errors import UserError
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.networks.cost import LiveTensors, count_parameters, multiply_adds
from pipeline.training.phases import phases


@dataclass(frozen=True)
class Cost:
    """Of one variant's training.

    Attributes:
        params_m: millions of parameters.
        gmacs: billions of multiply-adds of one crop, forward.
        memory_mib: of the device at the worst moment of a step.
        work: multiply-adds of the whole training, forward: batches x crops.
    """

    params_m: float
    gmacs: float
    memory_mib: float
    work: float


@dataclass(frozen=True)
class Measured:
    """A training that ended.

    Attributes:
        name: the variant.
        config: as it ran.
        gmacs: of one crop.
        work: of the iterations that it had.
        seconds: that they took.
    """

    name: str
    config: Config
    gmacs: float
    work: float
    seconds: float

    def likeness(self, config: Config, gmacs: float) -> tuple[bool, bool, bool, float]:
        """How near to another training it is, the nearest first when sorted.

        Throughput hangs on the network's kind more than on its size.
        """
        ours, theirs = self.config, config
        return (
            ours.train.precision != theirs.train.precision,
            ours.trainer.devices != theirs.trainer.devices,
            ours.model.backbone != theirs.model.backbone,
            abs(math.log(self.gmacs / gmacs)),
        )


def training_cost(config: Config, classes: int) -> Cost:
    """Count the network's phases on shapes alone.

    The memory is of PyTorch's eager order: weights, gradients, momentum, the batch, and the maps
    that the backward pass needs; what libraries set aside inside a convolution is not in it. In
    mixed precision the maps are taken as half as large.

    Args:
        config: checked.
        classes: of its data set.
    """
    parts = phases(config)
    first = parts[0]
    crop = first.train.crop_size
    batch = -(-first.train.batch_size // config.trainer.devices)
    mixed = first.train.precision != "32-true"
    return Cost(
        params_m=count_parameters(_shapes(_key(first.model), classes)) / 1e6,
        gmacs=_macs(first.model, classes, crop) / 1e9,
        memory_mib=max(
            _step_memory(_key(part.model), classes, batch, crop, mixed) for part in parts
        )
        / 2**20,
        work=_work(config, classes),
    )


def estimated_seconds(
    config: Config, cost: Cost, measured: list[Measured]
) -> tuple[float, str] | None:
    """The time that a training will take, and the run that it is told from.

    It grows with the multiply-adds: network, crop, batch and iterations.
    """
    if not measured or not cost.work:
        return None
    nearest = min(measured, key=lambda run: run.likeness(config, cost.gmacs))
    return nearest.seconds * cost.work / nearest.work, nearest.name


def measured_runs(runs: Path, classes: int) -> list[Measured]:
    """The trainings that ended under `runs/`; what cannot be read is left out.

    Args:
        runs: the folder.
        classes: of the data set that they are compared for; it hardly moves the multiply-adds.
    """
    found = []
    for path in sorted(runs.glob("*/run.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not record.get("finished") or "twin" in record or record["seconds"] <= 0:
                continue
            values = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
            config = to_config(DictConfig(values))
            work = _work(config, classes)
            gmacs = _macs(config.model, classes, config.train.crop_size) / 1e9
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, UserError):
            continue
        share = iterations_of(path.parent) / max(1, sum(p.train.iterations for p in phases(config)))
        if work and share:
            seconds = float(record["seconds"])
            found.append(Measured(path.parent.name, config, gmacs, work * share, seconds))
    return found


def iterations_of(folder: Path) -> int:
    """How far a run got."""
    try:
        with open(folder / "history.csv", newline="", encoding="utf-8") as file:
            return max((int(row["iteration"]) for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, ValueError):
        return 0


def _work(config: Config, classes: int) -> float:
    return sum(
        float(_macs(part.model, classes, part.train.crop_size))
        * part.train.batch_size
        * part.train.iterations
        for part in phases(config)
    )


def _key(model: ModelConfig) -> str:
    """Networks of the same shapes have the same key, whatever weights they start from."""
    return json.dumps(dataclasses.asdict(dataclasses.replace(model, weights=None)))


@cache
def _shapes(key: str, classes: int) -> SegmentationNetwork:
    """A network that has shapes and no values."""
    model = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.create(json.loads(key)))
    )
    if not isinstance(model, ModelConfig):
        raise TypeError("a ModelConfig is expected")
    with torch.device("meta"):
        return build_model(model, classes)


def _macs(model: ModelConfig, classes: int, size: int) -> int:
    return _counted(_key(model), classes, size)


@cache
def _counted(key: str, classes: int, size: int) -> int:
    return multiply_adds(_shapes(key, classes).eval(), size)


@cache
def _step_memory(key: str, classes: int, batch: int, crop: int, mixed: bool) -> int:
    """Bytes at the worst moment of a training step."""
    network = _shapes(key, classes).train()
    images = torch.empty(max(2, batch), 3, crop, crop, device="meta")
    weights = sum(parameter.nbytes for parameter in network.parameters())
    live = LiveTensors([images, *network.parameters(), *network.buffers()])
    with live:
        outputs = network.outputs(images)
        every = [outputs.scores, *outputs.at_scales]
        if outputs.auxiliary is not None:
            every.append(outputs.auxiliary)
        torch.stack([scores.sum() for scores in every]).sum().backward()
    network.zero_grad()
    # The momentum is there from the second step on.
    peak, fixed = live.peak + weights, 2 * weights
    return fixed + (peak - fixed) // 2 if mixed else peak
