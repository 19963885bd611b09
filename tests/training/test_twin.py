import csv
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.composition import load_config
from pipeline.config import Config
from pipeline.datasets.prepared import Prepared
from pipeline.training import run as run_module
from pipeline.training.run import train_run

SMALL = [
    "model.backbone=resnet18",
    "model.aspp_channels=8",
    "model.rates=[1,2,4]",
    "train.crop_size=65",
    "train.batch_size=2",
    "train.iterations=2",
    "train.validate_every=1",
    "trainer.workers=0",
    "trainer.accelerator=cpu",
]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_module, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


def variant(name: str, *overrides: str) -> Config:
    config = load_config([*SMALL, *overrides])
    config.variant, config.overrides = name, list(overrides)
    return config


def test_a_variant_that_is_only_evaluated_otherwise_is_not_trained_again(
    runs: Path,
    shapes: Prepared,
    mlflow_store: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_run(variant("at16"), runs / "at16", shapes.folder)
    with monkeypatch.context() as patched:
        patched.delattr(run_module, "fit")  # no second training could run
        eight = variant("at8", "evaluate.output_stride=8")
        train_run(eight, runs / "at8", shapes.folder)
    assert "the same training as at16" in capsys.readouterr().out
    for name in ("model.ckpt", "history.csv"):
        assert (runs / "at8" / name).read_bytes() == (runs / "at16" / name).read_bytes()
    record = json.loads((runs / "at8" / "run.json").read_text())
    assert record["finished"]
    assert record["twin"] == "at16"
    client = MlflowClient(mlflow_store)
    row = client.get_run(record["run_id"])
    assert row.info.run_name == "at8"
    with open(runs / "at16" / "history.csv", newline="") as file:
        wanted = [float(line["val_miou"]) for line in csv.DictReader(file)]
    logged = client.get_metric_history(record["run_id"], "val/miou")
    assert [metric.value for metric in logged] == wanted


@pytest.mark.parametrize("override", ["seed=1", "train.power=0.5", "trainer.workers=1"])
def test_a_variant_that_learns_or_runs_otherwise_is_trained(
    override: str, runs: Path, shapes: Prepared, mlflow_store: str
) -> None:
    train_run(variant("first"), runs / "first", shapes.folder)
    train_run(variant("second", override), runs / "second", shapes.folder)
    assert "twin" not in json.loads((runs / "second" / "run.json").read_text())


def test_an_unfinished_or_damaged_run_is_no_twin(
    runs: Path, shapes: Prepared, mlflow_store: str
) -> None:
    train_run(variant("first"), runs / "first", shapes.folder)
    (runs / "first" / "model.ckpt").write_bytes(b"half")
    train_run(variant("second", "evaluate.output_stride=8"), runs / "second", shapes.folder)
    assert "twin" not in json.loads((runs / "second" / "run.json").read_text())
