"""A real tracking server that goes away and comes back, and a training beside it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.tracking import tracker as tracking
from pipeline.tracking.journal import row_of
from pipeline.tracking.tracker import Tracker, deliver


class Server:
    """`mlflow server` on a port of this machine, with a store on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--port", str(self.port)),
                *("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"),
                *("--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"),
            ],
            # Without the helper processes of jobs, which take their time to start.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("mlflow server does not start")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def row(self, name: str) -> Run:
        """The only row of a name."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("away")
        assert experiment is not None
        (row,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
        return row

    def steps(self, row: Run, key: str) -> list[int]:
        """Of a curve's points."""
        history = MlflowClient(self.uri).get_metric_history(row.info.run_id, key)
        return sorted(point.step for point in history)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server"))
    yield one
    one.stop()


def test_what_is_logged_while_the_server_is_away_arrives_later(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracking, "FIRST_WAIT", 0.2)
    monkeypatch.setattr(tracking, "LONGEST_WAIT", 0.4)
    path = tmp_path / "a.txt"
    path.write_text("kept")

    # Away at the start: nothing waits for it.
    training = Tracker("away", "variant", folder=tmp_path)
    training.params({"a": 1})
    training.artifact(path)
    training.send()
    for step in range(5):
        training.points({"loss": 1.0 / (step + 1)}, step)
    server.start()
    deadline = time.monotonic() + 60
    while training._journal.waiting() and time.monotonic() < deadline:
        time.sleep(0.1)
    row = server.row("variant")
    assert row.data.params == {"a": "1"}
    assert server.steps(row, "loss") == [0, 1, 2, 3, 4]

    # Away in the middle and at the end.
    server.stop()
    for step in range(3, 8):
        training.points({"loss": 1.0 / (step + 1)}, step)
    training.finish()
    said = capsys.readouterr()
    assert said.err.count("warning: MLflow at") == 2
    assert f"wait in {tmp_path / 'tracking.jsonl'}: the next stage or the same command " in said.err
    assert said.out.count("is back") == 1

    # The same command, or the next stage, brings it all, each point once, though the note of the
    # first ones is lost.
    lines = (tmp_path / "tracking.jsonl").read_text().splitlines()
    kept = [line for line in lines if not line.startswith('{"sent"')]
    (tmp_path / "tracking.jsonl").write_text("\n".join(kept) + "\n")
    server.start()
    deliver(tmp_path, "away", "variant")
    assert server.steps(server.row("variant"), "loss") == list(range(8))
    assert server.row("variant").info.status == "FINISHED"
    later = Tracker("away", "variant", folder=tmp_path)
    later.metrics({"test/miou": 50.0})
    later.finish()
    row = server.row("variant")
    assert row.info.run_id == training.run_id == later.run_id
    assert row.info.status == "FINISHED"
    assert server.steps(row, "loss") == list(range(8))
    assert row.data.metrics["test/miou"] == 50.0
    files = MlflowClient(server.uri).list_artifacts(row.info.run_id)
    assert [file.path for file in files] == ["a.txt"]
    assert row_of(tmp_path) == row.info.run_id


def test_a_row_whose_number_was_lost_on_the_way_is_found_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    first = Tracker("away", "lost", folder=tmp_path)
    first.points({"loss": 1.0}, 1)
    first.send()
    first.finish("KILLED")
    lines = (tmp_path / "tracking.jsonl").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(('{"row"', '{"sent"'))]
    (tmp_path / "tracking.jsonl").write_text("\n".join(kept) + "\n")
    second = Tracker("away", "lost", folder=tmp_path)
    second.points({"loss": 1.0}, 1)
    second.points({"loss": 0.5}, 2)
    second.finish()
    row = server.row("lost")
    assert row.info.run_id == first.run_id
    assert server.steps(row, "loss") == [1, 2]
