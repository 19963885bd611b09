"""Learning rates by iteration."""

import math
from collections.abc import Callable

from pipeline.config import TrainConfig

#: iteration -> factor of the base learning rate.
Schedule = Callable[[int], float]


def schedule(config: TrainConfig) -> Schedule:
    """The configured policy, after the configured warm-up."""
    policies = {
        "poly": lambda: poly(config.iterations, config.power),
        "step": lambda: step(config.step_every, config.step_factor),
        "cosine": lambda: cosine(config.iterations),
    }
    return warmed_up(policies[config.schedule](), config.warmup_iterations)


def poly(iterations: int, power: float) -> Schedule:
    """The poly policy: (1 - iteration / iterations) ** power (v2, section 4.1; v3, section 4).

    Args:
        iterations: of the whole training.
        power: 0.9 in the papers.

    Returns:
        The factor; 0 from the last iteration on.
    """

    def factor(iteration: int) -> float:
        return float(max(0.0, 1 - iteration / max(iterations, 1)) ** power)

    return factor


def step(every: int, times: float) -> Schedule:
    """The step policy: `times` the rate after each `every` iterations (v1: 0.1, 2000)."""
    return lambda iteration: float(times ** (iteration // every))


def cosine(iterations: int) -> Schedule:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, arXiv 1608.03983, without restarts)."""
    return lambda iteration: (
        0.5 * (1 + math.cos(math.pi * min(iteration, iterations) / max(iterations, 1)))
    )


def warmed_up(policy: Schedule, iterations: int) -> Schedule:
    """The policy, times a factor that grows linearly to 1 over the first iterations."""
    return lambda iteration: policy(iteration) * min(1.0, (iteration + 1) / (iterations + 1))
