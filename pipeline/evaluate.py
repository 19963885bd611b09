"""Stage `evaluate`: score a trained variant, before and after the CRF, and state its cost.

Heavy imports stand inside the functions: each CRF process imports the top of this module.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.entry import run
from pipeline.files import whole_folder, write_json
from pipeline.paths import BUILD, PREPARED, RUNS

if TYPE_CHECKING:
    from pipeline.datasets.prepared import Prepared
    from pipeline.evaluation.figures import Figures


def evaluate_run(config: Config, run_folder: Path, data: "Prepared") -> "Figures":
    """Score runs/<variant>/model.ckpt; write evaluation/, then metrics.json, into the same folder.

    Args:
        config: of which the sections evaluate, crf and trainer count.
        run_folder: runs/<variant>.
        data: the training-ready set it was trained on.

    Returns:
        The figures that were written.

    Raises:
        UserError: the checkpoint is missing or damaged, or does not fit the data set.
    """
    from pipeline.evaluation.figures import Figures
    from pipeline.inference.measure import measure
    from pipeline.inference.score import score
    from pipeline.inference.whole_image import on_device
    from pipeline.training.checkpoint import load_network

    metrics = run_folder / "metrics.json"
    metrics.unlink(missing_ok=True)
    network, device = on_device(load_network(run_folder / "model.ckpt"), config.trainer.accelerator)
    with whole_folder(run_folder / "evaluation") as folder:
        cost = measure(network, config.evaluate.cost_size, device)
        matrices = score(
            network,
            device,
            data,
            config.evaluate,
            config.crf,
            folder / "pictures",
            config.trainer.workers,
            config.trainer.progress_bar,
        )
        figures = Figures(
            dataset=data.name,
            split=config.evaluate.split,
            images=len(data.ids(config.evaluate.split)),
            void=data.void,
            classes=list(data.classes),
            palette=[list(colour) for colour in data.palette],
            matrices=matrices,
            cost=cost,
            evaluate=config.evaluate,
            crf=config.crf,
        )
        figures.write(folder)
    write_json(metrics, figures.metrics())
    return figures


def main() -> None:
    """Evaluate the variant that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    parser.add_argument("variant", help="a name in `variants` of params.yaml")
    variant = parser.parse_args().variant

    from pipeline.composition import load_resolved
    from pipeline.datasets.prepared import load_prepared
    from pipeline.tracking.rows import log_evaluation

    config = load_resolved(BUILD, "evaluate", variant)
    figures = evaluate_run(config, RUNS / variant, load_prepared(PREPARED / config.dataset))
    log_evaluation(RUNS / variant, config)
    print(f"{variant}: {figures.summary()}")


if __name__ == "__main__":
    run(main)
