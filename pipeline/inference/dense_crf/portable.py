"""The dense CRF in numpy and scipy, for machines where the native code was not compiled.

The same method as in `native/`, written for shortness: a lattice is a sparse matrix and six lists
of neighbours. It is also the independent check of the native code.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from pipeline.inference.dense_crf.settings import (
    SMALLEST_PROBABILITY,
    DenseCrfSettings,
    Normalisation,
    check_finite,
)

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
#: N x C values, N the pixels or cells.
Values = npt.NDArray[np.float32]


class Lattice:
    """Gaussian filtering in D dimensions (Adams, Baek and Davis, Eurographics 2010).

    Args:
        features: D x N, in units of their sigmas.
    """

    def __init__(self, features: npt.NDArray[np.float64]) -> None:
        dims, count = features.shape
        weights, corners = simplices(features)
        lowest = corners.min(axis=(0, 1)) - dims - 1
        spans = corners.max(axis=(0, 1)) - lowest + dims + 2
        if np.prod(spans.astype(np.float64)) >= 2**63:
            raise OverflowError("the sigmas are too narrow for the lattice")
        units = np.concatenate([[1], np.cumprod(spans[:-1])])
        keys, vertices = np.unique((corners - lowest) @ units, return_inverse=True)
        pixels = np.repeat(np.arange(count), dims + 1)
        self._slice = sparse.csr_matrix(
            (weights.ravel(), (pixels, vertices.ravel())), (count, len(keys)), np.float32
        )
        self._splat = self._slice.T.tocsr()
        # One less in every coordinate, but D more in the direction's own; the last is not in keys.
        steps = [-units.sum() + (dims + 1) * unit for unit in (*units, 0)]
        self._neighbours = [(find(keys, keys + step), find(keys, keys - step)) for step in steps]

    def __call__(self, values: Values) -> Values:
        """Splat, blur along every direction, slice."""
        lattice = self._splat @ values
        for after, before in self._neighbours:
            # Index -1, a missing neighbour, is the row of noughts at the end.
            padded = np.concatenate([lattice, np.zeros_like(lattice[:1])])
            lattice = lattice + np.float32(0.5) * (padded[after] + padded[before])
        return np.asarray(self._slice @ lattice)


def simplices(
    features: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Where points lie: barycentric weights N x (D + 1), and the corners' first D coordinates."""
    dims, count = features.shape
    axes = np.arange(1, dims + 1)
    scales = (dims + 1) * np.sqrt(2 / 3) / np.sqrt(axes * (axes + 1))
    scaled = features * scales[:, None]
    elevated = np.zeros((dims + 1, count))
    elevated[:-1] += scaled[::-1].cumsum(axis=0)[::-1]
    elevated[1:] -= axes[:, None] * scaled

    quotients = np.rint(elevated / (dims + 1)).astype(np.int64)
    order = np.argsort((dims + 1) * quotients - elevated, axis=0, kind="stable")
    ranks = np.argsort(order, axis=0) + quotients.sum(axis=0)
    turns = (ranks < 0).astype(np.int64) - (ranks > dims)
    ranks, quotients = ranks + turns * (dims + 1), quotients + turns

    offsets = np.sort(elevated - (dims + 1) * quotients, axis=0) / (dims + 1)
    weights = np.diff(offsets, axis=0, prepend=0)
    weights[0] = 1 - (offsets[-1] - offsets[0])
    remainders = np.arange(dims + 1)[:, None, None]
    corners = (dims + 1) * (quotients - (ranks + remainders > dims)) + remainders
    return weights.T, corners[:, :-1].transpose(2, 0, 1)


