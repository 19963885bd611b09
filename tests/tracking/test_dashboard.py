import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.tracking import machine
from pipeline.tracking.dashboard import OVER_SEEDS, TITLES, VIEW, link, view, write_views
from pipeline.tracking.naming import GROUP, group, sweep
from pipeline.tracking.publish import dashboard_of, pages, publish
from pipeline.tracking.serve import serve
from pipeline.tracking.tracker import Tracker


def opened(tracker: Tracker) -> str:
    """The row's number."""
    tracker.finish()
    assert tracker.run_id is not None
    return tracker.run_id


def experiment_of(client: MlflowClient, name: str) -> Any:
    found = client.get_experiment_by_name(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("variant", "overrides", "seed", "wanted"),
    [
        ("v3-os8", ["model=deeplab_v3"], 0, "v3-os8"),
        ("v3-os8-seed1", ["model=deeplab_v3", "seed=1"], 1, "v3-os8"),
        ("seed12_v3", ["seed=12"], 12, "v3"),
        ("v3-s1", ["seed=1"], 1, "v3"),
        # `s1` is no seed here.
        ("v3-s1", ["model=deeplab_v3"], 1, "v3-s1"),
        ("model.output_stride=8,seed=1", ["model.output_stride=8", "seed=1"], 1,
         "model.output_stride=8"),
        # The name does not tell the seed: what else was set does.
        ("again", ["+model.output_stride=8", "seed=3", "trainer.workers=0"], 3,
         "model.output_stride=8"),
        ("seed=2", ["seed=2"], 2, "default"),
    ],
)  # fmt: skip
def test_trainings_that_differ_in_the_seed_are_one_group(
    variant: str, overrides: list[str], seed: int, wanted: str
) -> None:
    assert group(Config(variant=variant, overrides=overrides, seed=seed)) == wanted


def test_a_sweep_is_named_by_its_folder_or_its_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(tmp_path / "runs" / "v3") == {}
    job = tmp_path / "multirun" / "2030-01-02" / "03-04-05" / "7"
    assert sweep(job) == {"sweep": "2030-01-02 03-04-05"}
    monkeypatch.setenv("DVC_EXP_NAME", "toed-mane")
    assert sweep(tmp_path / "runs" / "v3") == {"sweep": "toed-mane"}


def test_every_chart_of_a_view_lies_in_one_of_its_parts() -> None:
    for name in TITLES:
        state = view(name)
        parts = {part["uuid"] for part in state["compareRunSections"]}
        assert len(parts) == len(state["compareRunSections"])
        assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= parts
    assert view(OVER_SEEDS)["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": GROUP}]


def test_the_views_come_with_the_experiment_and_what_a_user_saves_over_them_stays(
    mlflow_store: str,
) -> None:
    opened(Tracker("views", "variant"))
    client = MlflowClient(mlflow_store)
    experiment = experiment_of(client, "views")
    saved = json.loads(experiment.tags[f"{VIEW}{OVER_SEEDS}"])
    assert saved["name"] == "Means over seeds"
    packed = saved["state"].removeprefix("deflate;")
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == view(OVER_SEEDS)

    client.set_experiment_tag(experiment.experiment_id, f"{VIEW}{OVER_SEEDS}", "mine")
    opened(Tracker("views", "another"))
    assert experiment_of(client, "views").tags[f"{VIEW}{OVER_SEEDS}"] == "mine"
    # Another form of the views is written anew, and a description is kept.
    client.set_experiment_tag(experiment.experiment_id, "dashboard", "of an earlier form")
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "mine")
    write_views(client, experiment.experiment_id)
    tags = experiment_of(client, "views").tags
    assert json.loads(tags[f"{VIEW}{OVER_SEEDS}"])["state"] == saved["state"]
    assert tags["mlflow.note.content"] == "mine"


def test_the_report_lies_on_the_rows_of_its_variants(mlflow_store: str, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<p>report</p>")
    rows = {}
    for name in ("v3-seed0", "v3-seed1"):
        tracker = Tracker("report", name)
        tracker.tags({GROUP: "v3"})
        rows[name] = opened(tracker)
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"run_id": rows[name]}))
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "run.json").write_text(json.dumps({"run_id": "0" * 32}))

    folders = [tmp_path / name for name in ("v3-seed0", "gone", "untrained", "v3-seed1")]
    places = publish(page, folders)
    client = MlflowClient(mlflow_store)
    for row in rows.values():
        assert [one.path for one in client.list_artifacts(row, "report")] == ["report/index.html"]
    number = experiment_of(client, "report").experiment_id
    assert places == [link(pages(), number, OVER_SEEDS), link(pages(), number)]
    assert publish(page, folders[:2]) == [link(pages(), number)]
    assert dashboard_of(rows["v3-seed0"]) == link(pages(), number)
    assert dashboard_of("0" * 32) is None


def test_a_store_that_is_away_costs_the_report_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    (tmp_path / "run.json").write_text(json.dumps({"run_id": "0" * 32}))
    assert publish(tmp_path / "index.html", [tmp_path]) == []
    said = capsys.readouterr().err
    assert said.startswith("warning: MLflow at http://127.0.0.1:9 failed")
    assert "secret" not in said
    assert said.count("\n") == 1
    # No store at all: nothing is said, and none is made.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    assert publish(tmp_path / "index.html", [tmp_path]) == []
    assert not (tmp_path / "none.db").exists()
    assert capsys.readouterr().err == ""


def test_a_training_shows_what_it_makes_of_the_machine(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "EVERY", 0.05)
    tracker = Tracker("machine", "variant")
    with machine.watched(tracker):
        pass
    row = MlflowClient(mlflow_store).get_run(opened(tracker))
    assert row.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert 0 <= row.data.metrics["system/cpu_utilization_percentage"] <= 100


def test_a_training_that_fails_is_not_held_up(mlflow_store: str) -> None:
    tracker = Tracker("machine", "failing")
    with pytest.raises(KeyboardInterrupt), machine.watched(tracker):
        raise KeyboardInterrupt
    assert (
        "system/cpu_utilization_percentage"
        not in MlflowClient(mlflow_store).get_run(opened(tracker)).data.metrics
    )


def test_a_port_that_is_taken_is_named(mlflow_store: str) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: .*PORT="):
            serve(port)


def test_nothing_is_reported_to_mlflows_makers(mlflow_store: str) -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
