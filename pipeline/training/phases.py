"""The phases of a training: one, or v3's two."""

import dataclasses
from typing import NamedTuple

from pipeline.config import Config, ModelConfig, SecondPhase, TrainConfig
from pipeline.models.network import SegmentationNetwork, build_model


class Phase(NamedTuple):
    """A stretch of a training with one network, one optimiser and one schedule.

    Attributes:
        number: from 0.
        model: what its network is built with.
        train: its schedule.
        seed: of its random numbers: no phase sees the crops of another.
    """

    number: int
    model: ModelConfig
    train: TrainConfig
    seed: int


def phases(config: Config) -> list[Phase]:
    """One phase, or the two of v3, section 4.1.

    Args:
        config: checked.
    """
    alone = dataclasses.replace(config.train, second_phase=SecondPhase())
    first = Phase(0, config.model, alone, config.seed)
    then = config.train.second_phase
    if not then.iterations:
        return [first]
    train = dataclasses.replace(
        alone,
        iterations=then.iterations,
        learning_rate=then.learning_rate,
        freeze_batch_norm=then.freeze_batch_norm,
        split=then.split or alone.split,
    )
    model = dataclasses.replace(config.model, output_stride=then.output_stride)
    return [first, Phase(1, model, train, config.seed + 2**32)]


def rebuilt(network: SegmentationNetwork, phase: Phase, num_classes: int) -> SegmentationNetwork:
    """A network of the phase's output stride with the weights of the one before.

    Args:
        network: as the phase before left it; its weights are the same at every output stride.
        phase: the one that follows.
        num_classes: of both.
    """
    dense = build_model(phase.model, num_classes)
    dense.load_state_dict(network.state_dict())
    return dense
