"""One variant's stages in a process of their own: started, followed, stopped."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from pipeline.sweeping.machine import Slot
from pipeline.sweeping.progress import Progress
from pipeline.sweeping.repository import Repository, is_busy

#: What DVC says when it starts a stage.
_STARTS = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
#: Lines of DVC that say nothing about why a stage failed.
_HOLLOW = ("ERROR: failed to reproduce", "> ", "Running stage ", "Stage '", "Updating lock file")
#: DVC's, after its stage was killed.
_SECONDS_TO_END = 20.0
_SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh")


class Job:
    """The stages of one variant, by `dvc repro`, in a slot of the machine.

    Args:
        repository: the project.
        variant: its name.
        stages: DVC's names, in their order; those that are up to date are skipped by DVC.
        slot: where it runs.
        processes: of its training, which share the slot's cores.
        log: the file that gets what DVC and the stages print.
        progress: of its training.
    """

    def __init__(
        self,
        repository: Repository,
        variant: str,
        stages: Sequence[str],
        slot: Slot,
        processes: int,
        log: Path,
        progress: Progress,
    ) -> None:
        self.variant = variant
        self.slot = slot
        self.progress = progress
        self.log = log
        self.stage = ""
        self.started = time.time()
        self.waits = False
        self._told: set[int] = set()
        self._command = repository.command("repro", "--single-item", *stages)
        self._where = repository.root
        threads = slot.environment(processes)
        self._environment = repository.environment() | {"PYTHONUNBUFFERED": "1"} | threads
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.progress.start(time.time())
        with open(self.log, "wb") as file:
            # A session of its own: Ctrl-C reaches the sweep alone, which tells the stages.
            process = subprocess.Popen(
                self._command,
                cwd=self._where,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.slot.bind(process.pid)
        return process

    def look(self) -> bool:
        """See how far it is; whether something is new that is worth a line."""
        found = [name.partition("@")[0] for name in _STARTS.findall(self.text())]
        new = bool(found) and found[-1] != self.stage
        if new:
            self.stage = found[-1]
        # Also after the training: its last rows may be younger than the last look.
        return ("train" in found and self.progress.look()) or new

    def ended(self) -> int | None:
        """The exit status of `dvc repro`; None while it runs."""
        return self._process.poll()

    def was_busy(self) -> bool:
        """Whether it gave up because another DVC process was at the same files."""
        return bool(self._process.returncode) and is_busy(self.text())

    def again(self) -> None:
        """Start it once more."""
        self.stage = ""
        self._process = self._start()

    def text(self) -> str:
        """All that was printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def error(self) -> str:
        """The line that says why it failed."""
        lines = [line.strip() for line in self.text().splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("error: ")]
        if own:
            return own[-1].removeprefix("error: ")
        rest = [line for line in lines if not line.startswith(_HOLLOW)]
        return (rest or lines or [f"ended with {self._process.returncode}"])[-1]

    def stop(self) -> None:
        """Tell the stage to save and end; DVC then ends by itself, and frees what it holds.

        To be called until it has ended: DVC may be between two stages. DVC itself is never told:
        interrupted while it writes its list of locks, it leaves one that no DVC can read.
        """
        for process in _stage_processes(self._process.pid):
            if process.pid not in self._told:
                self._told.add(process.pid)
                _signal(process, signal.SIGTERM)

    def kill(self) -> None:
        """End the stage at once, with all that it started; nothing is saved."""
        end = time.monotonic() + _SECONDS_TO_END
        while self.ended() is None and time.monotonic() < end:
            for process in _descendants(self._process.pid):
                _signal(process, signal.SIGKILL)
            time.sleep(0.1)
        if self.ended() is None:
            self._process.kill()
            self._process.wait()


def _descendants(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.Error:
        return []


def _stage_processes(dvc: int) -> list[psutil.Process]:
    """What runs the stage: DVC's children, without the shells around them."""
    try:
        found = psutil.Process(dvc).children()
        while any(process.name() in _SHELLS and process.children() for process in found):
            found = [child for process in found for child in process.children() or [process]]
    except psutil.Error:
        return []
    return found


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        pass  # it has ended meanwhile
