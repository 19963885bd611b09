"""Trainings on two processes (gloo, on the CPU) that are really killed, in their middle."""

import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from mlflow import MlflowClient
from real_runs import RealRun, same

from pipeline.datasets.prepared import Prepared

#: Two processes agree on whether to save at every eighth iteration, and after a validation.
LONG = ("train.iterations=24", "train.validate_every=6", "train.ema_decay=0.9")


def wait_for_change(path: Path, before: int) -> None:
    """Until a file is there that is newer."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_mtime_ns > before:
            return
        time.sleep(0.02)
    raise TimeoutError(path)


def kill_after_a_save(run: RealRun, processes: list[BaseProcess], victims: slice) -> None:
    """Kill some of the processes a moment after the state was saved; none of them outlives it."""
    last = run.folder / "last.ckpt"
    wait_for_change(last, last.stat().st_mtime_ns if last.exists() else 0)
    time.sleep(0.1)
    for process in processes[victims]:
        process.kill()
    for process in processes:
        process.join(60)
        assert process.exitcode not in (None, 0), "it had ended, or waits for the other for ever"


def losses(run: RealRun, store: str) -> list[tuple[int, float]]:
    """Of every step, as MLflow has them."""
    points = MlflowClient(store).get_metric_history(run.record()["run_id"], "train/loss")
    return sorted((point.step, point.value) for point in points)


def finish(run: RealRun, processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], run.output()


def test_two_processes_that_are_killed_end_as_two_that_were_not(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    whole = RealRun(tmp_path / "whole", shapes.folder, mlflow_store, *LONG)
    finish(whole, whole.start_two())
    run = RealRun(tmp_path / "killed", shapes.folder, mlflow_store, *LONG)
    # Both at once; then a machine of two that is gone, at which the other one ends too.
    kill_after_a_save(run, run.start_two(), slice(0, 2))
    kill_after_a_save(run, run.start_two(machines=True), slice(1, 2))
    assert "error: another process of this training ended" in run.output().splitlines()[-1]
    finish(run, run.start_two(machines=True))
    assert run.output().count("resuming") == 2
    # Step by step first: where they part says more than that they did.
    steps = losses(run, mlflow_store)
    assert [step for step, _ in steps] == list(range(1, 25))
    assert steps == losses(whole, mlflow_store)
    assert [row["iteration"] for row in run.rows()] == ["6", "12", "18", "24"]
    assert run.history() == whole.history()
    assert same(run.weights(), whole.weights())
