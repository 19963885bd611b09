"""What became of every tensor when trained weights were loaded."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightReport:
    """What became of every tensor.

    Attributes:
        source: where the weights are from, and whose layout they had.
        sha256: of the file that was loaded, 64 hexadecimal digits; None for random weights.
        loaded: the network's tensors that were loaded.
        left_out: the file's tensors that the network has no use for, such as ImageNet's classifier.
        random: the network's tensors that keep their random start.
    """

    source: str
    sha256: str | None
    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    random: tuple[str, ...]

    def summary(self) -> str:
        """One line for a log."""
        if self.sha256 is None:
            return self.source
        parts = [f"{len(self.loaded)} tensors loaded"]
        for keys, fate in ((self.left_out, "left out"), (self.random, "random")):
            if keys:
                parts.append(f"{len(keys)} {fate} ({', '.join(parts_of(keys))})")
        return f"{self.source}, sha256 {self.sha256[:12]}: {'; '.join(parts)}"


def parts_of(keys: Iterable[str]) -> list[str]:
    """The parts of a network that the keys are of: `head.classifier`, `features.18`, `fc`."""
    deep = ("backbone.", "head.", "features.", "classifier.")
    return sorted({".".join(key.split(".")[: 2 if key.startswith(deep) else 1]) for key in keys})


def some(keys: Iterable[str], most: int = 5) -> str:
    """The first keys, and how many more there are."""
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
