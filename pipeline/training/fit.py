"""The training itself: each phase is one fit of Lightning, from its start or from a saved state."""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar

from pipeline.config import Config, TrainConfig
from pipeline.datasets.datamodule import SegmentationData
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.memory import keep_freed_memory
from pipeline.models.depthwise import learns_wrong_on_a_processor
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.models.processor import warn_without_bfloat16
from pipeline.paths import DECODED
from pipeline.tracking.tracker import Tracker
from pipeline.training.callbacks import History, KeepNetwork
from pipeline.training.class_weights import class_weights
from pipeline.training.failures import (
    FiniteLoss,
    lost_a_process,
    lost_process,
    out_of_memory,
    ran_out_of_memory,
)
from pipeline.training.phases import Phase, phases, rebuilt
from pipeline.training.rescue import State
from pipeline.training.state import LastState, RandomNumbers
from pipeline.training.stopping import StopSignal
from pipeline.training.task import SegmentationTask


class Run(NamedTuple):
    """What every phase of a run shares.

    Attributes:
        config: of the run.
        folder: of the run.
        data: the training-ready set.
        tracker: of the run's row.
        signature: stamped on what is saved.
    """

    config: Config
    folder: Path
    data: Prepared
    tracker: Tracker
    signature: str


def fit(run: Run, network: SegmentationNetwork, state: State | None) -> None:
    """Train through all phases.

    Args:
        run: what it is about.
        network: with its initial weights, built for the first phase.
        state: to go on from; None: from the start.

    Raises:
        Stopped: it was told to stop; everything is saved.
        UserError: the loss is no number, or the memory too small.
    """
    classes = len(run.data.classes)
    total = sum(phase.train.iterations for phase in phases(run.config))
    history: History | None = None
    with StopSignal() as stop:
        for phase in phases(run.config):
            if state is not None and phase.number < state.phase:
                continue
            if history is not None:
                network = rebuilt(network, phase, classes)
            elif phase.number:
                network = build_model(phase.model, classes)  # its weights are in the state
            history = History(
                run.folder / "history.csv", total, phase.train, run.tracker, before=history
            )
            network = _fit_phase(run, phase, network, history, state, stop)
            state = None


def _fit_phase(
    run: Run,
    phase: Phase,
    network: SegmentationNetwork,
    history: History,
    state: State | None,
    stop: StopSignal,
) -> SegmentationNetwork:
    """Train a phase; the network that the next one goes on with."""
    train = phase.train
    network.to(memory_format=torch.channels_last)
    settings = run.config.trainer
    task = SegmentationTask(
        network,
        train,
        len(run.data.classes),
        class_weights=class_weights(train, run.data),
        compiled=settings.compile,
    )
    mean = network.input_mean.flatten().tolist()
    loaders = SegmentationData(
        run.data,
        train,
        phase.seed,
        (mean[0], mean[1], mean[2]),
        settings.workers,
        0 if state is None else state.step,
        DECODED if settings.decoded else None,
    )
    network_of = {
        "classes": run.data.classes,
        "palette": run.data.palette,
        "signature": run.signature,
    }
    offset = history.iteration if state is None else state.offset
    about = {"signature": run.signature, "phase": phase.number, "offset": offset}
    callbacks: list[Callback] = [
        history,
        FiniteLoss(loaders, history),
        KeepNetwork(run.folder / "model.ckpt", train.keep, phase.model, network_of, history),
        RandomNumbers(phase.seed),
        LastState(run.folder, about, history, settings.save_minutes, stop),
    ]
    trainer = _trainer(run.config, train, callbacks)
    _check_precision(network, phase, trainer)
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    checkpoint = None if state is None else state.path
    try:
        if train.iterations > (0 if state is None else state.step):
            trainer.fit(task, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
            checkpoint = None
        if checkpoint is not None or not history.has_row():
            # The iterations after the last multiple of validate_every; or there was no training.
            trainer.validate(
                task, datamodule=loaders, ckpt_path=checkpoint, verbose=False, weights_only=True
            )
    except (RuntimeError, MemoryError) as error:
        if lost_a_process(error):
            raise lost_process(error, history.iteration + 1) from error
        if not ran_out_of_memory(error):
            raise
        fixed = 3 * sum(value.numel() * value.element_size() for value in network.parameters())
        raise out_of_memory(
            error, train, history.iteration + 1, trainer.world_size, fixed
        ) from error
    return task.evaluated


def _check_precision(network: SegmentationNetwork, phase: Phase, trainer: Trainer) -> None:
    """Refuse what the device cannot do, or what is known to learn from wrong gradients."""
    if phase.train.precision == "32-true" or trainer.strategy.root_device.type != "cpu":
        return
    if phase.train.precision == "16-mixed":
        raise UserError("train.precision=16-mixed: needs a GPU; a processor has bf16-mixed")
    if any(learns_wrong_on_a_processor(layer) for layer in network.modules()):
        raise UserError(
            f"train.precision={phase.train.precision}: on a processor, torch's gradients of "
            f"{phase.model.backbone}'s atrous depthwise convolutions are wrong in half precision; "
            "take 32-true"
        )
    if trainer.is_global_zero:
        setting = f"train.precision={phase.train.precision}"
        warn_without_bfloat16(setting, "32-true", trainer.strategy.root_device)


def _trainer(config: Config, train: TrainConfig, callbacks: list[Callback]) -> Trainer:
    settings = config.trainer
    bar = settings.progress_bar and sys.stdout.isatty()
    if bar:
        callbacks = [*callbacks, RichProgressBar(leave=False)]
    return Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        precision=train.precision,  # type: ignore[arg-type]
        # The loader's one pass is the whole phase.
        max_epochs=1,
        max_steps=train.iterations,
        val_check_interval=min(train.validate_every, max(train.iterations, 1)),
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
