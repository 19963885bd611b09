"""A trained network, ready for images of any size."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config import EvaluateConfig
from pipeline.errors import UserError
from pipeline.inference.crf import refine
from pipeline.inference.network import on_device
from pipeline.inference.passes import labels_of
from pipeline.inference.whole_image import probabilities
from pipeline.prediction.trained import Trained

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


class Predictor:
    """Images to probabilities and labels, on the first accelerator that is there.

    Args:
        trained: which network.
        accelerator: auto, cpu, gpu or mps.

    Raises:
        UserError: the checkpoint is damaged, or the accelerator is not there.
    """

    def __init__(self, trained: Trained, accelerator: str = "auto") -> None:
        self.trained = trained
        self.network, self.device = on_device(trained.network(), accelerator)

    def probabilities(self, image: Image, passes: EvaluateConfig) -> Tensor:
        """The softmax of an image at its own size, before the CRF.

        Args:
            image: uint8 RGB, H x W x 3.
            passes: of `Trained.passes`.

        Returns:
            C x H x W, float32, on the network's device.

        Raises:
            UserError: the network's scores are not finite.
        """
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).to(self.device).float() / 255
        maps = probabilities(self.network, pixels, passes)
        if not maps.isfinite().all():
            raise UserError(
                f"{self.trained.checkpoint}: the network's scores are not finite; its training "
                "diverged, train again with a lower train.learning_rate"
            )
        return maps

    def labels(self, image: Image, passes: EvaluateConfig, crf: bool = False) -> Labels:
        """The class number of every pixel of an image.

        Args:
            image: uint8 RGB, H x W x 3.
            passes: of `Trained.passes`.
            crf: refined by the CRF.

        Returns:
            uint8 H x W.

        Raises:
            UserError: the network's scores are not finite, or the CRF cannot work with its
                settings.
        """
        maps = self.probabilities(image, passes)
        if crf:
            return refine(image, maps.cpu().numpy(), self.trained.crf)
        return labels_of(maps).cpu().numpy()
