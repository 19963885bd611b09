"""Trainings that fail: each in one line, nothing half-written, and marked."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from real_runs import RealRun, same

from pipeline.config import TrainConfig
from pipeline.datasets.prepared import Prepared
from pipeline.training.failures import out_of_memory, ran_out_of_memory


def last_line(run: RealRun) -> str:
    assert "Traceback" not in run.output()
    return run.output().splitlines()[-1]


def test_a_loss_that_is_no_number_names_the_step_and_its_images(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    run = RealRun(tmp_path / "run", shapes.folder, mlflow_store, "train.learning_rate=1e30")
    assert run.run() == 1
    said = last_line(run)
    assert said.startswith("error: the loss is nan at iteration 2 (learning rate 8.")
    named = said.partition("images ")[2].partition(")")[0].split(", ")
    assert named and all((shapes.folder / "images" / name).is_file() for name in named)
    assert run.record()["failed"] in said
    assert not run.record()["finished"]
    # What is saved is from before.
    assert torch.load(run.folder / "last.ckpt", weights_only=True)["global_step"] == 1
    row = MlflowClient(mlflow_store).get_run(run.record()["run_id"])
    assert row.info.status == "FAILED"


def test_too_little_memory_ends_in_a_line_with_the_peak(
    shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    run = RealRun(
        tmp_path / "run", shapes.folder, mlflow_store, "train.batch_size=32", "train.crop_size=513"
    )
    # What it fails on is large there, 0.4 GiB: what is left is enough to say so.
    limit = int(2.2 * 1024**3)
    assert run.run(limits={resource.RLIMIT_DATA: limit}) == 1, run.output()
    said = last_line(run)
    assert said.startswith("error: out of memory at iteration 1: the peak was ")
    assert "GiB more were asked for; raise train.accumulate=1, lower train.batch_size=32" in said


def test_what_fits_on_a_gpu_follows_from_what_was_taken() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has")
    assert ran_out_of_memory(error)
    assert ran_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    # oneDNN's, where nothing is left but small pieces.
    assert ran_out_of_memory(RuntimeError("could not create a primitive"))
    assert not ran_out_of_memory(RuntimeError("shapes do not match"))
    assert "512.00 MiB" not in str(out_of_memory(error, TrainConfig(), 3, 1, 0))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system of a few MiB can only be made by root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_in_a_line_and_the_run_goes_on_when_there_is_room(
    tiny_disk: Path, shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    whole = RealRun(tmp_path / "whole", shapes.folder, mlflow_store)
    assert whole.run() == 0, whole.output()
    # The network and its momentum.
    size = 2 * (whole.folder / "model.ckpt").stat().st_size
    run = RealRun(tiny_disk / "run", shapes.folder, mlflow_store)
    # Room for a checkpoint and a half.
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(24 * 2**20 - int(1.5 * size)))
    assert run.run() == 1
    assert "the disk is full; make room and run the same command again" in last_line(run)
    left = {path.name for path in run.folder.iterdir()}
    assert not any(name.endswith(".partial") for name in left)
    assert "last.ckpt" in left
    ballast.unlink()
    assert run.run() == 0, run.output()
    assert same(run.weights(), whole.weights())
    assert run.history() == whole.history()
