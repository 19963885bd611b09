"""Stage `augment`: turn data/raw/ into the training-ready set, with pictures of it.

The random augmentation itself happens while training; here it is drawn, to be looked at.
"""

import sys

from pipeline.composition import load_config
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
    previews = PREVIEWS / config.dataset
    draw_samples(data, previews / "samples.png")
    transform = TrainTransform(
        crop_size=config.train.crop_size,
        scale_min=config.train.scale_min,
        scale_max=config.train.scale_max,
        scale_step=config.train.scale_step,
        flip=config.train.flip,
        photometric=config.train.photometric,
        fill=data.mean,
    )
    draw_augmentations(data, transform, previews / "augmentations.png", seed=config.seed)
    print(
        f"{folder}: ready, {', '.join(f'{len(ids)} {name}' for name, ids in data.splits.items())}"
    )


if __name__ == "__main__":
    run(main)
