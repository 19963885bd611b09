"""Predict a test set with a trained variant, and pack the labels for the server that scores it.

Heavy imports stand inside `main`: each CRF process imports the top of this module.
"""

import argparse
from pathlib import Path

from pipeline.entry import run
from pipeline.paths import BUILD, RUNS

SAID = "Predict a test set with a trained variant, and pack the labels for its server."


def main() -> None:
    """Write runs/<variant>/submission/ from the command line's images."""
    from pipeline.evaluation.figures import MODES

    parser = argparse.ArgumentParser(prog="python -m pipeline.submit", description=SAID)
    parser.add_argument("variant", help="a name in `variants` of params.yaml")
    parser.add_argument("server", help="voc2012 or cityscapes")
    parser.add_argument("images", type=Path, help="folder of the test images, to any depth")
    parser.add_argument("--ids", type=Path, help="the test images' ids, one a line; default: all")
    parser.add_argument(
        "--mode",
        default=MODES[-1],
        choices=MODES,
        help="how the network is run (default: %(default)s)",
    )
    given = parser.parse_args()

    from pipeline.composition import load_resolved
    from pipeline.inference.submission import submit

    config = load_resolved(BUILD, "evaluate", given.variant)
    done = submit(config, RUNS / given.variant, given.server, given.images, given.ids, given.mode)
    print(f"{given.variant}: {done}")


if __name__ == "__main__":
    run(main)
