"""What is kept while a network trains: the history and the best network."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from pipeline.config import ModelConfig, TrainConfig
from pipeline.files import write_whole
from pipeline.models.checkpoint import save_network
from pipeline.tracking.tracker import Tracker
from pipeline.training.task import SegmentationTask

COLUMNS = ("iteration", "learning_rate", "train_loss", "val_miou", "val_pixel_accuracy")


class History(Callback):
    """One row a validation in history.csv, the same figures in MLflow, one line on the screen.

    Args:
        path: of history.csv.
        iterations: of the whole training, all phases.
        phase: its schedule.
        tracker: of the run's row.
        before: the phase before; its rows are gone on with.
    """

    def __init__(
        self,
        path: Path,
        iterations: int,
        phase: TrainConfig,
        tracker: Tracker,
        before: "History | None" = None,
    ) -> None:
        self.path = path
        self.iterations = iterations
        self.phase = phase
        self.tracker = tracker
        self.rows: list[dict[str, float]] = [] if before is None else list(before.rows)
        #: Iterations done, those of the phases before included.
        self.iteration: int = 0 if before is None else before.iteration
        #: Iterations of the phases before.
        self.offset = self.iteration
        self._started = time.monotonic()
        self._first = self.iteration
        #: The learning rate of the step that was done last: Lightning has the next one's already.
        self.rate = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the time left."""
        self._started, self._first = time.monotonic(), self.iteration
        trainer.should_stop = self.is_patience_over()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the learning rate of this step."""
        self.rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the loss about a hundred times a training."""
        iteration = self.offset + trainer.global_step
        stepped, self.iteration = iteration > self.iteration, iteration
        if stepped and trainer.is_global_zero and iteration % max(1, self.iterations // 100) == 0:
            values = {"train/loss": float(outputs["loss"]), "train/learning_rate": self.rate}
            self.tracker.points({k: v for k, v in values.items() if math.isfinite(v)}, iteration)
        self.tracker.send()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row, unless this iteration has one."""
        task, iteration = pl_module, self.iteration
        if not isinstance(task, SegmentationTask):
            raise TypeError("History follows a SegmentationTask")
        if self.has_row():
            return
        row = {
            "iteration": iteration,
            "learning_rate": self.rate,
            "train_loss": task.mean_loss(),
            "val_miou": task.matrix.miou(),
            "val_pixel_accuracy": task.matrix.pixel_accuracy(),
        }
        self.rows.append(row)
        if trainer.state.fn == "fit":
            trainer.should_stop = self.is_patience_over()
        if not trainer.is_global_zero:
            return
        self.write()
        names = ("val_miou", "val_pixel_accuracy")
        metrics = {name.replace("val_", "val/"): row[name] for name in names}
        self.tracker.points({k: v for k, v in metrics.items() if math.isfinite(v)}, iteration)
        loss = f"loss {row['train_loss']:.3f}  " if math.isfinite(row["train_loss"]) else ""
        print(
            f"iteration {iteration}/{self.iterations}  {loss}val mIoU {row['val_miou']:.2f}  "
            f"{self._time_left(iteration)}",
            flush=True,
        )

    def has_row(self) -> bool:
        """Whether the network has been validated as it is."""
        return bool(self.rows) and self.rows[-1]["iteration"] >= self.iteration

    def validation_is_due(self) -> bool:
        """Whether a validation belongs here, in the middle of a phase, that is not done yet."""
        done = self.iteration - self.offset
        return done > 0 and done % self.phase.validate_every == 0 and not self.has_row()

    def is_patience_over(self) -> bool:
        """Whether the last `train.patience` validations of the phase were no better than before."""
        patience = self.phase.patience
        figures = [row["val_miou"] for row in self.rows if row["iteration"] > self.offset]
        figures = [-math.inf if math.isnan(figure) else figure for figure in figures]
        if patience is None or len(figures) <= patience:
            return False
        return max(figures[-patience:]) <= max(figures[:-patience])

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
        own = ("rows", "iteration", "offset", "rate")
        return {name: getattr(self, name) for name in own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows, and where they end."""
        self.rows = list(state_dict["rows"])
        self.iteration, self.offset = state_dict["iteration"], state_dict["offset"]
        self.rate = state_dict["rate"]


class KeepNetwork(Callback):
    """model.ckpt: the network of the best validation, or the last.

    Args:
        path: of model.ckpt.
        keep: `best` or `last`.
        model: what the network was built with.
        about: what else the file says, such as classes and signature.
        history: before this in the trainer's list; it knows the iteration.
    """

    def __init__(
        self,
        path: Path,
        keep: str,
        model: ModelConfig,
        about: dict[str, Any],
        history: History,
    ) -> None:
        self.path = path
        self.keep = keep
        self.model = model
        self.about = about
        self.history = history
        self.best: float | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file if this is the network to keep."""
        task = pl_module
        if not trainer.is_global_zero or not isinstance(task, SegmentationTask):
            return
        miou = task.matrix.miou()
        miou = miou if math.isfinite(miou) else -math.inf
        better = self.best is None or miou > self.best or not self.path.exists()
        if self.keep == "best" and not better:
            return
        self.best = miou if self.best is None else max(self.best, miou)
        found = {"iteration": self.history.iteration, "val_miou": task.matrix.miou()}
        save_network(self.path, task.evaluated, self.model, self.about | found)

    def state_dict(self) -> dict[str, Any]:
        """The best figure so far; None before the phase's first."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best figure."""
        self.best = state_dict["best"]
