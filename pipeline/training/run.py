"""Train one variant in its folder, from its start or from where it was stopped."""

import contextlib
import dataclasses
import importlib.metadata
import logging
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import seed_everything
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from pipeline.config import Config
from pipeline.datasets.datamodule import images_of_a_pass
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.files import write_json, write_whole
from pipeline.inference.measure import device_name
from pipeline.models.network import build_model
from pipeline.models.weights import load_weights
from pipeline.paths import RUNS
from pipeline.tracking.machine import watched
from pipeline.tracking.naming import sweep, swept_params, tags
from pipeline.tracking.publish import dashboard_of
from pipeline.tracking.tracker import Tracker, deliver
from pipeline.training.fit import Run, fit
from pipeline.training.phases import phases
from pipeline.training.rescue import clear, differences, is_finished, state_of, unfinished
from pipeline.training.signature import RELEVANT, Identity, identify
from pipeline.training.state import forget_state
from pipeline.training.stopping import Stopped
from pipeline.training.twin import find_twin, take_over

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "dvc", "mlflow")


def train_run(config: Config, folder: Path, prepared: Path) -> None:
    """Train, and leave model.ckpt, config.yaml, run.json and history.csv.

    Args:
        config: checked.
        folder: the run's; what another signature left there is not resumed.
        prepared: the training-ready set.

    Raises:
        UserError: the data is missing, the weights do not fit, the loss is no number, the memory
            is too small.
        Stopped: it was told to stop; the same call goes on.
    """
    quiet()
    data = load_prepared(prepared)
    for phase in phases(config):
        images_of_a_pass(data, phase.train)  # a wrong split or class ends before the run opens
    identity = identify(config, data.digest)
    # Lightning starts the other processes by this same command: only the first one writes.
    first = is_first()
    folder.mkdir(parents=True, exist_ok=True)
    if is_finished(folder, identity):
        if first:
            # Its process may have ended before DVC heard of it.
            print(f"{folder}: trained already; delete it to train it again", flush=True)
            _write_config(config, folder)
            forget_state(folder)
            deliver(folder, config.dataset, config.variant or folder.name)
        return
    record = unfinished(folder, identity)
    if first and record is None:
        _say_why(folder, config, identity)
        clear(folder)
    if record is None and folder.parent == RUNS:
        if twin := find_twin(config, folder, identity.signature):
            if first:
                _learn_from(twin, config, folder, data, identity)
            return
    state = None if record is None else state_of(folder, identity, say=first)
    if first and record is not None:
        done = 0 if state is None else state.offset + state.step
        print(f"resuming {folder} at iteration {done}", flush=True)
    seed_everything(config.seed, workers=True, verbose=False)
    network = build_model(config.model, len(data.classes))
    report = load_weights(network, config.model)

    record = (record or {"seconds": 0.0}) | {
        "weights": report.summary(),
        "weights_sha256": report.sha256,
    }
    tracker = _open_row(config, folder, data, identity, record) if first else Tracker.off()
    if first:
        print(f"weights: {report.summary()}", flush=True)
    started = time.monotonic()
    try:
        with watched(tracker) if first else contextlib.nullcontext():
            fit(Run(config, folder, data, tracker, identity.signature), network, state)
    except BaseException as error:
        record["seconds"] += time.monotonic() - started
        if first:
            _close_unfinished(folder, record, tracker, error)
        elif isinstance(error, Stopped):
            return  # the first process says it, once
        raise
    if first:
        record["seconds"] += time.monotonic() - started
        _close(folder, record, tracker)
        if folder.parent != RUNS and (page := dashboard_of(tracker.run_id)):
            print(f"dashboard: {page}", flush=True)


def _say_why(folder: Path, config: Config, identity: Identity) -> None:
    """Why what lies in the folder is not gone on with, where there is something."""
    found = differences(folder, config, identity)
    if found:
        print(
            f"{folder} holds a run of other settings, data or code ({'; '.join(found)}): "
            "starting anew",
            flush=True,
        )


def _close(folder: Path, record: dict[str, Any], tracker: Tracker) -> None:
    """Declare the run finished, and its row."""
    tracker.finish()
    write_json(folder / "run.json", record | {"run_id": tracker.run_id, "finished": True})
    forget_state(folder)


def _close_unfinished(
    folder: Path, record: dict[str, Any], tracker: Tracker, error: BaseException
) -> None:
    """Mark the run as failed, or as stopped, as far as a full disk lets it."""
    stopped = isinstance(error, (Stopped, KeyboardInterrupt))
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    ending = record | {"stopped" if stopped else "failed": said}
    # A node that is taken away may not wait for the row: the first line is for it.
    with contextlib.suppress(OSError):
        write_json(folder / "run.json", ending | {"run_id": tracker.run_id})
    with contextlib.suppress(OSError):
        tracker.finish("KILLED" if stopped else "FAILED")
    with contextlib.suppress(OSError):
        write_json(folder / "run.json", ending | {"run_id": tracker.run_id})


def _learn_from(
    twin: Path, config: Config, folder: Path, data: Prepared, identity: Identity
) -> None:
    """Take over the training of a variant that differs only in its evaluation."""
    print(f"{folder.name}: the same training as {twin.name}, taken over from there", flush=True)
    record = {"seconds": 0.0, "twin": twin.name}
    tracker = _open_row(config, folder, data, identity, record)
    for row in take_over(twin, folder):
        values = {
            key.replace("val_", "val/"): row[key] for key in ("val_miou", "val_pixel_accuracy")
        }
        tracker.points({k: float(v) for k, v in values.items() if v}, int(row["iteration"]))
    _close(folder, record, tracker)


def _open_row(
    config: Config, folder: Path, data: Prepared, identity: Identity, record: dict[str, Any]
) -> Tracker:
    """Open the run's row in MLflow, and write down what the run is before it starts."""
    for ended in ("failed", "stopped"):
        record.pop(ended, None)
    values = dataclasses.asdict(config)
    record |= {**identity._asdict(), "finished": False, **_environment(config)}
    record |= {"settings": {key: values[key] for key in RELEVANT}}
    _write_config(config, folder)
    write_json(folder / "run.json", record)
    tracker = Tracker(config.dataset, config.variant or folder.name, record.get("run_id"), folder)
    tracker.params(swept_params(config))
    tracker.tags(tags(config, identity.signature, data.digest) | sweep(folder))
    tracker.dataset(config.dataset, data.digest)
    tracker.artifact(folder / "config.yaml")
    return tracker


def _write_config(config: Config, folder: Path) -> None:
    values = dataclasses.asdict(config)
    write_whole(folder / "config.yaml", yaml.safe_dump(values, sort_keys=False))


def is_first() -> bool:
    """Whether this is the first of a run's processes (Lightning reads it from the environment)."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _environment(config: Config) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    on_gpu = config.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    device = device_name(torch.device("cuda" if on_gpu else "cpu"))
    return {"versions": {"python": platform.python_version(), **versions}, "device": device}


def quiet() -> None:
    """Leave out what Lightning says about itself at each start."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # The report that `trainer.profiler` asks for.
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
