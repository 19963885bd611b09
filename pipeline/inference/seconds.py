"""Where the time goes: seconds by part of the work."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Seconds:
    """Seconds by part, summed over images and over what runs side by side."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._begun = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside under this name."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - begun})

    def add(self, parts: Mapping[str, float]) -> None:
        """Count what was measured elsewhere."""
        for name, seconds in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + seconds

    def line(self) -> str:
        """One line for the terminal; the parts are added up over what ran side by side."""
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.parts.items())
        return f"seconds: {time.perf_counter() - self._begun:.1f}; by part: {parts}"
