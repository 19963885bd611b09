"""From the scores of several passes, on the network's own grid, to probabilities of every pixel.

Numpy arrays and tensors alike: the stored logits are put together without torch, which takes
seconds to import, and the network's validation on the device where it runs.

v3 (arXiv 1706.05587), section 4: the softmax is averaged over scales and left-right flips.
v2 (arXiv 1606.00915), section 4.1.2: the maximum of the scores over the scales.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pipeline.config import EvaluateConfig
from pipeline.models.sizes import aligned_side, scaled_side

if TYPE_CHECKING:
    import torch

#: C x H x W or C x h x w.
Maps = TypeVar("Maps", npt.NDArray[np.float32], "torch.Tensor")
Size = tuple[int, int]
#: Rows that are worked on at a time: what is at hand then fits into a core's cache, and no map is
#: held but the results.
STRIP = 32


class Pass(NamedTuple):
    """One run of the network: the image at a scale, mirrored or not."""

    scale: float = 1.0
    mirrored: bool = False


#: Of the single-scale figures.
UPRIGHT = Pass()
#: Scale 1 alone; over scales and flips.
MODES = ("single", "ms_flip")


def multi_scale(evaluate: EvaluateConfig) -> list[Pass]:
    """The passes of the multi-scale figures; each mirrored one follows the upright one."""
    flips = (False, True) if evaluate.flip else (False,)
    return [Pass(float(scale), mirrored) for scale in evaluate.scales for mirrored in flips]


def passes_of(evaluate: EvaluateConfig, modes: Sequence[str] = MODES) -> list[Pass]:
    """Every pass that some modes take, each once."""
    single = [UPRIGHT] if "single" in modes else []
    return list(dict.fromkeys([*single, *(multi_scale(evaluate) if "ms_flip" in modes else [])]))


@dataclass(frozen=True)
class Geometry:
    """How images are shown to the network, and where its scores lie on them.

    Attributes:
        output_stride: of the network.
        pad_to: least side after padding, at scale 1; None: the next k * output_stride + 1.
        align_corners: of the network's upsampling.
    """

    output_stride: int
    pad_to: int | None = None
    align_corners: bool = True

    def scaled(self, size: Size, scale: float) -> Size:
        """Height and width of a scaled image."""
        height, width = size
        return scaled_side(height, scale), scaled_side(width, scale)

    def padded(self, size: Size, scale: float) -> Size:
        """Height and width of a scaled image after padding, both k * output_stride + 1."""
        least = 0 if self.pad_to is None else scaled_side(self.pad_to, scale)
        height, width = (
            aligned_side(max(side, least), self.output_stride) for side in self.scaled(size, scale)
        )
        return height, width

    def upsample(self, scores: Maps, size: Size, scale: float) -> Maps:
        """The scores of every pixel of an image.

        Upsampling to the padded image, cropping and resizing to the image's own size are linear in
        rows and columns: they are done at once, by one matrix each.

        Args:
            scores: C x h x w, of a pass at this scale.
            size: the image's own.
            scale: the pass's.

        Returns:
            C x H x W of the same kind.
        """
        rows, columns = self.weights((scores.shape[-2], scores.shape[-1]), size, scale)
        return _like(rows, scores) @ (scores @ _like(columns.T, scores))

    def weights(
        self, cells: Size, size: Size, scale: float
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """How much each cell counts for each pixel, along the rows and along the columns.

        Args:
            cells: h and w of the scores.
            size: H and W of the image.
            scale: the pass's.

        Returns:
            H x h and W x w.
        """
        padded, scaled = self.padded(size, scale), self.scaled(size, scale)

        def along(axis: int) -> npt.NDArray[np.float32]:
            inside = interpolate(np.eye(cells[axis]), padded[axis], self.align_corners)
            weights = interpolate(inside[: scaled[axis]], size[axis], align_corners=True)
            return weights.astype(np.float32)

        return along(0), along(1)


def interpolate(
    rows: npt.NDArray[np.float64], count: int, align_corners: bool
) -> npt.NDArray[np.float64]:
    """Linear interpolation between rows to another number of rows, as torch counts them.

    Args:
        rows: n x m.
        count: of rows in the result.
        align_corners: whether the first and last rows stay where they are.
    """
    given = len(rows)
    if given == count:
        return rows
    if align_corners:
        places = np.arange(count) * ((given - 1) / max(count - 1, 1))
    else:
        places = np.clip((np.arange(count) + 0.5) * (given / count) - 0.5, 0, given - 1)
    low = np.minimum(places.astype(np.int64), given - 1)
    high = np.minimum(low + 1, given - 1)
    share = (places - low)[:, None]
    return (1 - share) * rows[low] + share * rows[high]


def fuse(
    scores: Callable[[Pass], Maps], evaluate: EvaluateConfig, modes: Sequence[str] = MODES
) -> dict[str, Maps]:
    """The probabilities in some modes; no pass is asked for twice.

    Args:
        scores: C x H x W of every pixel for each of `passes_of`, as the network saw the image:
            mirrored, if the pass is.
        evaluate: scales, flip, fusion.
        modes: of `MODES`.

    Returns:
        Mode -> C x H x W; one and the same map where the modes are the same pass.
    """
    passes = multi_scale(evaluate)
    if "ms_flip" not in modes or passes == [UPRIGHT]:
        single = softmax(scores(UPRIGHT))
        return {mode: single for mode in modes}
    if "single" not in modes:
        return {"ms_flip": _over_scales(scores, evaluate)}
    upright = scores(UPRIGHT)
    single = softmax(upright)
    kept = single if evaluate.fusion == "average" else upright
    return {"single": single, "ms_flip": _over_scales(scores, evaluate, kept)}


def _over_scales(
    scores: Callable[[Pass], Maps], evaluate: EvaluateConfig, upright: Maps | None = None
) -> Maps:
    """Scales and flips put together; `upright` is what scale 1 unmirrored adds, if it is there."""
    average = evaluate.fusion == "average"
    passes = multi_scale(evaluate)

    def member(which: Pass) -> Maps:
        if upright is not None and which == UPRIGHT:
            return upright
        maps = softmax(scores(which)) if average else scores(which)
        return _mirror(maps) if which.mirrored else maps

    total: Maps | None = None
    for pair in _by_scale(passes):
        # The two of a scale are joined first: then a mirrored image gives exactly the mirrored
        # result, whatever the order of the additions.
        joined = member(pair[0])
        for which in pair[1:]:
            joined = joined + member(which) if average else _greater(joined, member(which))
        if total is None:
            total = joined
        else:
            total = total + joined if average else _greater(total, joined)
    if total is None:
        raise ValueError("scales is empty")
    return total * (1 / len(passes)) if average else softmax(total)


def _by_scale(passes: Sequence[Pass]) -> list[list[Pass]]:
    pairs: list[list[Pass]] = []
    for which in passes:
        if which.mirrored:
            pairs[-1].append(which)
        else:
            pairs.append([which])
    return pairs


def softmax(scores: Maps) -> Maps:
    """Probabilities over the first axis; the scores stay as they are."""
    if not isinstance(scores, np.ndarray):
        return scores.softmax(dim=0)
    maps: npt.NDArray[np.float32] = scores - scores.max(axis=0)
    np.exp(maps, out=maps)
    maps /= maps.sum(axis=0)
    return maps


@overload
def labels_of(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...


@overload
def labels_of(maps: "torch.Tensor") -> "torch.Tensor": ...


def labels_of(maps: Any) -> Any:
    """The class of every pixel: that of the largest value, the first of several.

    Args:
        maps: C x H x W scores or probabilities, of at most 256 classes.

    Returns:
        H x W, uint8, of the same kind and in the same place.
    """
    if not isinstance(maps, np.ndarray):
        if maps.device.type != "cpu":
            return maps.argmax(dim=0).byte()
        import torch

        # On a processor several times faster than torch's.
        return torch.from_numpy(labels_of(maps.float().numpy()))
    labels = np.empty(maps.shape[1:], np.uint8)
    # In strips: numpy copies what it looks through, to have the classes last.
    for top in range(0, len(labels), STRIP):
        labels[top : top + STRIP] = maps[:, top : top + STRIP].argmax(axis=0)
    return labels


# Tensors are told from arrays by type alone, so that this module needs no torch.


def _like(matrix: npt.NDArray[np.float32], maps: Maps) -> Any:
    if isinstance(maps, np.ndarray):
        return matrix
    import torch

    return torch.from_numpy(np.ascontiguousarray(matrix)).to(maps)


def _mirror(maps: Maps) -> Maps:
    return maps[..., ::-1] if isinstance(maps, np.ndarray) else maps.flip(-1)


def _greater(one: Maps, other: Maps) -> Maps:
    if isinstance(one, np.ndarray):
        return np.maximum(one, other)
    return one.maximum(other)
