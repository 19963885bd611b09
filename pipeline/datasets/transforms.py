"""The random augmentation of training: image and label moved together.

v2, section 4.1 (scale, crop, mirror) and v3, section 4 (scales 0.5 to 2.0, crop, flip), on
torchvision's transforms.
"""

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

#: Label of the pixels that are neither learned from nor scored.
VOID = 255


class TrainTransform:
    """Random scale, crop, mirror and, if asked for, photometric distortion.

    Every draw comes from torch's global generator: seed it, and the same crop comes again.

    Args:
        crop_size: side of the square crop, in pixels.
        scale_min: smallest factor of the random scale.
        scale_max: largest factor.
        scale_step: the factors are scale_min, scale_min + scale_step, ... up to scale_max.
        flip: mirror left and right with probability one half.
        photometric: vary brightness, contrast, saturation and hue.
        fill: RGB in [0, 1] with which images smaller than the crop are padded (v3 pads with the
            mean pixel); their labels are padded with void.
    """

    def __init__(
        self,
        crop_size: int,
        scale_min: float,
        scale_max: float,
        scale_step: float,
        flip: bool,
        photometric: bool,
        fill: tuple[float, float, float],
    ) -> None:
        self.crop_size = crop_size
        steps = int((scale_max - scale_min) / scale_step + 1e-6)
        self.scales = [scale_min + step * scale_step for step in range(steps + 1)]
        self.flip = flip
        self.fill = fill
        self.photometric = (
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03)
            if photometric
            else None
        )

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """One random view.

        Args:
            image: uint8, 3 x H x W.
            label: uint8, H x W.

        Returns:
            float32 3 x c x c in [0, 1] and int64 c x c, where c is `crop_size`.
        """
        scale = self.scales[_draw(len(self.scales))]
        if scale != 1.0:
            image, label = resize(image, label, scale)
        top, left, height, width = self._window(*label.shape)
        image = image[:, top : top + height, left : left + width]
        label = label[top : top + height, left : left + width]
        if self.flip and _draw(2):
            image, label = image.flip(-1), label.flip(-1)
        if self.photometric is not None:
            image = self.photometric(image)
        return pad(F.to_dtype(image, torch.float32, scale=True), label, self.crop_size, self.fill)

    def _window(self, height: int, width: int) -> tuple[int, int, int, int]:
        rows, columns = min(height, self.crop_size), min(width, self.crop_size)
        return _draw(height - rows + 1), _draw(width - columns + 1), rows, columns


def resize(image: Tensor, label: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Scale an image (bilinear, antialiased) and its label (nearest) by the same factor.

    Both use pixel centres: torch's plain "nearest" would shift the label by half a pixel.
    """
    size = [max(1, round(side * scale)) for side in label.shape]
    resized = F.resize(image, size, interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    nearest = v2.InterpolationMode.NEAREST_EXACT
    return resized, F.resize(label[None], size, interpolation=nearest)[0]


def pad(
    image: Tensor, label: Tensor, size: int, fill: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """Pad at the bottom and right to size x size, the image with `fill`, the label with void."""
    height, width = label.shape
    padded = torch.tensor(fill, dtype=torch.float32)[:, None, None].repeat(1, size, size)
    padded[:, :height, :width] = image
    padded_label = torch.full((size, size), VOID, dtype=torch.int64)
    padded_label[:height, :width] = label
    return padded, padded_label


def _draw(count: int) -> int:
    return int(torch.randint(count, ()))
