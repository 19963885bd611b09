"""last.ckpt: the state from which a stopped training goes on, to the same weights bit for bit.

It is written beside its place, brought to the disk, and renamed; the one before is kept as
previous.ckpt. A finished training leaves neither: they are twice as large as its network.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from pipeline.training.callbacks import History
from pipeline.training.stopping import Stopped, StopSignal
from pipeline.training.task import SegmentationTask

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"

#: Several processes agree on whether to save after every so many steps: it costs a message.
AGREE_EVERY = 8


class LastState(Callback):
    """Saves every few minutes, when training is told to stop, and at its end.

    Args:
        folder: the run's.
        about: stamped on the checkpoint: signature, phase, offset.
        history: the phase's; it knows which validations are done.
        minutes: between two checkpoints.
        stop: the signal to look for.
    """

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        history: History,
        minutes: float,
        stop: StopSignal,
    ) -> None:
        self.folder = folder
        self.about = about
        self.history = history
        self.minutes = minutes
        self.stop = stop
        self._saved_at = time.monotonic()
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the validation during which the last process ended, if it was one."""
        self.stop.listen()
        self._saved_at, self._step = time.monotonic(), trainer.global_step
        if self.history.validation_is_due():
            loop = trainer.fit_loop.epoch_loop.val_loop
            # Lightning would go on in its middle, without the images before.
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hear signals in a validation after the training too."""
        self.stop.listen()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time; with accumulated gradients, only between two steps of the weights."""
        step, before = trainer.global_step, self._step
        self._step = step
        if step > before and (trainer.world_size == 1 or step % AGREE_EVERY == 0):
            self._save_if_due(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop in a long validation too; several processes have not the same number of images."""
        if self.stop.received and trainer.world_size == 1:
            if trainer.state.fn == "fit":
                self.save(trainer)
            self._leave()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        if trainer.state.fn == "fit":
            self._save_if_due(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of a phase is always kept."""
        self.save(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        due = bool(self.stop.received) or time.monotonic() - self._saved_at >= 60 * self.minutes
        if not _any(trainer, due):
            return
        self.save(trainer)
        if _any(trainer, bool(self.stop.received)):
            self._leave()

    def _leave(self) -> None:
        by = self.stop.received or "a signal to another process"
        raise Stopped(
            f"{self.folder}: stopped by {by} at iteration {self.history.iteration}; its state is "
            "saved, and the same command goes on from it"
        )

    def save(self, trainer: Trainer) -> None:
        """Write last.ckpt, and keep the one before; all processes take part."""
        beside = self.folder / f"{LAST}.partial"
        try:
            trainer.save_checkpoint(beside)
            if trainer.is_global_zero:
                self._put(beside)
        except OSError:
            beside.unlink(missing_ok=True)  # room for what else has to be written
            raise
        self._saved_at = time.monotonic()

    def _put(self, beside: Path) -> None:
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        last = self.folder / LAST
        if last.exists():
            os.replace(last, self.folder / PREVIOUS)
        os.replace(beside, last)
        sync_folder(self.folder)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stamp it, and add the losses since the last validation: the history has their mean."""
        checkpoint.update(self.about)
        losses = _task(pl_module).losses
        checkpoint["losses"] = torch.stack(losses).cpu() if losses else torch.empty(0)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up the losses."""
        task = _task(pl_module)
        task.losses[:] = checkpoint["losses"].to(trainer.strategy.root_device).unbind()


class RandomNumbers(Callback):
    """Dropout's random numbers depend on the seed, the step and the process alone.

    So a training goes on in its middle without a generator's state, whatever was drawn before.

    Args:
        seed: of the phase.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of all devices."""
        numbers = np.random.SeedSequence((self.seed, batch_idx, trainer.global_rank))
        torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0]))


def forget_state(folder: Path) -> None:
    """Remove what a finished training would have gone on from."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring renamed files' names to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _any(trainer: Trainer, decision: bool) -> bool:
    """Whether one of the processes says so."""
    if trainer.world_size == 1:
        return decision
    return trainer.strategy.reduce_boolean_decision(decision, all=False)


def _task(module: LightningModule) -> SegmentationTask:
    if not isinstance(module, SegmentationTask):
        raise TypeError("the state is a SegmentationTask's")
    return module