def find(keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The indices of keys among sorted keys; -1 where there is none."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


@dataclass(frozen=True)
class Term:
    """A pairwise term: a filter, and what its values are multiplied by before and after it."""

    filter: Callable[[Values], Values]
    before: Values
    after: Values

    def messages(self, beliefs: Values) -> Values:
        """N x C, for a weight of 1."""
        return self.after * self.filter(self.before * beliefs)


def normalised_term(
    filter: Callable[[Values], Values], cells: int, normalisation: Normalisation
) -> Term:
    """The term with its kernel normalised."""
    ones = np.ones((cells, 1), np.float32)
    sums = filter(ones)
    if normalisation == "after":
        return Term(filter, ones, np.reciprocal(sums))
    roots = np.reciprocal(np.sqrt(sums))
    return Term(filter, roots, roots)


def smoothness(sigma: float, cell: int, height: int, width: int) -> Callable[[Values], Values]:
    """The Gaussian between cells of cell x cell pixels, separable, to 4 sigma."""
    radius = -(-min(max(height, width) * cell - 1, int(np.ceil(4 * sigma))) // cell)
    # All pixels of a cell believe the same: the kernel is the mean over their distances.
    within = np.arange(cell)[:, None] - np.arange(cell)
    distances = cell * np.arange(-radius, radius + 1)[:, None, None] + within
    kernel = np.exp(-0.5 * (distances / sigma) ** 2).sum(axis=(1, 2)) / cell

    def convolve(values: Values) -> Values:
        planes = values.reshape(height, width, -1)
        for axis in (0, 1):
            planes = ndimage.correlate1d(planes, kernel, axis, mode="constant")
        return planes.reshape(height * width, -1)

    return convolve


class PortableField:
    """The CRF of one image; see `DenseCrf`."""

    def __init__(self, image: Image, settings: DenseCrfSettings) -> None:
        self._image, self._settings = image, settings
        self._cell = 2 if settings.mode == "fast" else 1
        self._grid = (-(-image.shape[0] // self._cell), -(-image.shape[1] // self._cell))

    def labels(self, maps: Maps, settings: DenseCrfSettings) -> npt.NDArray[np.uint8]:
        """H x W class numbers."""
        return self.probabilities(maps, settings).argmax(axis=0).astype(np.uint8)

    def probabilities(self, maps: Maps, settings: DenseCrfSettings) -> Maps:
        """C x H x W beliefs."""
        check_finite(maps)
        kept = worth_keeping(maps, settings.leave_out)
        log_p = np.log(np.clip(maps[kept], SMALLEST_PROBABILITY, 1)).transpose(1, 2, 0)
        weights = (settings.w1, settings.w2)
        if len(kept) == 1 or settings.iterations == 0 or not any(weights):
            beliefs = softmax(log_p)
        elif self._cell == 1:
            beliefs = softmax(log_p + self._messages(log_p, weights, settings.iterations))
        else:
            messages = self._messages(halved(log_p), weights, settings.iterations)
            beliefs = softmax(log_p + self._upsampled(messages))
        out = np.zeros_like(maps)
        out[kept] = beliefs.transpose(2, 0, 1)
        return out

    def _messages(self, log_p: Maps, weights: tuple[float, float], iterations: int) -> Maps:
        """The messages of the last of the mean-field steps, height x width x C on the grid."""
        terms = [(np.float32(weights[0]), lambda: self._appearance)]
        terms.append((np.float32(weights[1]), lambda: self._smoothness))
        used = [(weight, term()) for weight, term in terms if weight]
        unary = log_p.reshape(-1, log_p.shape[2])
        messages = np.zeros_like(unary)
        for _ in range(iterations):
            beliefs = softmax(unary + messages)
            messages = np.sum([w * term.messages(beliefs) for w, term in used], axis=0)
        return messages.reshape(log_p.shape)

    @functools.cached_property
    def _colours(self) -> Maps:
        pixels = self._image.astype(np.float32)
        return pixels if self._cell == 1 else halved(pixels)

    @functools.cached_property
    def _appearance(self) -> Term:
        settings, (height, width) = self._settings, self._grid
        rows, columns = np.mgrid[:height, :width] * self._cell + (self._cell - 1) / 2
        features = np.concatenate(
            [
                np.stack([columns, rows]).reshape(2, -1) / settings.sigma_alpha,
                self._colours.reshape(-1, 3).T.astype(np.float64) / settings.sigma_beta,
            ]
        )
        return normalised_term(Lattice(features), height * width, settings.normalisation)

    @functools.cached_property
    def _smoothness(self) -> Term:
        filter = smoothness(self._settings.sigma_gamma, self._cell, *self._grid)
        return normalised_term(filter, self._grid[0] * self._grid[1], self._settings.normalisation)

    def _upsampled(self, messages: Maps) -> Maps:
        """Messages of the half grid for the pixels: the 3 x 3 cells around, weighted by colour."""
        height, width = self._image.shape[:2]
        edges = ((1, 1), (1, 1), (0, 0))
        colours, padded = (np.pad(part, edges, "edge") for part in (self._colours, messages))
        falloff = -0.125 / self._settings.sigma_beta**2
        total, weights = np.zeros((height, width, messages.shape[2])), np.zeros((height, width, 1))
        for down in range(3):
            for across in range(3):
                rows = np.arange(height)[:, None] // 2 + down
                columns = np.arange(width) // 2 + across
                difference = self._image - colours[rows, columns]
                weight = np.exp(falloff * (difference**2).sum(axis=2, keepdims=True))
                if (down, across) == (1, 1):
                    weight += 1e-4  # a pixel unlike all of them goes with its own cell
                total += weight * padded[rows, columns]
                weights += weight
        return (total / weights).astype(np.float32)


def worth_keeping(maps: Maps, leave_out: float) -> list[int]:
    """The classes but the least likely ones, whose greatest probabilities sum to less than that.

    A class that is the likeliest somewhere is not left out.
    """
    greatest = maps.reshape(len(maps), -1).max(axis=1)
    wins = (maps == maps.max(axis=0)).any(axis=(1, 2))
    kept, total = set(range(len(maps))), 0.0
    for c in np.argsort(greatest, kind="stable"):
        if wins[c]:
            continue
        total += greatest[c]
        if total >= leave_out:
            break
        kept.remove(int(c))
    return sorted(kept)


def halved(planes: Maps) -> Maps:
    """The mean of each 2 x 2 pixels of H x W x C; a last odd row or column counts twice."""
    height, width = planes.shape[:2]
    even = np.pad(planes, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    sums = (even[0::2, 0::2] + even[0::2, 1::2]) + (even[1::2, 0::2] + even[1::2, 1::2])
    return np.asarray(np.float32(0.25) * sums)


def softmax(energies: Values) -> Values:
    """exp(e_c) / sum of exp(e_c) over the last axis."""
    exponents = np.exp(energies - energies.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
