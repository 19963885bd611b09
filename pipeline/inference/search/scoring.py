"""mIoU of many settings of the CRF on the same images, without running the network."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.dense_crf import DenseCrf, DenseCrfSettings
from pipeline.inference.logits import StoredLogits
from pipeline.inference.side_by_side import in_order

#: The id of an image to its C x H x W softmax, at the image's own size.
Maps = Callable[[str], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class SingleScale:
    """The stored network's probabilities at scale 1."""

    logits: StoredLogits

    def __call__(self, id: str) -> npt.NDArray[np.float32]:
        """C x H x W, at the image's own size."""
        return self.logits.probabilities(id, ("single",))["single"]


@dataclass(frozen=True)
class Scorer:
    """Scores settings over a fixed set of images, which go side by side.

    An image is read and its probabilities are upsampled once for all settings, and settings that
    differ in weights or iterations only share its filters. So memory grows with the workers, not
    with the images, and the sums are of integers: the same on any number of workers.
    """

    data: Prepared
    ids: Sequence[str]
    maps: Maps
    #: Images at a time; 0: in this thread.
    workers: int
    #: Or processes, where the CRF does not release Python's lock.
    threads: bool = True

    def matrices(
        self, settings: Sequence[DenseCrfSettings], advance: Callable[[], None] = lambda: None
    ) -> list[ConfusionMatrix]:
        """One confusion matrix over all images for each of the settings, in their order.

        Args:
            settings: any; with 0 iterations, the network's own labels are scored.
            advance: called after each image.

        Raises:
            UserError: a label holds what is no class, an image has another size than its label or
                its logits, or a sigma is too narrow for the filter.
        """
        total = [self._empty() for _ in settings]
        score = functools.partial(self._score, settings)
        for matrices in in_order(score, self.ids, self.workers, self.threads):
            total = [sum_ + one for sum_, one in zip(total, matrices, strict=True)]
            advance()
        return total

    def _score(self, settings: Sequence[DenseCrfSettings], id: str) -> list[ConfusionMatrix]:
        image_path, label_path = self.data.image_path(id), self.data.label_path(id)
        image, truth, maps = read_image(image_path), read_label(label_path), self.maps(id)
        if not image.shape[:2] == truth.shape == maps.shape[1:]:
            raise UserError(
                f"{image_path}: its label or its logits have another size; run "
                "`dvc repro -f augment`, then `dvc repro`"
            )
        matrices = [self._empty() for _ in settings]
        for members in by_filters(settings):
            crf = DenseCrf(image, settings[members[0]])
            for member in members:
                labels = crf.labels(maps, settings[member])
                matrices[member].update(truth, labels, source=str(label_path))
        return matrices

    def _empty(self) -> ConfusionMatrix:
        return ConfusionMatrix(len(self.data.classes), void=self.data.void)


def by_filters(settings: Sequence[DenseCrfSettings]) -> list[list[int]]:
    """The places of the settings, those together that share filters."""
    groups: list[list[int]] = []
    for place, one in enumerate(settings):
        for group in groups:
            if settings[group[0]].shares_filters(one):
                group.append(place)
                break
        else:
            groups.append([place])
    return groups
