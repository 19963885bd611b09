"""Real DVC processes, started, stopped and blocked; the stages are a script of one screen."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from toy_project import toy_project

from pipeline.sweeping.machine import Slot
from pipeline.sweeping.repository import Repository
from pipeline.sweeping.scheduler import DONE, FAILED, STOPPED, Pending, Scheduler


class Told:
    """A screen that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen: list[tuple[str, str]] = []

    def show(self, variants: Sequence[Pending], news: Sequence[Pending]) -> None:
        self.seen += [(new.variant, new.job.stage if new.job else "") for new in news]

    def say(self, line: str) -> None:
        self.lines.append(line)


def pending_of(repository: Repository, *names: str) -> list[Pending]:
    return [Pending(name, [f"train@{name}", f"evaluate@{name}"], iterations=4) for name in names]


def scheduler_of(repository: Repository, slots: int, screen: Told) -> Scheduler:
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return Scheduler(
        repository,
        repository.root / "logs",
        repository.root / "runs",
        [Slot(f"slot {number}", (), (core,)) for number in range(slots)],
        screen,
    )


def when(path: Path, act: Callable[[], object]) -> None:
    """Act, in a thread, as soon as a file is there."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.05)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_variants_run_side_by_side_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    names = ("fails", "left", "right", "twin")
    repository = toy_project(tmp_path, names)
    fails, _, right, twin = variants = pending_of(repository, *names)
    twin.after = "right"
    screen = Told()
    scheduler_of(repository, 2, screen).run(variants)
    assert [variant.state for variant in variants] == [FAILED, DONE, DONE, DONE]
    assert fails.error == "the loss is nan at iteration 3"
    assert ("left", "train") in screen.seen
    assert ("right", "evaluate") in screen.seen
    assert right.job is not None
    assert (right.job.progress.iteration, right.job.progress.miou) == (4, 50.0)
    # A variant of the same training takes over what the first has learned.
    assert twin.job is not None and twin.job.started >= right.job.started + right.seconds
    # What is left for `dvc repro`: what failed, and what every repro looks at.
    assert {name.partition("@")[2] for name in repository.status()} == {"fails", ""}


def test_a_stopped_training_saves_and_a_second_sweep_goes_on(tmp_path: Path) -> None:
    repository = toy_project(tmp_path, ["stopped", "later"])
    variants = pending_of(repository, "stopped", "later")
    when(tmp_path / "here" / "stopped", lambda: os.kill(os.getpid(), signal.SIGINT))
    screen = Told()
    scheduler_of(repository, 1, screen).run(variants)
    assert [variant.state for variant in variants] == [STOPPED, STOPPED]
    assert (tmp_path / "runs" / "stopped" / "saved").exists()
    assert not (tmp_path / "runs" / "stopped" / "model.ckpt").exists()
    assert screen.lines == ["stopping: trainings save their state; Ctrl-C again ends them at once"]
    again = pending_of(repository, "stopped", "later")
    scheduler_of(repository, 2, Told()).run(again)
    assert [variant.state for variant in again] == [DONE, DONE]


def test_a_stage_that_another_process_runs_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sweeping.scheduler.TRY_AGAIN", 0.2)
    repository = toy_project(tmp_path, ["held"])
    other = subprocess.Popen(
        repository.command("repro", "--single-item", "train@held"),
        cwd=tmp_path,
        env=repository.environment(),
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "here" / "held").exists():
        assert other.poll() is None
        time.sleep(0.05)
    (held,) = variants = pending_of(repository, "held")

    def let_go_once_waited_for() -> None:
        for _ in range(1200):
            if held.job is not None and held.job.waits:
                break
            time.sleep(0.05)
        (tmp_path / "here" / "go").touch()

    threading.Thread(target=let_go_once_waited_for).start()
    scheduler_of(repository, 1, Told()).run(variants)
    assert other.wait() == 0
    assert held.state == DONE
    assert held.job is not None and held.job.waits
