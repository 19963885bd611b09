"""Small networks that stand for trained ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pixelwise(nn.Module):
    """Class scores from each pixel alone: what is around, padding included, cannot matter."""

    input_mean: Tensor
    output_stride = 8
    align_corners = True

    def __init__(self, classes: int = 4, every: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("input_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        #: Pixels from one position of the scores to the next.
        self.every = every
        self.score = nn.Conv2d(3, classes, 1)
        self.sizes: list[tuple[int, int]] = []

    def scores(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[-2], images.shape[-1]))
        return self.score(images[..., :: self.every, :: self.every])


class Strided(Pixelwise):
    """Scores at stride 8 from what is around, as a segmentation network's."""

    def __init__(self, classes: int = 4, align_corners: bool = True) -> None:
        super().__init__(classes)
        self.score = nn.Conv2d(3, classes, 3, stride=self.output_stride, padding=1)
        self.align_corners = align_corners

    def scores(self, images: Tensor) -> Tensor:
        return super().scores(images - self.input_mean)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of every pixel, as a network gives them by itself."""
        size = list(images.shape[-2:])
        return F.interpolate(
            self.scores(images), size, mode="bilinear", align_corners=self.align_corners
        )


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Noise, 3 x H x W in [0, 1]."""
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))
