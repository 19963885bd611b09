"""How far a training is, read from the history that it writes."""

import csv
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

#: A history of the second before a stage's start may be its own: file systems round times.
_SLACK = 1.0


@dataclass
class Progress:
    """The training of one variant, as it goes on.

    Attributes:
        history: the path of its history.csv.
        iterations: of the whole training.
        started: when the stage was started, in seconds since the epoch; an older history is not
            this training's.
        iteration: of the last row; 0 before the first.
        miou: of the last row, in percent; NaN before the first.
    """

    history: Path
    iterations: int
    started: float = 0.0
    iteration: int = 0
    miou: float = math.nan
    _points: list[tuple[float, int]] = field(default_factory=list)

    def start(self, now: float) -> None:
        """The stage starts: what was read before is of an earlier one."""
        self.started, self.iteration, self.miou = now, 0, math.nan
        self._points = []

    def look(self) -> bool:
        """Read the history again; whether there is a new row."""
        try:
            changed = self.history.stat().st_mtime
            if changed < self.started - _SLACK:
                return False
            with open(self.history, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            iteration = int(float(rows[-1]["iteration"]))
            miou = float(rows[-1]["val_miou"] or math.nan)
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return False  # not there yet, or not of a training
        if self._points and iteration == self.iteration:
            return False
        if not self._points and len(rows) == 1:
            # Later rows are timed from the first; the first, from the start.
            self._points.append((self.started, 0))
        self.iteration, self.miou = iteration, miou
        self._points.append((changed, iteration))
        return True

    def seconds_left(self, now: float | None = None) -> float | None:
        """Of the training, from the pace between the rows; None as long as there is none."""
        now = time.time() if now is None else now
        points = self._points if len(self._points) < 3 else self._points[1:]
        if len(points) < 2 or points[-1][1] <= points[0][1]:
            return None
        (first, low), (last, high) = points[0], points[-1]
        pace = (last - first) / (high - low)
        return max(0.0, pace * (self.iterations - high) - (now - last))
