"""What one training and one validation step do."""

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from pipeline.config import TrainConfig
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.whole_image import probabilities
from pipeline.models.network import SegmentationNetwork
from pipeline.training.losses import total_loss
from pipeline.training.parameters import parameter_groups
from pipeline.training.schedule import schedule


class SegmentationTask(LightningModule):
    """Pixel-wise cross-entropy, SGD with momentum, a learning rate that follows a policy.

    Args:
        network: images in [0, 1] to logits.
        config: the schedule.
        num_classes: without void.
    """

    def __init__(self, network: SegmentationNetwork, config: TrainConfig, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.num_classes = num_classes
        self.matrix = ConfusionMatrix(num_classes)
        #: The mean training loss since the last validation, for the history.
        self.losses: list[Tensor] = []
        self.train()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Images B x 3 x c x c and labels B x c x c to the total loss."""
        images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        loss = total_loss(self.network, self.network.outputs(images), labels, self.config)
        self.losses.append(loss.detach())
        self.log("train/loss", loss, prog_bar=True, logger=False)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.matrix = ConfusionMatrix(self.num_classes)

    def validation_step(self, batch: tuple[Tensor, Tensor, str], _: int) -> None:
        """A whole image, 3 x H x W, scored at its own size, single scale."""
        image, label, identifier = batch
        scores = probabilities(self.network, image)
        self.matrix.update(label, scores.argmax(0), source=identifier)

    def on_validation_epoch_end(self) -> None:
        """One confusion matrix over the whole split, summed over the processes."""
        if self.trainer.world_size > 1:
            counts = torch.as_tensor(self.matrix.counts, device=self.device)
            total = self.trainer.strategy.reduce(counts, reduce_op="sum")
            self.matrix.counts = torch.as_tensor(total).cpu().numpy()
        self.log("val/miou", self.matrix.miou(), prog_bar=True, logger=False, rank_zero_only=True)

    def mean_loss(self) -> float:
        """The mean loss since this was last asked; NaN before the first iteration."""
        mean = torch.stack(self.losses).mean().item() if self.losses else float("nan")
        self.losses.clear()
        return mean

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with momentum over the configured groups, with the configured policy by iteration."""
        groups = parameter_groups(self.network, self.config)
        optimizer = SGD(groups, momentum=self.config.momentum)
        policy = LambdaLR(optimizer, schedule(self.config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": policy, "interval": "step"},
        }

    def train(self, mode: bool = True) -> "SegmentationTask":
        """Training mode; frozen batch norm stays frozen."""
        super().train(mode)
        if mode and self.config.freeze_batch_norm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self
