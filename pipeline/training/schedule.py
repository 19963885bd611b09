"""Learning rates."""

from collections.abc import Callable


def poly(iterations: int, power: float) -> Callable[[int], float]:
    """The poly policy: (1 - iteration / iterations) ** power (v2, section 4.1; v3, section 4).

    Args:
        iterations: of the whole training.
        power: 0.9 in the papers.

    Returns:
        iteration -> factor of the base learning rate; 0 from the last iteration on.
    """

    def factor(iteration: int) -> float:
        return float(max(0.0, 1 - iteration / max(iterations, 1)) ** power)

    return factor
