"""mIoU of many settings of the CRF on the same images, without running the network."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import numpy.typing as npt

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.dense_crf import DenseCrf, DenseCrfSettings

#: The id of an image to its C x H x W softmax, at the image's own size.
Maps = Callable[[str], npt.NDArray[np.float32]]


class Scorer:
    """Scores settings over a fixed set of images.

    An image is read and its probabilities are upsampled once for all settings, and settings that
    differ in weights or iterations only share its filters. Images go side by side in threads, for
    the native code releases Python's lock. So memory grows with the threads, not with the images
    or the settings, and the sums are of integers: the same on any number of threads.

    Args:
        data: the training-ready set.
        ids: which images count.
        maps: their probabilities; called from several threads.
        threads: images at a time.
    """

    def __init__(self, data: Prepared, ids: Sequence[str], maps: Maps, threads: int) -> None:
        self.data, self.ids, self.maps, self.threads = data, list(ids), maps, threads

    def matrices(
        self, settings: Sequence[DenseCrfSettings], advance: Callable[[int], None] = lambda _: None
    ) -> list[ConfusionMatrix]:
        """One confusion matrix over all images for each of the settings, in their order.

        Args:
            settings: any; with 0 iterations, the network's own labels are scored.
            advance: told how many more labellings (of one image by one of the settings) are done.

        Raises:
            UserError: a label holds what is no class, or a sigma is too narrow for the filter.
        """
        counted = _Counts([self._empty() for _ in settings], advance)
        stop = threading.Event()
        with ThreadPoolExecutor(self.threads) as pool:
            jobs = [pool.submit(self._score, id, settings, counted, stop) for id in self.ids]
            try:
                for job in as_completed(jobs):
                    job.result()
            finally:
                # After an error or an interrupt, what has not begun returns at once.
                stop.set()
        return counted.matrices

    def _score(
        self,
        id: str,
        settings: Sequence[DenseCrfSettings],
        counted: "_Counts",
        stop: threading.Event,
    ) -> None:
        if stop.is_set():
            return
        try:
            image, label_path = read_image(self.data.image_path(id)), self.data.label_path(id)
            truth, maps = read_label(label_path), self.maps(id)
            for members in by_filters(settings):
                crf = DenseCrf(image, settings[members[0]])
                for member in members:
                    if stop.is_set():
                        return
                    matrix = self._empty()
                    labels = crf.labels(maps, settings[member])
                    matrix.update(truth, labels, source=str(label_path))
                    counted.add(member, matrix)
        except BaseException:
            stop.set()
            raise

    def _empty(self) -> ConfusionMatrix:
        return ConfusionMatrix(len(self.data.classes), void=self.data.void)


class _Counts:
    """The matrices that the threads add to."""

    def __init__(self, matrices: list[ConfusionMatrix], advance: Callable[[int], None]) -> None:
        self.matrices, self._advance = matrices, advance
        self._lock = threading.Lock()

    def add(self, index: int, matrix: ConfusionMatrix) -> None:
        with self._lock:
            self.matrices[index] = self.matrices[index] + matrix
            self._advance(1)


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
