"""One MLflow row a run: training opens it, evaluation reopens it.

What is logged goes to the run's journal, and from there to the store beside the training, which
never waits for it. A tracking server that is away stops nothing: what was logged meanwhile arrives
when it is back, or with the run's next stage.
"""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import warn
from pipeline.tracking.journal import FILE, Entry, Journal, row_of
from pipeline.tracking.store import Row, tracking_uri

#: Seconds between two attempts at a server that is away, doubled up to the second.
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
#: Seconds in which news gathers: a store takes a hundred points as fast as one.
GATHER = 1.0
#: Seconds that a run waits at its end for what is on its way; one that was stopped has few.
LAST_SECONDS, LAST_SECONDS_OF_STOPPED = 300.0, 5.0


class Tracker:
    """A row of MLflow, reached or not.

    Args:
        experiment: the experiment's name: one per data set.
        name: the row's name: the variant.
        run_id: the row to reopen; None opens a new one, unless the journal knows its own.
        folder: the run's, where the journal lies; None: nothing is kept for later.
    """

    def __init__(
        self, experiment: str, name: str, run_id: str | None = None, folder: Path | None = None
    ) -> None:
        self._journal = Journal(None if folder is None else folder / FILE)
        self._journal.row = self._journal.row or run_id
        self._sender = _Sender(self._journal, experiment, name)

    @classmethod
    def off(cls) -> "Tracker":
        """A tracker that logs nothing: for all processes of a run but the first."""
        return _Off()

    @property
    def run_id(self) -> str | None:
        """The row's number; None as long as the store has not given one."""
        return self._journal.row

    def send(self) -> None:
        """From now on, bring what is logged to the store.

        Until then it waits on the disk: a training takes its first step before MLflow is imported,
        which takes seconds.
        """
        self._sender.begin()

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings; a row's params cannot be changed afterwards."""
        self._say({"do": "params", "values": {key: str(value) for key, value in values.items()}})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._say({"do": "tags", "values": dict(values)})

    def points(self, values: Mapping[str, float], step: int) -> None:
        """Log points of curves; those that were logged before, by a process that ended, are not."""
        new = {k: float(v) for k, v in values.items() if not self._journal.has_point(k, step)}
        if new:
            self._say({"do": "points", "values": new, "step": step, "time": _now()})

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log figures of the run as a whole; the latest count."""
        numbers = {key: float(value) for key, value in values.items()}
        self._say({"do": "metrics", "values": numbers, "step": 0, "time": _now()})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file or a folder with the row."""
        self._say({"do": "artifact", "path": str(path.resolve()), "folder": folder})

    def dataset(self, name: str, digest: str) -> None:
        """Say which data the run saw, so that runs can be found by it."""
        self._say({"do": "dataset", "name": name, "digest": digest})

    def finish(self, status: str = "FINISHED") -> None:
        """Close the row as FINISHED, FAILED or KILLED; wait a while for what is on its way."""
        self._say({"do": "finish", "status": status, "time": _now()})
        if status == "KILLED":
            self._sender.finish(LAST_SECONDS_OF_STOPPED)
        else:
            self._sender.begin()
            self._sender.finish(LAST_SECONDS)

    def _say(self, entry: Entry) -> None:
        self._journal.add(entry)
        self._sender.wake()


class _Off(Tracker):
    """Says nothing."""

    def __init__(self) -> None: ...

    @property
    def run_id(self) -> str | None:
        return None

    def send(self) -> None: ...

    def points(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self, status: str = "FINISHED") -> None: ...

    def _say(self, entry: Entry) -> None: ...


def deliver(folder: Path, experiment: str, name: str) -> None:
    """Bring what a run's processes could not, where something waits.

    Args:
        folder: the run's.
        experiment: as a `Tracker`'s.
        name: as a `Tracker`'s.
    """
    if not (folder / FILE).is_file():
        return
    journal = Journal(folder / FILE)
    # A stage on another machine than the training's adds to a row that its journal did not open.
    journal.row = row_of(folder)
    if journal.waiting():
        sender = _Sender(journal, experiment, name)
        sender.begin()
        sender.finish(LAST_SECONDS)


class _Sender(threading.Thread):
    """Brings a journal's entries to the store, and tries again for as long as it cannot."""

    def __init__(self, journal: Journal, experiment: str, name: str) -> None:
        super().__init__(daemon=True, name="tracking")
        self._journal = journal
        self._experiment, self._name = experiment, name
        self._row: Row | None = None
        self._news = threading.Event()
        self._is_last = threading.Event()
        self._away: str | None = None

    def begin(self) -> None:
        """Start, if it has not."""
        if self.ident is None:
            self.start()

    def wake(self) -> None:
        """There is something to send."""
        self._news.set()

    def finish(self, seconds: float) -> None:
        """Send what is there, for so long at most; what is left is said in one line."""
        self._is_last.set()
        self._news.set()
        if self.ident is not None:
            self.join(seconds)
        left = len(self._journal.waiting())
        if left and self._journal.path is not None:
            warn(
                f"{left} entries for it wait in {self._journal.path}: the next stage or the same "
                "command sends them"
            )

    def run(self) -> None:
        wait = FIRST_WAIT
        while True:
            self._news.wait()
            last = self._is_last.is_set()
            if not self._away:
                self._news.clear()
            if self._try():
                wait = FIRST_WAIT
                if last:
                    return
                self._is_last.wait(GATHER)
            elif last:
                return
            else:
                self._is_last.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _try(self) -> bool:
        """Whether everything that waits has arrived."""
        waiting = self._journal.waiting()
        again = (self._row is None and self._journal.continued) or self._away is not None
        try:
            if self._row is None:
                self._row = Row(self._journal, self._experiment, self._name)
            self._row.send(waiting, again)
        # Whatever a store raises, from a refused connection to a locked database: the run goes on.
        except Exception as error:
            if self._away is None:
                self._away = (str(error).strip() or type(error).__name__).splitlines()[0]
                warn(f"MLflow at {tracking_uri()} failed ({self._away[:200]}); the run goes on")
            return False
        if self._away is not None:
            self._away = None
            print(f"MLflow at {tracking_uri()} is back; nothing is missing there", flush=True)
        return True


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
