"""Stage `infer`: run a trained variant over the evaluated split once, and state its cost.

Heavy imports stand inside `main`: with several devices, each process imports the top of this
module.
"""

import argparse

from pipeline.entry import run
from pipeline.imports import imports
from pipeline.paths import BUILD, PREPARED, RUNS


def main() -> None:
    """Store the scores of the variant that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.infer", description=__doc__)
    parser.add_argument("variant", help="a name in `variants` of params.yaml")
    variant = parser.parse_args().variant

    with imports():
        from pipeline.composition import load_resolved
        from pipeline.datasets.prepared import load_prepared
        from pipeline.inference.infer import infer_run

    config = load_resolved(BUILD, "infer", variant)
    done = infer_run(config, RUNS / variant, load_prepared(PREPARED / config.dataset))
    print(f"{variant}: {done}")


if __name__ == "__main__":
    run(main)
