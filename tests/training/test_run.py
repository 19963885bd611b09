import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from pipeline.composition import load_config
from pipeline.config import Config
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.models.checkpoint import load_network, read_checkpoint
from pipeline.models.network import build_model
from pipeline.models.weights import load_weights
from pipeline.training.run import train_run

SMALL = [
    "model.rates=[1,2,4]",
    "model.aspp_channels=16",
    "train.crop_size=65",
    "train.batch_size=2",
    "train.iterations=6",
    "train.validate_every=2",
    "trainer.workers=0",
    "trainer.accelerator=cpu",
]


def small(*overrides: str) -> Config:
    config = load_config([*SMALL, *overrides])
    config.variant, config.overrides = "small", list(overrides)
    return config


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def test_a_run_leaves_its_folder_and_its_row(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    folder = tmp_path / "runs" / "small"
    train_run(small("model.output_stride=8", "train.power=0.8"), folder, shapes.folder)
    names = {path.name for path in folder.iterdir()}
    left = {"model.ckpt", "config.yaml", "run.json", "history.csv"}
    assert names == left | {"tracking.jsonl"}
    history = rows(folder)
    assert [int(row["iteration"]) for row in history] == [2, 4, 6]
    rates = [float(row["learning_rate"]) for row in history]
    assert rates == pytest.approx([0.05 * (1 - (i - 1) / 6) ** 0.8 for i in (2, 4, 6)])

    run = MlflowClient(mlflow_store).get_run(record(folder)["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "small"
    assert run.data.params["model.output_stride"] == "8"
    assert run.data.params["train.power"] == "0.8"
    assert "train.momentum" not in run.data.params
    assert run.data.metrics["val/miou"] == pytest.approx(float(history[-1]["val_miou"]))
    assert run.data.tags["signature"] == read_checkpoint(folder / "model.ckpt")["signature"]
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == shapes.digest[:36]

    kept = read_checkpoint(folder / "model.ckpt")
    best = max(history, key=lambda row: float(row["val_miou"]))
    assert kept["iteration"] == int(best["iteration"])
    assert kept["classes"] == list(shapes.classes) or tuple(kept["classes"]) == shapes.classes


def test_the_kept_network_predicts_as_the_trained_one_did(
    shapes: Prepared, tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.training.run.forget_state", lambda folder: None)
    train_run(small("train.keep=last"), tmp_path / "run", shapes.folder)
    network = load_network(tmp_path / "run" / "model.ckpt")
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[f"network.{name}"])


def test_a_run_of_other_settings_is_not_resumed(
    shapes: Prepared,
    tmp_path: Path,
    mlflow_store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    train_run(small(), folder, shapes.folder)
    unfinished = record(folder) | {"finished": False}
    (folder / "run.json").write_text(json.dumps(unfinished))
    train_run(small("train.learning_rate=0.01"), folder, shapes.folder)
    said = capsys.readouterr().out
    assert "(train.learning_rate: 0.05 -> 0.01): starting anew" in said
    assert record(folder)["run_id"] != unfinished["run_id"]
    assert len(rows(folder)) == 3


def test_a_run_that_is_finished_is_not_trained_again(
    shapes: Prepared, tmp_path: Path, mlflow_store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train_run(small("train.iterations=1"), folder, shapes.folder)
    before = (folder / "model.ckpt").read_bytes()
    (folder / "last.ckpt").touch()  # its process may have ended before it removed its state
    (folder / "config.yaml").unlink()  # as DVC does before it runs a stage again
    capsys.readouterr()
    train_run(small("train.iterations=1"), folder, shapes.folder)
    assert "trained already" in capsys.readouterr().out
    assert (folder / "model.ckpt").read_bytes() == before
    assert not (folder / "last.ckpt").exists()
    assert (folder / "config.yaml").exists()
    # What was left is not whole: it is trained.
    (folder / "model.ckpt").write_bytes(b"half")
    train_run(small("train.iterations=1"), folder, shapes.folder)
    assert load_network(folder / "model.ckpt")


def test_training_ends_when_patience_is_over(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    # So small a rate leaves val mIoU where it is.
    settings = ["train.learning_rate=1e-12", "train.freeze_batch_norm=true", "train.patience=2"]
    config = small(*settings, "train.iterations=20", "train.validate_every=1")
    train_run(config, tmp_path / "run", shapes.folder)
    assert [int(row["iteration"]) for row in rows(tmp_path / "run")] == [1, 2, 3]
    assert record(tmp_path / "run")["finished"]


def test_a_run_goes_on_with_other_classes_from_another_runs_folder(
    shapes: Prepared, tmp_path: Path, mlflow_store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_run(small("train.iterations=1"), tmp_path / "first", shapes.folder)
    network = build_model(small().model, 3)
    report = load_weights(network, small(f"model.weights={tmp_path / 'first'}").model)
    assert {key.rpartition(".")[0] for key in report.random} == {"head.classifier"}
    assert "2 random (head.classifier)" in report.summary()
    learnt = load_network(tmp_path / "first" / "model.ckpt").state_dict()
    for key in report.loaded:
        assert torch.equal(network.state_dict()[key], learnt[key])


def test_no_iterations_leave_the_initial_weights(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    train_run(small("train.iterations=0"), tmp_path / "run", shapes.folder)
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["0"]
    assert read_checkpoint(tmp_path / "run" / "model.ckpt")["iteration"] == 0


def test_the_last_iterations_are_validated_too(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    train_run(small("train.iterations=3"), tmp_path / "run", shapes.folder)
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["2", "3"]


def test_a_few_images_are_learnt_by_heart(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    settings = ["debug=overfit", "model.output_stride=8", "train.learning_rate=0.02"]
    config = small(*settings, "train.iterations=160", "train.validate_every=20")
    train_run(config, tmp_path / "run", shapes.folder)
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


def test_frozen_batch_norm_keeps_its_statistics(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    train_run(small("train.freeze_batch_norm=true"), tmp_path / "run", shapes.folder)
    state = load_network(tmp_path / "run" / "model.ckpt").state_dict()
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means
    assert all(not value.any() for value in means)


def test_how_it_runs_changes_no_weight(
    shapes: Prepared,
    tmp_path: Path,
    mlflow_store: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipeline.training.fit.DECODED", tmp_path / "decoded")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(logging.getLogger("pytorch_lightning"), "handlers", [caplog.handler])
    plain = ("trainer.progress_bar=false", "trainer.save_minutes=0")
    train_run(small(*plain), tmp_path / "plain", shapes.folder)
    assert "Profiler Report" not in caplog.text and "Epoch" not in capsys.readouterr().out
    ways = ("trainer.workers=2", "trainer.decoded=true", "trainer.profiler=simple")
    train_run(small(*ways), tmp_path / "ways", shapes.folder)
    assert "Profiler Report" in caplog.text
    assert "Epoch" in capsys.readouterr().out  # the bar's
    assert list((tmp_path / "decoded").iterdir())
    first, second = (
        load_network(tmp_path / name / "model.ckpt").state_dict() for name in ("plain", "ways")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_floats_of_16_bits_without_a_gpu_are_refused(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    with pytest.raises(UserError, match=r"train.precision=16-mixed: needs a GPU; .* bf16-mixed"):
        train_run(small("train.precision=16-mixed"), tmp_path / "run", shapes.folder)


@pytest.mark.parametrize("slow", [False, True])
def test_bfloat16_on_a_processor_without_it_is_warned_of(
    slow: bool,
    shapes: Prepared,
    tmp_path: Path,
    mlflow_store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipeline.models.processor.lacks_bfloat16", lambda device: slow)
    train_run(
        small("train.precision=bf16-mixed", "train.iterations=1"), tmp_path / "run", shapes.folder
    )
    lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("warning: ")]
    assert [line.split(":")[1] for line in lines] == [" train.precision=bf16-mixed"] * slow
