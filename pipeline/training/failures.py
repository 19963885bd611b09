"""How a training fails, each in one line: no finite loss, too little memory, a lost process."""

import copy
import math
import re
import resource
from collections import deque
from typing import Any, NamedTuple, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.datasets.datamodule import SegmentationData, ViewSampler
from pipeline.errors import UserError
from pipeline.training.callbacks import History

GIB = 1024**3

#: Steps that a GPU may be ahead of what was looked at.
LAG = 2


class _Step(NamedTuple):
    """A loss on its way from the device, and which step it is of."""

    loss: Tensor
    copied: torch.cuda.Event | None
    iteration: int
    batch: int
    rate: float


class FiniteLoss(Callback):
    """Ends the run at the first loss that is no number, with the step and its images.

    A GPU is not waited for: its losses are copied in passing and looked at when they have come, at
    most two steps later, and before anything is saved.

    Args:
        loaders: the phase's; they know which images a batch shows.
        history: before this in the trainer's list.
    """

    def __init__(self, loaders: SegmentationData, history: History) -> None:
        self.loaders = loaders
        self.history = history
        self._steps: deque[_Step] = deque()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Send this step's loss off, and look at those that have come."""
        loss = outputs["loss"].detach()
        copied = None
        if loss.is_cuda:
            there = torch.empty((), dtype=loss.dtype, pin_memory=True)
            loss = there.copy_(loss, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        done = self.history
        self._steps.append(_Step(loss, copied, done.iteration, batch_idx, done.rate))
        while self._steps and (
            len(self._steps) > LAG or (first := self._steps[0].copied) is None or first.query()
        ):
            self._look(trainer, self._steps.popleft())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is validated before all losses are seen."""
        self._look_at_all(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Nothing is saved before all losses are seen."""
        self._look_at_all(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last steps too."""
        self._look_at_all(trainer)

    def _look_at_all(self, trainer: Trainer) -> None:
        while self._steps:
            self._look(trainer, self._steps.popleft())

    def _look(self, trainer: Trainer, step: _Step) -> None:
        if step.copied is not None:
            step.copied.synchronize()
        loss = float(step.loss)
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at iteration {step.iteration} (learning rate {step.rate:.3g}; "
                f"images {', '.join(self._images(trainer, step.batch))}); lower "
                "train.learning_rate, or look at these images"
            )

    def _images(self, trainer: Trainer, batch: int) -> list[str]:
        """The files that all processes' batches of a step show."""
        sampler = copy.copy(cast(ViewSampler, cast(Any, trainer.train_dataloader).batch_sampler))
        sampler.rank, sampler.processes, sampler.start = 0, 1, batch
        data = self.loaders.data
        ids = [self.loaders.training_ids[index] for _, index in next(iter(sampler))]
        return [data.image_path(id).name for id in dict.fromkeys(ids)]


#: What torch's allocators say, and oneDNN where it has no room for a kernel it would build.
NO_MEMORY = ("can't allocate memory", "out of memory", "could not create a primitive")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the device's or the machine's memory was too small."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    )


def out_of_memory(
    error: BaseException, train: TrainConfig, iteration: int, processes: int, fixed: int
) -> UserError:
    """The peak, and what would fit, in one line.

    Args:
        error: as it was raised.
        train: of the phase.
        iteration: that was being done.
        processes: among which a batch is shared.
        fixed: bytes that do not depend on the batch: weights, gradients and momentum.
    """
    mine = train.batch_size // processes
    asked = re.search(r"allocate (\d+) bytes|allocate ([\d.]+) (MiB|GiB)", str(error))
    more = f", {_gib(_bytes(asked)):.2f} GiB more were asked for" if asked else ""
    if isinstance(error, torch.OutOfMemoryError) and torch.cuda.is_available():
        peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
        place = f"the GPU has {_gib(total):.1f} GiB"
        fits = _largest(mine, fixed, peak + (_bytes(asked) if asked else 0), total)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        place, fits = "the processor's", 0
    batch = f"train.batch_size={train.batch_size}"
    if fits:
        batch += f" (by what it took, at most {fits * processes} can fit)"
    return UserError(
        f"out of memory at iteration {iteration}: the peak was {_gib(peak):.2f} GiB, {place}"
        f"{more}; raise train.accumulate={train.accumulate}, lower {batch} or train.crop_size="
        f"{train.crop_size}, or take a coarser model.output_stride or train.precision=bf16-mixed"
    )


def lost_a_process(error: BaseException) -> bool:
    """Whether another process of the training is gone, as gloo and NCCL report it."""
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    closed = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")
    return isinstance(error, torch.distributed.DistError) or (
        "gloo" in said and any(words in said for words in closed)
    )


def lost_process(error: BaseException, iteration: int) -> UserError:
    """What to look at, in one line.

    Args:
        error: as it was raised.
        iteration: that was being done.
    """
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"another process of this training ended, or is out of reach, at iteration {iteration}: "
        f"its own output says why; the same command goes on from the last checkpoint ({said})"
    )


def _largest(batch: int, fixed: int, needed: int, total: int) -> int:
    """The largest batch that can fit, where the given one needed at least so much."""
    an_image = max(needed - fixed, 1) / batch
    return max(0, min(batch - 1, int((total - fixed) / an_image)))


def _bytes(asked: re.Match[str]) -> int:
    exact, amount, unit = asked.groups()
    return int(exact) if exact else int(float(amount) * (GIB if unit == "GiB" else GIB / 1024))


def _gib(count: float) -> float:
    return count / GIB
