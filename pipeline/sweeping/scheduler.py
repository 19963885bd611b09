"""Run the pending variants, as many at a time as there are slots, and follow them to their end."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from pipeline.sweeping.job import Job
from pipeline.sweeping.machine import Slot
from pipeline.sweeping.progress import Progress
from pipeline.sweeping.repository import Repository

#: Seconds between two looks at what runs.
LOOK_EVERY = 0.5
#: Seconds until a stage that another DVC process blocks is tried again.
TRY_AGAIN = 5.0

WAITS, RUNS, DONE, FAILED, STOPPED = "waits", "runs", "done", "failed", "stopped"


@dataclass
class Pending:
    """A variant that has something to do.

    Attributes:
        variant: its name.
        stages: DVC's names, in their order.
        iterations: of its training.
        processes: of its training.
        after: a variant of the same training, from which it takes over what was learned.
        state: `waits`, `runs`, `done`, `failed` or `stopped`.
        job: while it runs, and after.
        error: why it failed, in a line.
        seconds: that it took.
    """

    variant: str
    stages: Sequence[str]
    iterations: int
    processes: int = 1
    after: str | None = None
    state: str = WAITS
    job: Job | None = None
    error: str = ""
    seconds: float = 0.0


class Screen(Protocol):
    """What shows how far everything is."""

    def show(self, variants: Sequence[Pending], news: Sequence[Pending]) -> None:
        """Show the state of all, some of which have something new."""

    def say(self, line: str) -> None:
        """Say a line."""


@dataclass
class Scheduler:
    """Fills the slots.

    Attributes:
        repository: the project.
        logs: the folder that gets a log of each variant.
        runs: the folder of the runs.
        slots: of the machine.
        screen: that is told.
    """

    repository: Repository
    logs: Path
    runs: Path
    slots: Sequence[Slot]
    screen: Screen
    stops: int = 0
    _told: int = 0
    _retries: dict[str, float] = field(default_factory=dict)

    def run(self, variants: Sequence[Pending]) -> None:
        """Run all, in their order, whatever becomes of the ones before; their states say the end.

        Ctrl-C and SIGTERM stop what runs: trainings save, and a second sweep goes on from there.
        A second Ctrl-C ends everything at once.
        """
        before = {each: signal.signal(each, self._note) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            while any(pending.state in (WAITS, RUNS) for pending in variants):
                news = [] if self.stops else self._start(variants)
                news += self._follow(variants)
                self._stop_what_is_to_stop(variants)
                self.screen.show(variants, news)
                if any(pending.state in (WAITS, RUNS) for pending in variants):
                    time.sleep(LOOK_EVERY)
        finally:
            for pending in variants:
                if pending.state == RUNS and pending.job:
                    pending.job.kill()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.stops += 1

    def _start(self, variants: Sequence[Pending]) -> list[Pending]:
        taken = {id(pending.job.slot) for pending in variants if pending.state == RUNS
                 and pending.job}  # fmt: skip
        free = [slot for slot in self.slots if id(slot) not in taken]
        unfinished = {pending.variant for pending in variants if pending.state in (WAITS, RUNS)}
        ready = [
            pending
            for pending in variants
            if pending.state == WAITS and pending.after not in unfinished
        ]
        started = []
        for pending, slot in zip(ready, free, strict=False):
            progress = Progress(self.runs / pending.variant / "history.csv", pending.iterations)
            log = self.logs / f"{pending.variant}.log"
            pending.job = Job(
                self.repository,
                pending.variant,
                pending.stages,
                slot,
                slot.devices or pending.processes,
                log,
                progress,
            )
            pending.state = RUNS
            started.append(pending)
        return started

    def _follow(self, variants: Sequence[Pending]) -> list[Pending]:
        news = []
        for pending in variants:
            job = pending.job
            if pending.state != RUNS or job is None:
                continue
            new = job.look()
            code = job.ended()
            if code is not None:
                new = self._end(pending, job, code) or new
            if new:
                news.append(pending)
        return news

    def _end(self, pending: Pending, job: Job, code: int) -> bool:
        """Note how a job ended, or start it again; whether it has ended."""
        if code and not self.stops and job.was_busy():
            now = time.monotonic()
            if now >= self._retries.setdefault(pending.variant, now + TRY_AGAIN):
                del self._retries[pending.variant]
                job.again()
            first, job.waits = not job.waits, True
            return first
        pending.seconds = time.time() - job.started
        if code == 0:
            pending.state = DONE
        elif self.stops:
            pending.state = STOPPED
        else:
            pending.state, pending.error = FAILED, job.error()
        return True

    def _stop_what_is_to_stop(self, variants: Sequence[Pending]) -> None:
        if not self.stops:
            return
        for pending in variants:
            if pending.state == WAITS:
                pending.state = STOPPED
            elif pending.state == RUNS and pending.job:
                if self.stops > 1:
                    pending.job.kill()
                else:
                    pending.job.stop()
        if self._told < self.stops:
            self._told = self.stops
            self.screen.say(
                "stopping: trainings save their state; Ctrl-C again ends them at once"
                if self.stops == 1
                else "ended at once"
            )


def states(variants: Sequence[Pending], state: str) -> list[Any]:
    """Those in a state."""
    return [pending for pending in variants if pending.state == state]
