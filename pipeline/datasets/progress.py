"""Several long jobs at once, in one display with a bar each, that end together."""

import contextlib
import functools
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

T = TypeVar("T")

CHUNK = 1 << 20
#: Seconds that jobs are given to end by themselves once one of them has failed.
GRACE = 1.0


class Digest(Protocol):
    """A running checksum, as hashlib makes them."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """The checksum so far, in hexadecimal digits."""


class StoppedError(Exception):
    """The job is to end because another one failed or the user gave up."""


class Bar:
    """A job's line in the display; through it the job learns that it has to stop."""

    def __init__(self, bars: Progress, name: str, stop: threading.Event) -> None:
        self._bars, self._name, self._stop = bars, name, stop
        self._task: TaskID | None = None

    def begin(self, doing: str, total: int | None, done: int = 0) -> None:
        """Start a new count of bytes; what is done already is in no speed.

        Raises:
            StoppedError: the job is to end.
        """
        self._check()
        # Anew, because a bar's total cannot be taken back.
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(f"{doing} {self._name}", total=total, completed=done)

    def advance(self, count: int) -> None:
        """Count bytes.

        Raises:
            StoppedError: the job is to end.
        """
        self._check()
        if self._task is not None:
            self._bars.advance(self._task, count)

    def wait(self, seconds: float) -> None:
        """Do nothing for a while.

        Raises:
            StoppedError: the job is to end.
        """
        self._stop.wait(seconds)
        self._check()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.print(line, markup=False, highlight=False, soft_wrap=True)

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError


def run_together(jobs: Mapping[str, Callable[[Bar], T]], at_once: int) -> dict[str, T]:
    """Run the jobs in threads and wait for all of them.

    The first error, and Ctrl-C, ends all: the others stop at their next look at their bar. One
    that hangs in a read is left to die with the program.

    Args:
        jobs: what to do, by the name that its bar shows.
        at_once: how many run at the same time.

    Returns:
        What each job returned.
    """
    stop, ended = threading.Event(), SimpleQueue[tuple[str, Any, BaseException | None]]()
    waiting = deque(jobs)
    results: dict[str, T] = {}

    def work(bars: Progress) -> None:
        with contextlib.suppress(IndexError):
            while not stop.is_set():
                name = waiting.popleft()
                try:
                    ended.put((name, jobs[name](Bar(bars, name, stop)), None))
                except BaseException as error:
                    # In this order: the others' own ends must not come before their reason.
                    ended.put((name, None, error))
                    stop.set()

    with _bars() as bars:
        # Daemons: the program's end does not wait for a server that says nothing.
        threads = [
            threading.Thread(target=work, args=(bars,), daemon=True)
            for _ in range(min(at_once, len(jobs)))
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in jobs:
                name, result, error = ended.get()
                if error is not None:
                    raise error
                results[name] = result
        finally:
            stop.set()
            end = time.monotonic() + GRACE
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
    return {name: results[name] for name in jobs}


@contextlib.contextmanager
def one_bar(name: str) -> Iterator[Bar]:
    """The bar of a job that runs alone."""
    with _bars() as bars:
        yield Bar(bars, name, threading.Event())


def _bars() -> Progress:
    speed, left = TransferSpeedColumn(), TimeRemainingColumn()
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), speed, left)


def digest_of(path: Path, kind: str, bar: Bar) -> str:
    """The checksum of a file, in hexadecimal digits.

    Args:
        path: of the file.
        kind: sha256, sha1 or md5.
        bar: shows how far it is.
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    bar.begin("check", path.stat().st_size)
    with open(path, "rb", buffering=0) as file:
        for chunk in iter(functools.partial(file.read, CHUNK), b""):
            digest.update(chunk)
            bar.advance(len(chunk))
    return digest.hexdigest()
