"""The dense CRF with its exact kernels, in PyTorch: for a GPU.

No lattice: the appearance kernel is taken over all pairs of pixels but those whose kernel is
negligible. The pixels are sorted into tiles of nearly equal features, and where the boxes around
two tiles are far apart, the whole pair of tiles is left out: seven in eight on VOC's photographs.
The work still grows with the square of the pixels. A CPU takes minutes for an image.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.inference.dense_crf.settings import (
    SMALLEST_PROBABILITY,
    DenseCrfSettings,
    Normalisation,
    check_finite,
)

#: Pairs of tiles are left out where the kernel is below this for each pair of their pixels.
NEGLIGIBLE = 1e-4
#: The most pixels of a tile: small ones fit tighter, large ones keep a GPU busy.
TILE = 512
#: Kernel values in memory at a time, and with them the memory beside the pixels' own arrays:
#: 64 MB in float32.
AT_ONCE = 2**24


class TiledField:
    """The CRF of one image, all classes; see `DenseCrf`. `leave_out` has no meaning here.

    Args:
        image: H x W x 3, RGB.
        settings: the widths and the normalisation hold for good.
        device: None: the GPU where there is one, otherwise the CPU.
        dtype: None: float32 on a GPU, float64 on the CPU.
        tile: the most pixels of a tile.
    """

    def __init__(
        self,
        image: npt.NDArray[np.uint8],
        settings: DenseCrfSettings,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        tile: int = TILE,
    ) -> None:
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or (torch.float64 if device.type == "cpu" else torch.float32)
        self._device, self._dtype = device, dtype
        height, width = image.shape[:2]
        normalisation = settings.normalisation
        self._down = smoothness(height, settings.sigma_gamma, normalisation).to(device, dtype)
        self._across = smoothness(width, settings.sigma_gamma, normalisation).to(device, dtype)
        self._appearance = Appearance(
            features_of(image, settings).to(device, dtype), tile, normalisation
        )

    @property
    def share(self) -> float:
        """Of the pairs of tiles, those that are not left out."""
        return self._appearance.share

    def labels(
        self, maps: npt.NDArray[np.float32], settings: DenseCrfSettings
    ) -> npt.NDArray[np.uint8]:
        """H x W class numbers."""
        return self._beliefs(maps, settings).argmax(dim=0).to(torch.uint8).cpu().numpy()

    def probabilities(
        self, maps: npt.NDArray[np.float32], settings: DenseCrfSettings
    ) -> npt.NDArray[np.float32]:
        """C x H x W beliefs."""
        return self._beliefs(maps, settings).float().cpu().numpy()

    @torch.inference_mode()
    def _beliefs(self, maps: npt.NDArray[np.float32], settings: DenseCrfSettings) -> Tensor:
        """Algorithm 1 of Krähenbühl and Koltun (NIPS 2011): C x H x W."""
        check_finite(maps)
        log_p = torch.tensor(maps, device=self._device, dtype=self._dtype)
        log_p = log_p.clamp(SMALLEST_PROBABILITY, 1).log()
        beliefs = log_p.softmax(dim=0)
        for _ in range(int(settings.iterations)):
            energies = log_p
            if settings.w1:
                far = self._appearance.messages(beliefs.flatten(1).T).T
                energies = energies + settings.w1 * far.reshape(log_p.shape)
            if settings.w2:
                energies = energies + settings.w2 * (self._down @ beliefs @ self._across.T)
            beliefs = energies.softmax(dim=0)
        return beliefs


def features_of(image: npt.NDArray[np.uint8], settings: DenseCrfSettings) -> Tensor:
    """Position and colour of each pixel in units of their sigmas, N x 5, float64."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    positions = np.stack([rows.ravel(), columns.ravel()], axis=1) / settings.sigma_alpha
    return torch.from_numpy(np.hstack([positions, image.reshape(-1, 3) / settings.sigma_beta]))


def smoothness(length: int, sigma: float, normalisation: Normalisation) -> Tensor:
    """The normalised Gaussian between the rows, or the columns, of an image; it is separable."""
    places = torch.arange(length, dtype=torch.float64) / sigma
    kernel = torch.exp(-0.5 * (places[:, None] - places) ** 2)
    sums = kernel.sum(dim=1)
    if normalisation == "after":
        return kernel / sums[:, None]
    return kernel / (sums[:, None] * sums).sqrt()


