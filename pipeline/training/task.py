"""What one training and one validation step do."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from pipeline.config import TrainConfig
from pipeline.errors import UserError
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.passes import labels_of
from pipeline.inference.whole_image import probabilities
from pipeline.models.network import SegmentationNetwork
from pipeline.models.remade import remade
from pipeline.training import batch_norm
from pipeline.training.averaging import WeightAverage
from pipeline.training.losses import GlobalBatch, SegmentationLoss
from pipeline.training.parameters import parameter_groups
from pipeline.training.processes import (
    process_count,
    sum_over_processes,
    take_first_process_values,
)
from pipeline.training.schedule import schedule


class SegmentationTask(LightningModule):
    """Pixel-wise cross-entropy, SGD with momentum, a learning rate that follows a policy.

    A step is written out here (Lightning's "manual optimization"): the loss of a part of the batch
    needs to know how many pixels count in all of it.

    Args:
        network: images in [0, 1] to logits.
        config: the schedule.
        num_classes: without void.
        class_weights: of each class in the loss; None: all 1.
        compiled: whether training runs the network through `torch.compile`.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        config: TrainConfig,
        num_classes: int,
        *,
        class_weights: Sequence[float] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.config = config
        self.num_classes = num_classes
        self.loss = SegmentationLoss(config, class_weights)
        batch_norm.set_momentum(network, config.batch_norm_momentum)
        decay = config.ema_decay
        self.average = None if decay is None else WeightAverage(network, decay)
        self.matrix = ConfusionMatrix(num_classes)
        #: The training loss of each step since the last validation, for the history.
        self.losses: list[Tensor] = []
        self._outputs = torch.compile(network.outputs) if compiled else network.outputs
        #: The compiler decides by itself what is kept for backward.
        self._memory = nullcontext if compiled else remade
        self.train()

    @property
    def evaluated(self) -> SegmentationNetwork:
        """The network that is validated and kept: of the averaged weights, where there are any."""
        return self.network if self.average is None else self.average.network

    def configure_model(self) -> None:
        """See how a batch is shared out, and have batch norm look at all of it.

        Raises:
            UserError: a process's share of a batch cannot be cut into `train.accumulate` parts.
        """
        processes, config = self.trainer.world_size, self.config
        if self.trainer.state.fn == "fit" and config.batch_size % (processes * config.accumulate):
            raise UserError(
                f"train.batch_size={config.batch_size}: must be a multiple of the {processes} "
                f"process(es) times train.accumulate={config.accumulate}"
            )
        if processes > 1 and config.sync_batch_norm and not config.freeze_batch_norm:
            batch_norm.synchronise(self.network, self.trainer.strategy.root_device)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """One change of the weights: images B x 3 x c x c, labels B x c x c.

        Returns:
            The loss of the global batch, the same on every process.
        """
        images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        whole = GlobalBatch(labels, self.loss)
        parts = list(
            zip(*(one.chunk(self.config.accumulate) for one in (images, labels)), strict=True)
        )
        total = torch.zeros((), device=self.device)
        for number, (some_images, their_labels) in enumerate(parts, start=1):
            with self._memory():
                outputs = self._outputs(some_images)
            loss = self.loss(self.network, outputs, their_labels, whole)
            with self._gradients_stay(number < len(parts)):
                self.manual_backward(loss)
            total += loss.detach()
        optimizer.step()
        cast(LambdaLR, self.lr_schedulers()).step()
        if self.average is not None:
            self.average.update(self.network, self.trainer.global_step)
        total = sum_over_processes(total) / process_count()
        self.losses.append(total)
        self.log("train/loss", total, prog_bar=True, logger=False)
        return total

    def _gradients_stay(self, stay: bool) -> AbstractContextManager[None]:
        """Before the last part, no process asks the others for their gradients."""
        strategy = self.trainer.strategy
        if stay and isinstance(strategy, ParallelStrategy):
            return cast(AbstractContextManager[None], strategy.block_backward_sync())
        return nullcontext()

    def on_validation_epoch_start(self) -> None:
        """Count anew; every process validates the network that the first one keeps."""
        self.matrix = ConfusionMatrix(self.num_classes)
        take_first_process_values(self.evaluated.buffers())

    def validation_step(self, batch: tuple[Tensor, Tensor, str], _: int) -> None:
        """A whole image, 3 x H x W, scored at its own size, single scale."""
        image, label, identifier = batch
        scores = probabilities(self.evaluated, image)
        self.matrix.update(label, labels_of(scores), source=identifier)

    def on_validation_epoch_end(self) -> None:
        """One confusion matrix over the whole split, summed over the processes."""
        if process_count() > 1:
            counts = torch.as_tensor(self.matrix.counts, device=self.device)
            self.matrix.counts = sum_over_processes(counts).cpu().numpy()
        self.log("val/miou", self.matrix.miou(), prog_bar=True, logger=False, rank_zero_only=True)

    def mean_loss(self) -> float:
        """The mean loss since this was last asked; NaN before the first iteration."""
        mean = torch.stack(self.losses).mean().item() if self.losses else float("nan")
        self.losses.clear()
        return mean

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with momentum over the configured groups, with the configured policy by iteration."""
        groups = parameter_groups(self.network, self.config)
        optimizer = SGD(groups, momentum=self.config.momentum, fused=True)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule(self.config))},
        }

    def train(self, mode: bool = True) -> "SegmentationTask":
        """Training mode; frozen batch norm stays frozen."""
        super().train(mode)
        if mode and self.config.freeze_batch_norm:
            batch_norm.freeze(self.network)
        return self
