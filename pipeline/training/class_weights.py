"""How much each class weighs in the loss."""

import statistics

from pipeline.config import TrainConfig
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.statistics import read_statistics
from pipeline.errors import UserError

MEDIAN_FREQUENCY = "median_frequency"


def class_weights(config: TrainConfig, data: Prepared) -> list[float] | None:
    """The configured weight of each class; None: they all weigh the same.

    Args:
        config: `class_weights` is null, `median_frequency` or one number a class.
        data: whose classes are meant, and whose `train.split` is counted.

    Raises:
        UserError: as many numbers as classes are needed.
    """
    if config.class_weights is None:
        return None
    if config.class_weights == MEDIAN_FREQUENCY:
        counted = read_statistics(data.folder)["splits"][config.split]
        return median_frequency(
            list(counted["frequency"].values()), list(counted["images_with_class"].values())
        )
    weights = [float(weight) for weight in config.class_weights]
    if len(weights) != len(data.classes):
        raise UserError(
            f"train.class_weights: {len(weights)} numbers; data set {data.name} has "
            f"{len(data.classes)} classes: {', '.join(data.classes)}"
        )
    return weights


def median_frequency(shares: list[float], images: list[int]) -> list[float]:
    """The median of the classes' frequencies over each one's (Eigen and Fergus, arXiv 1411.4734).

    A class's frequency is its share of the pixels of those images that show it; here every image
    counts as equally large.

    Args:
        shares: of each class, of all labelled pixels.
        images: that show each class.

    Returns:
        A weight for each class; 1 for one that is nowhere.
    """
    frequencies = [share / max(1, count) for share, count in zip(shares, images, strict=True)]
    median = statistics.median([frequency for frequency in frequencies if frequency > 0])
    return [median / frequency if frequency > 0 else 1.0 for frequency in frequencies]
