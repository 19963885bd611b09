"""A sweep on the screen: a table that changes in a terminal, lines elsewhere."""

import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.sweeping.scheduler import DONE, FAILED, RUNS, STOPPED, WAITS, Pending

#: Beside the variant's name.
COLUMNS = ("Where", "Stage", "Iteration", "Val mIoU", "Left")
WORDS = ("Where", "Stage")
STYLES = {WAITS: "dim", RUNS: "", DONE: "green", FAILED: "red", STOPPED: "yellow"}


class LiveScreen:
    """A table of all variants that is drawn again and again; for a terminal.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.time()
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, variants: Sequence[Pending], news: Sequence[Pending]) -> None:
        """Draw the table."""
        width, height = self._console.size
        table = as_table(variants, width, height - 3, time.time() - self._started)
        self._live.update(table, refresh=True)

    def say(self, line: str) -> None:
        """A line above the table."""
        self._console.print(Text(line))


class PlainScreen:
    """A line for each thing that happens; for a file or a pipe."""

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, variants: Sequence[Pending], news: Sequence[Pending]) -> None:
        """Say what is new."""
        for pending in news:
            self.say(f"{pending.variant}: {', '.join(filter(None, _words(pending)))}")

    def say(self, line: str) -> None:
        """A line with the time of day."""
        print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def as_table(variants: Sequence[Pending], width: int, height: int, elapsed: float) -> Table:
    """The variants in their order; where not all fit, those that run come first.

    Args:
        variants: all of them.
        width: characters there are for a line.
        height: lines there are for variants.
        elapsed: seconds since the start.
    """
    order = {RUNS: 0, WAITS: 1, FAILED: 2, STOPPED: 2, DONE: 3}
    shown = list(variants)
    if len(shown) > height:
        kept = sorted(shown, key=lambda pending: order[pending.state])[: max(1, height)]
        shown = [pending for pending in shown if pending in kept]
    rows = [_cells(pending) for pending in shown]
    done = sum(pending.state not in (WAITS, RUNS) for pending in variants)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        caption=f"{done} of {len(variants)} ended, {clock(elapsed)}{_hidden(variants, height)}",
        caption_justify="left",
    )
    # A long name gives way, the figures do not.
    taken = sum(max(map(len, column)) + 2 for column in zip(COLUMNS, *rows, strict=True))
    table.add_column("Variant", no_wrap=True, max_width=max(8, width - taken - 2))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    for pending, cells in zip(shown, rows, strict=True):
        table.add_row(pending.variant, *cells, style=STYLES[pending.state])
    return table


def clock(seconds: float) -> str:
    """`0:45`, `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _hidden(variants: Sequence[Pending], height: int) -> str:
    more = len(variants) - height
    return f"; {more} not shown" if more > 0 else ""


def _cells(pending: Pending) -> tuple[str, ...]:
    job = pending.job
    if job is None:
        return ("", pending.state, "", "", "")
    progress = job.progress
    iteration = f"{progress.iteration}/{progress.iterations}" if progress.iteration else ""
    miou = "" if math.isnan(progress.miou) else f"{progress.miou:.2f}"
    if pending.state != RUNS:
        return (job.slot.name, pending.state, iteration, miou, clock(pending.seconds))
    left = progress.seconds_left() if job.stage == "train" else None
    return (job.slot.name, _stage(pending), iteration, miou, "" if left is None else clock(left))


def _stage(pending: Pending) -> str:
    if pending.job is None or pending.state != RUNS:
        return pending.state
    return (
        "blocked" if pending.job.waits and not pending.job.stage else pending.job.stage or "starts"
    )


def _words(pending: Pending) -> list[str]:
    """What a line says of a variant."""
    job = pending.job
    if job is None:
        return [pending.state]
    where, stage, iteration, miou, left = _cells(pending)
    if pending.state == FAILED:
        return [f"failed after {left}: {pending.error}"]
    if pending.state != RUNS:
        return [f"{pending.state} in {left}", miou and f"val mIoU {miou}"]
    if stage == "blocked":
        return ["waits for another DVC process"]
    if stage == "train" and iteration:
        return [f"iteration {iteration}", miou and f"val mIoU {miou}", left and f"{left} left"]
    return [f"{stage} on {where}"]
