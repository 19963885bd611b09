"""Predict your own images with a trained network.

Heavy imports stand inside `main`: each CRF process imports the top of this module.
"""

import argparse
import os
from pathlib import Path

from pipeline.entry import run
from pipeline.errors import UserError

# As in evaluation: several images are worked on at once. Said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SAID = "Label every pixel of your own images with a trained network."
MODEL = (
    "a variant's name, a run's folder, a model.ckpt, or a model that MLflow keeps "
    "(models:/NAME@ALIAS, runs:/RUN/NAME)"
)


def main() -> None:
    """Predict what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.predict", description=SAID)
    parser.add_argument("images", type=Path, nargs="+", help="images, and folders of images")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--ms", action="store_true", help="at the scales of the run's evaluation")
    parser.add_argument("--flip", action="store_true", help="also on the mirrored image")
    parser.add_argument("--crf", action="store_true", help="refine the labels by the dense CRF")
    parser.add_argument(
        "--probabilities", action="store_true", help="keep the network's softmax, as float16 .npz"
    )
    parser.add_argument(
        "--window", type=int, metavar="SIDE", help="see larger images in tiles of this side"
    )
    given = parser.parse_args()

    from pipeline.prediction.places import find_images
    from pipeline.prediction.predict import Wanted, predict
    from pipeline.prediction.predictor import Predictor
    from pipeline.prediction.trained import find_trained

    if given.window is not None and given.window < 33:
        raise UserError(f"--window {given.window}: at least 33 pixels")
    images = find_images(given.images, given.out)
    trained = find_trained(given.model)
    wanted = Wanted(
        out=given.out,
        passes=trained.passes(multi_scale=given.ms, flip=given.flip, window=given.window),
        palette=trained.palette,
        crf=trained.crf if given.crf else None,
        probabilities=given.probabilities,
    )
    failed = predict(Predictor(trained), images, wanted)
    done = len(images) - failed
    print(f"{done} of {len(images)} images, {len(trained.classes)} classes: {given.out}/")
    if failed:
        raise UserError(f"{failed} of {len(images)} images could not be read; they are named above")


def command() -> None:
    """The installed command."""
    run(main)


if __name__ == "__main__":
    command()
