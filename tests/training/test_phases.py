from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from real_runs import RealRun, same

from pipeline.composition import load_config
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.models.checkpoint import load_network, read_checkpoint
from pipeline.models.network import build_model
from pipeline.training.phases import phases, rebuilt

TWO = ("train.iterations=3", "train.second_phase.iterations=3", "train.keep=last")


def test_the_second_phase_changes_what_it_names_and_nothing_else() -> None:
    config = load_config(["+train=deeplab_v3_two_phases", "model.output_stride=16"])
    first, second = phases(config)
    assert (first.model.output_stride, second.model.output_stride) == (16, 8)
    assert (first.train.iterations, second.train.iterations) == (30000, 30000)
    assert (first.train.learning_rate, second.train.learning_rate) == (0.007, 0.001)
    assert (first.train.freeze_batch_norm, second.train.freeze_batch_norm) == (False, True)
    changed = {
        key for key in vars(first.train) if vars(first.train)[key] != vars(second.train)[key]
    }
    assert changed == {"learning_rate", "freeze_batch_norm"}
    assert first.seed != second.seed
    assert len(phases(load_config([]))) == 1


def test_crops_have_to_fit_both_output_strides() -> None:
    with pytest.raises(UserError, match=r"train.crop_size=81: must be k \* 32 \+ 1"):
        load_config(
            [
                *("model.output_stride=16", "train.crop_size=81"),
                *("train.second_phase.iterations=1", "train.second_phase.output_stride=32"),
            ]
        )


def test_the_network_is_rebuilt_with_the_same_weights() -> None:
    config = load_config(["train.second_phase.iterations=1", "model.width=0.25"])
    network = build_model(config.model, 4)
    dense = rebuilt(network, phases(config)[1], 4)
    assert (network.output_stride, dense.output_stride) == (16, 8)
    assert dense.eval().scores(torch.rand(1, 3, 33, 33)).shape[-1] == 5
    assert same(dict(network.state_dict()), dict(dense.state_dict()))


def test_two_phases_are_one_run_and_one_history_wherever_they_are_stopped(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    whole = RealRun(tmp_path / "whole", shapes.folder, mlflow_store, *TWO)
    assert whole.run() == 0, whole.output()
    assert [int(row["iteration"]) for row in whole.rows()] == [2, 3, 5, 6]
    rates = [float(row["learning_rate"]) for row in whole.rows()]
    assert rates[0] > rates[1]
    assert rates[3] < rates[2] <= 0.001
    kept = read_checkpoint(whole.folder / "model.ckpt")
    assert (kept["model"]["output_stride"], kept["iteration"]) == (8, 6)
    assert load_network(whole.folder / "model.ckpt").output_stride == 8

    stopped = RealRun(tmp_path / "stopped", shapes.folder, mlflow_store, *TWO)
    for phase in (0, 1):
        process = stopped.start()
        while process.is_alive() and at(stopped.folder / "last.ckpt") < (phase, 1):
            pass
        assert process.is_alive(), stopped.output()
        process.kill()
        process.join()
    assert stopped.run() == 0, stopped.output()
    assert same(stopped.weights(), whole.weights())
    assert stopped.history() == whole.history()
    client = MlflowClient(mlflow_store)
    points = client.get_metric_history(stopped.record()["run_id"], "val/miou")
    assert sorted(point.step for point in points) == [2, 3, 5, 6]


def at(path: Path) -> tuple[int, int]:
    """Phase and step of a saved state."""
    try:
        saved = read_checkpoint(path)
    except UserError:
        return (0, 0)
    return saved["phase"], saved["global_step"]
