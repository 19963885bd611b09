"""Stage `tune`: the settings of the CRF that a variant is evaluated with, searched if asked for.

Heavy imports stand inside `main`: without a search it takes no time.
"""

import argparse
import os

from pipeline.entry import run
from pipeline.paths import BUILD, PREPARED, RUNS

# Images are searched side by side; numpy's matrix products would take every core again.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Tune the CRF of the variant that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tune", description=__doc__)
    parser.add_argument("variant", help="a name in `variants` of params.yaml")
    variant = parser.parse_args().variant

    from pipeline.composition import load_resolved
    from pipeline.inference.search.tune import tune_run

    config = load_resolved(BUILD, "tune", variant)
    line = tune_run(config, RUNS / variant, PREPARED / config.dataset)
    if config.search.images:
        from pipeline.tracking.rows import log_search

        log_search(RUNS / variant, config)
    print(f"{variant}: {line}")


if __name__ == "__main__":
    run(main)
