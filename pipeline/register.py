"""Register a trained variant in MLflow's model registry, ready to be served."""

import argparse

from pipeline.entry import run
from pipeline.paths import RUNS

#: The alias of the variant with the highest mIoU over its seeds, and what asks for it.
BEST = "best"


def main() -> None:
    """Register the variant that the command line names, or the best of params.yaml's."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.register", description=__doc__)
    parser.add_argument(
        "variant",
        nargs="?",
        default=BEST,
        help="a trained variant of params.yaml; without one, that with the highest mIoU",
    )
    parser.add_argument(
        "--alias", help="by which it is found (default: `best` for the best, else the variant)"
    )
    given = parser.parse_args()

    from pipeline.prediction.registry import dataset_of, register

    variant = given.variant
    if variant == BEST:
        variant, reason = _best()
        print(reason)
    folder = RUNS / variant
    name = dataset_of(folder)
    alias = given.alias or given.variant
    made = register(folder, name, alias)
    print(f"{variant}: {made}, found as models:/{name}@{alias}")


def _best() -> tuple[str, str]:
    from pipeline.composition import load_config
    from pipeline.reporting.compare import best_run
    from pipeline.reporting.groups import study_of
    from pipeline.reporting.load import load_variants

    best, reason = best_run(study_of(load_variants(list(load_config([]).variants), RUNS)))
    return best.name, reason


def command() -> None:
    """The installed command."""
    run(main)


if __name__ == "__main__":
    command()
