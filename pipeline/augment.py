"""Stage `augment`: turn data/raw/ into the training-ready set, with pictures of it.

The random augmentation itself happens while training; here it is drawn, to be looked at.
"""

import sys

from pipeline.composition import load_config
from pipeline.datasets.charts import draw_classes, draw_sizes
from pipeline.datasets.datamodule import images_of_a_pass
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.previews import draw_augmentations, draw_samples
from pipeline.datasets.transforms import TrainTransform
from pipeline.entry import run
from pipeline.paths import PREPARED, PREVIEWS, RAW


def main() -> None:
    """Write data/prepared/<dataset>/, and pictures of it in data/previews/<dataset>/."""
    config = load_config(sys.argv[1:])
    folder = PREPARED / config.dataset
    data = prepare(load_manifest(config.dataset), RAW / config.dataset, folder)
    train, previews = config.train, PREVIEWS / config.dataset
    # A split or class that is not there is said here, before anything is trained.
    images_of_a_pass(data, train)
    transform = TrainTransform(
        crop_size=train.crop_size,
        scale_min=train.scale_min,
        scale_max=train.scale_max,
        scale_step=train.scale_step,
        flip=train.flip,
        photometric=train.photometric,
        fill=data.mean,
    )
    draw_samples(data, previews / "samples.png", train.split)
    draw_augmentations(
        data, transform, previews / "augmentations.png", seed=config.seed, split=train.split
    )
    draw_classes(data, previews / "classes.png", train.split)
    draw_sizes(data, train.crop_size, previews / "sizes.png")
    print(
        f"{folder}: ready, {', '.join(f'{len(ids)} {name}' for name, ids in data.splits.items())}"
    )


if __name__ == "__main__":
    run(main)
