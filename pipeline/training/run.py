"""Train one variant in its folder, from its start or from where it was stopped."""

import dataclasses
import importlib.metadata
import json
import logging
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from pipeline.config import Config
from pipeline.datasets.datamodule import SegmentationData, images_of_a_pass
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.errors import UserError
from pipeline.files import write_json, write_whole
from pipeline.models.checkpoint import read_checkpoint
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.models.weights import load_weights
from pipeline.paths import DECODED, RUNS
from pipeline.tracking.naming import swept_params, tags
from pipeline.tracking.tracker import Tracker
from pipeline.training.callbacks import History, KeepNetwork, LastState
from pipeline.training.signature import signature
from pipeline.training.task import SegmentationTask
from pipeline.training.twin import find_twin, take_over

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "dvc", "mlflow")


def train_run(config: Config, folder: Path, prepared: Path) -> None:
    """Train, and leave model.ckpt, last.ckpt, config.yaml, run.json and history.csv.

    Args:
        config: checked.
        folder: the run's; what another signature left there is not resumed.
        prepared: the training-ready set.

    Raises:
        UserError: the data is missing, the weights do not fit, the loss is no number.
    """
    quiet()
    data = load_prepared(prepared)
    images_of_a_pass(data, config.train)  # a wrong split or class ends here, before the run opens
    stamp = signature(config, data.digest)
    # Lightning starts the other processes by this same command: only the first one writes.
    first = is_first()
    folder.mkdir(parents=True, exist_ok=True)
    record = unfinished(folder, stamp)
    resumed = record is not None
    if first and not resumed:
        clear(folder)
    if not resumed and folder.parent == RUNS and (twin := find_twin(config, folder, stamp)):
        if first:
            _learn_from(twin, config, folder, data, stamp)
        return
    seed_everything(config.seed, workers=True, verbose=False)
    network = build_model(config.model, len(data.classes))
    report = load_weights(network, config.model)

    record = record or {"signature": stamp, "data_digest": data.digest, "seconds": 0.0}
    record |= {"weights": report.summary(), "weights_sha256": report.sha256}
    tracker = _open_row(config, folder, data, record) if first else Tracker.off()
    if first:
        print(f"weights: {report.summary()}", flush=True)
    started = time.monotonic()
    try:
        _fit(config, folder, data, network, tracker, stamp, resumed)
    except BaseException:
        tracker.finish("FAILED")
        raise
    if first:
        record["seconds"] += time.monotonic() - started
        write_json(folder / "run.json", record | {"finished": True})
        tracker.finish()


def _learn_from(twin: Path, config: Config, folder: Path, data: Prepared, stamp: str) -> None:
    """Take over the training of a variant that differs only in its evaluation."""
    print(f"{folder.name}: the same training as {twin.name}, taken over from there", flush=True)
    record = {"signature": stamp, "data_digest": data.digest, "seconds": 0.0, "twin": twin.name}
    tracker = _open_row(config, folder, data, record)
    for row in take_over(twin, folder):
        values = {
            key.replace("val_", "val/"): row[key] for key in ("val_miou", "val_pixel_accuracy")
        }
        tracker.metrics({k: float(v) for k, v in values.items() if v}, int(row["iteration"]))
    write_json(folder / "run.json", record | {"finished": True})
    tracker.finish()


def _open_row(config: Config, folder: Path, data: Prepared, record: dict[str, Any]) -> Tracker:
    """Open the run's row in MLflow, and write down what the run is before it starts."""
    tracker = Tracker(config.dataset, config.variant or folder.name, record.get("run_id"))
    record |= {"run_id": tracker.run_id, "finished": False, **_environment(config)}
    values = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    write_whole(folder / "config.yaml", values)
    write_json(folder / "run.json", record)
    tracker.params(swept_params(config))
    tracker.tags(tags(config, record["signature"], data.digest))
    tracker.dataset(config.dataset, data.digest)
    tracker.artifact(folder / "config.yaml")
    return tracker


def unfinished(folder: Path, stamp: str) -> dict[str, Any] | None:
    """The record of a run of this signature that was stopped here; None: start anew.

    A finished run, or one of another signature, is not resumed.
    """
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text())
        saved = read_checkpoint(folder / "last.ckpt")
    except (OSError, ValueError, UserError):
        record, saved = {}, {}
    if saved.get("signature") == stamp == record.get("signature") and not record.get("finished"):
        if is_first():
            print(f"resuming {folder} at iteration {saved['global_step']}", flush=True)
        return record
    if record and record.get("signature") != stamp and is_first():
        print(f"{folder} holds a run of other settings, data or code: starting anew", flush=True)
    return None


def is_first() -> bool:
    """Whether this is the first of a run's processes (Lightning reads it from the environment)."""
    return getattr(rank_zero_only, "rank", 0) == 0


def clear(folder: Path) -> None:
    """Remove what an earlier run left: none of it may be taken for the new one's."""
    for name in ("model.ckpt", "last.ckpt", "history.csv", "run.json", "config.yaml"):
        (folder / name).unlink(missing_ok=True)


def _fit(
    config: Config,
    folder: Path,
    data: Prepared,
    network: SegmentationNetwork,
    tracker: Tracker,
    stamp: str,
    resumed: bool,
) -> None:
    train = config.train
    network.to(memory_format=torch.channels_last)
    task = SegmentationTask(network, train, len(data.classes))
    last = folder / "last.ckpt"
    start = int(read_checkpoint(last)["global_step"]) if resumed else 0
    mean = network.input_mean.flatten().tolist()
    fill = (mean[0], mean[1], mean[2])
    loaders = SegmentationData(
        data,
        train,
        config.seed,
        fill,
        config.trainer.workers,
        start,
        DECODED if config.trainer.decoded else None,
    )
    history = History(folder / "history.csv", train.iterations, tracker)
    about = {"classes": data.classes, "palette": data.palette, "signature": stamp}
    kept = KeepNetwork(folder / "model.ckpt", train.keep, config.model, about)
    trainer = _trainer(config, [history, kept, LastState(last, stamp)])
    if train.iterations > start:
        trainer.fit(
            task, datamodule=loaders, ckpt_path=last if resumed else None, weights_only=True
        )
    if not history.rows or history.rows[-1]["iteration"] < trainer.global_step:
        # The iterations after the last multiple of validate_every; or no training was asked for.
        trainer.validate(task, datamodule=loaders, verbose=False)


def _trainer(config: Config, callbacks: list[Callback]) -> Trainer:
    settings = config.trainer
    bar = settings.progress_bar and sys.stdout.isatty()
    if bar:
        callbacks = [*callbacks, RichProgressBar(leave=False)]
    return Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=config.train.precision,  # type: ignore[arg-type]
        # The loader's one pass is the whole training.
        max_epochs=1,
        max_steps=config.train.iterations,
        val_check_interval=min(config.train.validate_every, max(config.train.iterations, 1)),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        # The loaders share the images out themselves: Lightning's sampler pads with duplicates.
        use_distributed_sampler=False,
        callbacks=callbacks,
        fast_dev_run=settings.fast_dev_run,
        profiler=settings.profiler,
        enable_progress_bar=bar,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )


def _environment(config: Config) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    on_gpu = config.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    return {"versions": {"python": platform.python_version(), **versions}, "device": device}


def quiet() -> None:
    """Leave out what Lightning says about itself at each start."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
