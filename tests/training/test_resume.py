"""Trainings that are really killed, in their middle."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from real_runs import RealRun, same

from pipeline.datasets.prepared import Prepared


@pytest.fixture(scope="module")
def whole(
    shapes: Prepared, mlflow_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> RealRun:
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = RealRun(folder, shapes.folder, f"sqlite:///{mlflow_folder / 'mlflow.db'}")
    assert run.run() == 0, run.output()
    return run


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_not(
    whole: RealRun, shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    killed = RealRun(tmp_path / "run", shapes.folder, mlflow_store)
    chance = random.Random(0)
    for _ in range(3):
        process = killed.start()
        wait_for(killed.folder / "last.ckpt")
        time.sleep(chance.random())
        process.kill()
        process.join()
    assert killed.run() == 0, killed.output()
    assert same(killed.weights(), whole.weights())
    assert killed.history() == whole.history()
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    points = client.get_metric_history(killed.record()["run_id"], "train/loss")
    assert sorted(point.step for point in points) == [1, 2, 3, 4, 5, 6]


def test_sigterm_saves_and_ends_with_a_code_that_says_so(
    whole: RealRun, shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    stopped = RealRun(tmp_path / "run", shapes.folder, mlflow_store, "trainer.save_minutes=60")
    process = stopped.start()
    wait_for(stopped.folder / "history.csv")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 75, stopped.output()
    assert "stopped by SIGTERM at iteration" in stopped.output()
    assert "Traceback" not in stopped.output()
    assert stopped.run() == 0, stopped.output()
    assert same(stopped.weights(), whole.weights())
    assert stopped.history() == whole.history()
