"""Bring all variants of params.yaml up to date, as many at a time as the machine has room for.

Like `dvc repro`, through DVC, but side by side: each GPU, or group of CPU cores, runs a variant.
"""

import argparse
import sys

from pipeline.entry import run
from pipeline.errors import UserError
from pipeline.paths import PROJECT


def main() -> None:
    """Run the sweep that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.sweep", description=__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="default: all")
    parser.add_argument(
        "--devices", type=int, help="GPUs of each training (default: trainer.devices)"
    )
    parser.add_argument(
        "--slots",
        type=int,
        help="trainings at a time (default: as many as there are GPUs for; on the CPU, one for "
        "every four cores)",
    )
    options = parser.parse_args()
    for key in ("devices", "slots"):
        value = getattr(options, key)
        if value is not None and value < 1:
            raise UserError(f"--{key}={value}: must be 1 or more")

    from pipeline.sweeping.run import Wishes, sweep

    sys.exit(sweep(PROJECT, Wishes(options.variants, options.devices, options.slots)))


if __name__ == "__main__":
    run(main)
