"""The random augmentation of training: image and label moved together.

v2, section 4.1 (scale, crop, mirror) and v3, section 4.1 (scales 0.5 to 2.0, crop, flip). The crop
is drawn first, and only the part of the image that it shows is scaled: its pixels are those of the
whole image scaled and then cropped, at the cost of the crop alone.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn_functional
from torchvision.transforms import v2

#: Label of the pixels that are neither learned from nor scored.
VOID = 255


class TrainTransform:
    """Random scale, crop, mirror and, if asked for, photometric distortion.

    Every draw comes from the generator that the caller gives: seeded alike, it draws the same crop.

    Args:
        crop_size: side of the square crop, in pixels.
        scale_min: smallest factor of the random scale.
        scale_max: largest factor.
        scale_step: the factors are scale_min, scale_min + scale_step, ... up to scale_max.
        flip: mirror left and right with probability one half.
        photometric: vary brightness, contrast, saturation and hue.
        fill: RGB in [0, 1] with which images smaller than the crop are padded at the bottom and
            right (v3 pads with the mean pixel), rounded to 8 bits; their labels are padded with
            void.
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
        # As they are written: 0.1 is a tenth, not the binary number next to it.
        least, most, step = (Fraction(str(value)) for value in (scale_min, scale_max, scale_step))
        self.scales = [least + number * step for number in range(int((most - least) / step) + 1)]
        self.flip = flip
        self.distort = v2.ColorJitter(0.3, 0.3, 0.3, 0.03) if photometric else None
        # A crop of nothing but padding: copying it is much faster than painting one.
        pixel = torch.tensor([round(255 * value) for value in fill], dtype=torch.uint8)
        self.padding = pixel.expand(crop_size, crop_size, 3).contiguous()

    def __call__(
        self, image: np.ndarray, label: np.ndarray, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """One random view.

        Args:
            image: uint8 RGB, H x W x 3.
            label: uint8, H x W.
            generator: of every draw.

        Returns:
            uint8 c x c x 3 and uint8 c x c, where c is `crop_size`.
        """
        scale = self.scales[generator.integers(len(self.scales))]
        if int(min(label.shape) * scale) == 0:
            scale = Fraction(1)
        rows, columns = (self._window(int(side * scale), generator) for side in label.shape)
        mirrored = self.flip and bool(generator.integers(2))
        view = scaled_crop(image, scale, rows, columns)
        if mirrored:
            # In the order in which the pixels lie, torch mirrors them many times faster.
            view = view.movedim(-1, 0).flip(-1).movedim(0, -1)
        if self.distort is not None:
            view = _seeded(self.distort, view, generator)
        return self._padded(view, scaled_crop_of_label(label, scale, rows, columns, mirrored))

    def _window(self, side: int, generator: np.random.Generator) -> range:
        """Where the crop lies along a side, in pixels of the scaled image."""
        start = int(generator.integers(max(side - self.crop_size, 0) + 1))
        return range(start, min(start + self.crop_size, side))

    def _padded(self, view: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Padded at the bottom and right to the crop size."""
        height, width = label.shape
        if height == width == self.crop_size:
            return view.contiguous(), label
        padded = self.padding.clone()
        padded[:height, :width] = view
        padded_label = torch.full((self.crop_size, self.crop_size), VOID, dtype=torch.uint8)
        padded_label[:height, :width] = label
        return padded, padded_label


def scaled_crop(image: np.ndarray, scale: Fraction, rows: range, columns: range) -> Tensor:
    """A window of the image scaled by `scale` (bilinear, antialiased); the rest is never scaled.

    A side of n pixels has floor(n * scale) scaled ones, and the centre of scaled pixel i lies at
    (i + 1/2) / scale of the image's own pixels.

    Args:
        image: uint8 H x W x 3.
        scale: above 0.
        rows: of the window, in the scaled image.
        columns: the same.

    Returns:
        uint8, len(rows) x len(columns) x 3.
    """
    down, across = (_along(side, scale) for side in image.shape[:2])
    if down == across == 1:
        return torch.from_numpy(image[rows.start : rows.stop, columns.start : columns.stop])
    top, bottom, above = _source(rows, image.shape[0], down)
    left, right, before = _source(columns, image.shape[1], across)
    part = torch.from_numpy(np.ascontiguousarray(image[top:bottom, left:right]))
    scaled = nn_functional.interpolate(
        part[None].permute(0, 3, 1, 2),
        # A little more than the scale, lest floor(n * scale) loses a pixel to a rounded product.
        scale_factor=(float(down) * (1 + 1e-12), float(across) * (1 + 1e-12)),
        mode="bilinear",
        antialias=True,
    )[0].movedim(0, -1)
    return scaled[above : above + len(rows), before : before + len(columns)]


def scaled_crop_of_label(
    label: np.ndarray, scale: Fraction, rows: range, columns: range, mirrored: bool = False
) -> Tensor:
    """The same window of the label: each scaled pixel takes the class in which its centre lies.

    Args:
        label: uint8 H x W.
        scale: above 0.
        rows: of the window, in the scaled label.
        columns: the same.
        mirrored: left and right changed.

    Returns:
        uint8, len(rows) x len(columns).
    """
    down = _nearest(rows, label.shape[0], scale)
    across = _nearest(columns, label.shape[1], scale)
    return torch.from_numpy(label[down][:, across[::-1] if mirrored else across])


def _nearest(wanted: range, side: int, scale: Fraction) -> np.ndarray:
    """The pixels of a side in which the centres of scaled pixels lie."""
    factor = _along(side, scale)
    centres = 2 * np.arange(wanted.start, wanted.stop) + 1
    return centres * factor.denominator // (2 * factor.numerator)


def _along(side: int, scale: Fraction) -> Fraction:
    """The scale along a side: 1 where it would not add a whole pixel, as torch has it."""
    return Fraction(1) if int(side * scale) == side else scale


def _source(wanted: range, side: int, scale: Fraction) -> tuple[int, int, int]:
    """The pixels of a side that scaled pixels are interpolated from, and what lies before those.

    The first one starts where a scaled pixel starts too, so that scaling the part alone samples it
    at the same places as scaling the whole side does.

    Args:
        wanted: scaled pixels.
        side: of the image, in pixels.
        scale: along this side.

    Returns:
        first and last + 1 of the image's pixels, and the scaled pixels from there to `wanted`.
    """
    over, under = scale.numerator, scale.denominator
    # Bilinear weights reach one pixel to each side; antialiased ones, one scaled pixel.
    reach = max(1, -(-under // over))
    # Torch leaves a part as it is that would not grow by a whole pixel.
    least = -(-under // (over - under)) if over > under else 1
    steps = max(0, min(wanted.start * under // over - reach, side - least)) // under
    first, last = steps * under, -(-wanted.stop * under // over) + reach
    return first, min(side, max(last, first + least)), wanted.start - steps * over


def _seeded(
    distort: Callable[[Tensor], Tensor], view: Tensor, generator: np.random.Generator
) -> Tensor:
    """Distort H x W x 3 by draws that `generator` seeds; torch's own generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**63)))
        return distort(view.movedim(-1, 0)).movedim(0, -1)
