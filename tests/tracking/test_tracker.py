import json
import os
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.config import Config
from pipeline.tracking.naming import evaluation_metrics, swept_params
from pipeline.tracking.store import COLOUR, COLOURS, NO_FORK
from pipeline.tracking.tracker import Tracker, deliver


def test_evaluation_reopens_the_row_of_training(mlflow_store: str) -> None:
    first = Tracker("data", "variant")
    first.params({"a": 1})
    first.points({"val/miou": 10.0}, step=5)
    first.finish()
    second = Tracker("data", "variant", first.run_id)
    second.params({"a": 1, "b": 2})
    second.metrics({"test/miou": 9.0})
    second.finish()
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("data")
    assert experiment is not None
    rows = client.search_runs([experiment.experiment_id])
    assert len(rows) == 1
    assert rows[0].data.metrics == {"val/miou": 10.0, "test/miou": 9.0}
    assert rows[0].data.params == {"a": "1", "b": "2"}
    assert rows[0].info.status == "FINISHED"


def test_a_row_that_was_deleted_from_the_store_is_opened_anew(
    mlflow_store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker("data", "variant", "0123456789abcdef0123456789abcdef")
    tracker.metrics({"m": 1.0})
    tracker.finish()
    assert tracker.run_id != "0123456789abcdef0123456789abcdef"
    assert "opening a new row" in capsys.readouterr().out


def test_rows_of_a_comparison_have_colours_of_their_own(mlflow_store: str) -> None:
    client = MlflowClient(mlflow_store)
    for number in range(len(COLOURS) + 1):
        tracker = Tracker("colours", f"variant-{number}")
        tracker.finish()
        assert tracker.run_id is not None
        row = client.get_run(tracker.run_id)
        # The eleventh begins anew.
        assert row.data.tags[COLOUR] == COLOURS[number % len(COLOURS)]


def test_a_server_that_is_away_costs_a_line_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker = Tracker("data", "variant")
    tracker.metrics({"m": 1.0})
    tracker.artifact(Path(__file__))
    tracker.finish()
    assert tracker.run_id is None
    said = capsys.readouterr().err
    assert said.count("warning: MLflow at http://127.0.0.1:9 failed") == 1
    assert said.count("\n") == 1


def test_only_the_axes_and_what_was_overridden_are_params() -> None:
    config = Config(overrides=["model=deeplab_v3", "train.power=0.5", "+experiment=x"])
    assert set(swept_params(config)) == {
        "model.backbone",
        "model.output_stride",
        "model.aspp",
        "model.decoder",
        "train.power",
    }


def test_absent_classes_are_no_metric() -> None:
    named = evaluation_metrics({"miou": 1.0, "crf_gain": 0.5, "iou": {"cat": 2.0, "bus": None}})
    assert named == {"test/miou": 1.0, "crf/gain": 0.5, "test/iou/cat": 2.0}


def test_costs_are_metrics_of_the_row() -> None:
    costs = {"params_m": 4.5, "gmacs": 5.8, "peak_mib": 75.8, "ms_per_image": 31.0}
    assert evaluation_metrics(costs | {"iou": {}}) == {f"cost/{k}": v for k, v in costs.items()}


def test_nothing_goes_to_the_store_before_it_is_told_to(mlflow_store: str, tmp_path: Path) -> None:
    tracker = Tracker("data", "later", folder=tmp_path)
    tracker.points({"train/loss": 1.0}, step=1)
    assert tracker.run_id is None
    tracker.finish("KILLED")  # stopped before its first step: the next one sends it
    assert tracker.run_id is None
    again = Tracker("data", "later", folder=tmp_path)
    again.send()
    again.points({"train/loss": 0.5}, step=2)
    again.finish()
    assert again.run_id is not None
    client = MlflowClient(mlflow_store)
    points = client.get_metric_history(again.run_id, "train/loss")
    assert sorted(point.step for point in points) == [1, 2]
    assert client.get_run(again.run_id).info.status == "FINISHED"


def test_what_waits_goes_to_the_row_that_the_run_brought_along(
    mlflow_store: str, tmp_path: Path
) -> None:
    training = Tracker("brought", "variant")  # on another machine, where its journal stays
    training.finish()
    (tmp_path / "run.json").write_text(json.dumps({"run_id": training.run_id}))
    stage = Tracker("brought", "variant", training.run_id, folder=tmp_path)
    stage.metrics({"test/miou": 9.0})
    stage.finish("KILLED")
    deliver(tmp_path, "brought", "variant")
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("brought")
    assert experiment is not None
    (row,) = client.search_runs([experiment.experiment_id])
    assert row.info.run_id == training.run_id
    assert row.data.metrics == {"test/miou": 9.0}


def test_no_process_is_forked_in_the_middle_of_mlflows_import() -> None:
    imported = threading.Event()

    def hold() -> None:
        with NO_FORK:
            held.set()
            time.sleep(0.2)
            imported.set()

    held = threading.Event()
    importing = threading.Thread(target=hold)
    importing.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if imported.is_set() and NO_FORK.acquire(blocking=False) else 1)
    importing.join()
    assert os.waitpid(child, 0)[1] == 0