class Appearance:
    """The normalised appearance kernel between all pixels.

    Args:
        features: N x D, in units of their sigmas.
        tile: the most pixels of a tile.
        normalisation: symmetric or after.
    """

    def __init__(self, features: Tensor, tile: int, normalisation: Normalisation) -> None:
        pixels = tiles_of(features, tile)
        self._pixels = pixels.clamp(max=len(features) - 1)
        self._counted = (pixels < len(features))[..., None]
        self._slots = pixels.flatten().argsort()[: len(features)]
        self._features = features[self._pixels]
        self._near = neighbours_of(self._features)
        sums = self._filter(torch.ones_like(features[:, :1]))
        after = normalisation == "after"
        self._before = torch.ones_like(sums) if after else sums.rsqrt()
        self._after = sums.reciprocal() if after else self._before

    @property
    def share(self) -> float:
        """Of the pairs of tiles, those that are not left out."""
        return sum(map(len, self._near)) / len(self._near) ** 2

    def messages(self, beliefs: Tensor) -> Tensor:
        """N x C, for a weight of 1."""
        return self._after * self._filter(self._before * beliefs)

    def _filter(self, values: Tensor) -> Tensor:
        tiled = values[self._pixels] * self._counted
        out = torch.zeros_like(tiled)
        step = max(1, AT_ONCE // self._pixels.shape[1] ** 2)
        for own, near in enumerate(self._near):
            for others in near.split(step):
                kernel = gaussian(self._features[own], self._features[others].flatten(0, 1))
                out[own] += kernel @ tiled[others].flatten(0, 1)
        return out.flatten(0, 1)[self._slots]


def tiles_of(features: Tensor, most: int) -> Tensor:
    """Sort pixels into tiles of nearly equal features, by halving at the median as a k-d tree.

    Returns:
        tiles x pixels of a tile, pixel numbers. All tiles have the same size, `most` or fewer:
        numbers from N on fill them up, for which the last pixel stands.
    """
    count = len(features)
    halvings = max(0, math.ceil(math.log2(count / most)))
    size = -(-count // 2**halvings)
    pixels = torch.arange(size * 2**halvings, device=features.device)[None]
    for _ in range(halvings):
        inside = features[pixels.clamp(max=count - 1)]
        widest = (inside.amax(dim=1) - inside.amin(dim=1)).argmax(dim=1)
        along = inside.gather(2, widest[:, None, None].expand(-1, pixels.shape[1], 1))[..., 0]
        order = along.argsort(dim=1, stable=True)
        pixels = pixels.gather(1, order).reshape(2 * len(pixels), -1)
    return pixels


def neighbours_of(features: Tensor) -> list[Tensor]:
    """For each tile the tiles that its kernel reaches.

    Args:
        features: tiles x pixels of a tile x D.
    """
    least, most = features.amin(dim=1), features.amax(dim=1)
    reach = -2 * math.log(NEGLIGIBLE)
    near = []
    for own_least, own_most in zip(least, most, strict=True):
        gap = torch.maximum(least - own_most, own_least - most).clamp(min=0)
        near.append((gap.square().sum(dim=1) < reach).nonzero()[:, 0])
    return near


def gaussian(first: Tensor, second: Tensor) -> Tensor:
    """exp(-|a - b|^2 / 2) between M x D and N x D features: M x N.

    Features are taken from the first ones' middle: products of large ones lose float32's digits.
    """
    middle = first.mean(dim=0)
    first, second = first - middle, second - middle
    # -|a - b|^2 / 2 as one product: a b - |a|^2 / 2 - |b|^2 / 2.
    ours, theirs = (-0.5 * part.square().sum(dim=1, keepdim=True) for part in (first, second))
    left = torch.cat([first, ours, torch.ones_like(ours)], dim=1)
    right = torch.cat([second, torch.ones_like(theirs), theirs], dim=1)
    return (left @ right.T).exp_()
