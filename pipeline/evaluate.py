"""Stage `evaluate`: score a variant's stored logits, before and after the CRF.

Heavy imports stand inside `main`: each CRF process imports the top of this module.
"""

import argparse
import os

from pipeline.entry import run
from pipeline.imports import imports
from pipeline.paths import BUILD, PREPARED, RUNS

# Images are worked on side by side, one a core: numpy's matrix products in each of them would take
# every core again. It has to be said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Evaluate the variant that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    parser.add_argument("variant", help="a name in `variants` of params.yaml")
    variant = parser.parse_args().variant

    with imports():
        from pipeline.composition import load_resolved
        from pipeline.datasets.prepared import load_prepared
        from pipeline.inference.evaluate import evaluate_run
        from pipeline.tracking.rows import log_evaluation

    config = load_resolved(BUILD, "evaluate", variant)
    figures = evaluate_run(config, RUNS / variant, load_prepared(PREPARED / config.dataset))
    log_evaluation(RUNS / variant, config)
    print(f"{variant}: {figures.summary()}")


if __name__ == "__main__":
    run(main)
