"""Register a trained variant in MLflow's model registry, ready to be served."""

import argparse

from pipeline.entry import run
from pipeline.paths import RUNS


def main() -> None:
    """Register the variant that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.register", description=__doc__)
    parser.add_argument("variant", help="a trained variant of params.yaml")
    parser.add_argument(
        "--alias", default="best", help="by which it is found (default: %(default)s)"
    )
    given = parser.parse_args()

    from pipeline.prediction.registry import dataset_of, register

    folder = RUNS / given.variant
    name = dataset_of(folder)
    made = register(folder, name, given.alias)
    print(f"{given.variant}: {made}, found as models:/{name}@{given.alias}")


def command() -> None:
    """The installed command."""
    run(main)


if __name__ == "__main__":
    command()
