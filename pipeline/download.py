"""Stage `download`: bring the data set of params.yaml to data/raw/, verified."""

import sys

from pipeline.composition import load_config
from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import load_manifest
from pipeline.entry import run
from pipeline.paths import RAW


def main() -> None:
    """Fetch data/raw/<dataset>/; what is there and right is kept."""
    config = load_config(sys.argv[1:])
    fetch(load_manifest(config.dataset), RAW)


if __name__ == "__main__":
    run(main)
