"""What is kept while a network trains: the history, the best network, the last state."""

import csv
import io
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.models.checkpoint import save_network
from pipeline.tracking.tracker import Tracker
from pipeline.training.task import SegmentationTask

COLUMNS = ("iteration", "learning_rate", "train_loss", "val_miou", "val_pixel_accuracy")


class History(Callback):
    """One row a validation in history.csv, the same figures in MLflow, one line on the screen.

    Args:
        path: of history.csv.
        iterations: of the whole training.
        tracker: of the run's row.
    """

    def __init__(self, path: Path, iterations: int, tracker: Tracker) -> None:
        self.path = path
        self.iterations = iterations
        self.tracker = tracker
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._first = 0
        self._rate = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the time left."""
        self._started, self._first = time.monotonic(), trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the learning rate of this step: at the end of it, it is already the next one's."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """About a hundred times a training: log the loss; a loss that is no number ends it."""
        if trainer.global_step % max(1, self.iterations // 100):
            return
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at iteration {trainer.global_step} (learning rate "
                f"{self._rate:.3g}); lower train.learning_rate"
            )
        if trainer.is_global_zero:
            values = {"train/loss": loss, "train/learning_rate": self._rate}
            self.tracker.metrics(values, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row, unless this iteration has one."""
        task, iteration = pl_module, trainer.global_step
        if not isinstance(task, SegmentationTask):
            raise TypeError("History follows a SegmentationTask")
        if self.rows and self.rows[-1]["iteration"] >= iteration:
            return
        row = {
            "iteration": iteration,
            "learning_rate": self._rate,
            "train_loss": task.mean_loss(),
            "val_miou": task.matrix.miou(),
            "val_pixel_accuracy": task.matrix.pixel_accuracy(),
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        self.write()
        names = ("val_miou", "val_pixel_accuracy")
        metrics = {name.replace("val_", "val/"): row[name] for name in names}
        self.tracker.metrics({k: v for k, v in metrics.items() if math.isfinite(v)}, iteration)
        loss = f"loss {row['train_loss']:.3f}  " if math.isfinite(row["train_loss"]) else ""
        print(
            f"iteration {iteration}/{self.iterations}  {loss}val mIoU {row['val_miou']:.2f}  "
            f"{self._time_left(iteration)}",
            flush=True,
        )

    def write(self) -> None:
        """Write history.csv whole; figures that do not exist are empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: "" if math.isnan(v) else v for k, v in row.items()})
        write_whole(self.path, text.getvalue())

    def _time_left(self, iteration: int) -> str:
        done = iteration - self._first
        if done <= 0 or iteration >= self.iterations:
            return ""
        seconds = (time.monotonic() - self._started) / done * (self.iterations - iteration)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def state_dict(self) -> dict[str, Any]:
        """The rows travel with the checkpoint, so that a resumed history has no gap and no echo."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows."""
        self.rows = list(state_dict["rows"])


class KeepNetwork(Callback):
    """model.ckpt: the network of the best validation, or the last.

    Args:
        path: of model.ckpt.
        keep: `best` or `last`.
        model: what the network was built with.
        about: what else the file says, such as classes and signature.
    """

    def __init__(self, path: Path, keep: str, model: ModelConfig, about: dict[str, Any]) -> None:
        self.path = path
        self.keep = keep
        self.model = model
        self.about = about
        self.best = -math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file if this is the network to keep."""
        task = pl_module
        if not trainer.is_global_zero or not isinstance(task, SegmentationTask):
            return
        miou = task.matrix.miou()
        if self.keep == "best" and not miou > self.best and self.path.exists():
            return
        self.best = max(self.best, miou) if math.isfinite(miou) else self.best
        found = {"iteration": trainer.global_step, "val_miou": miou}
        save_network(self.path, task.network, self.model, self.about | found)

    def state_dict(self) -> dict[str, Any]:
        """The best figure so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best figure."""
        self.best = state_dict["best"]


class LastState(Callback):
    """last.ckpt, from which a run goes on; written beside and renamed after each validation.

    Args:
        path: of last.ckpt.
        signature: stamped on it.
    """

    def __init__(self, path: Path, signature: str) -> None:
        self.path = path
        self.signature = signature
        self._random_state: Tensor | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save everything; after the training, only if there was none."""
        if trainer.state.fn != "fit" and self.path.exists():
            return
        beside = self.path.with_name(f"{self.path.name}.partial")
        trainer.save_checkpoint(beside)
        if trainer.is_global_zero:
            os.replace(beside, self.path)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the random numbers (dropout's) where they stopped."""
        if self._random_state is not None:
            torch.set_rng_state(self._random_state)

    def state_dict(self) -> dict[str, Any]:
        """The random numbers' state."""
        return {"random_state": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._random_state = state_dict["random_state"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stamp the signature."""
        checkpoint["signature"] = self.signature
