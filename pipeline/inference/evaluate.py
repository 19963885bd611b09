"""Evaluate a trained run: its figures before and after the CRF, and its cost."""

from pathlib import Path

from pipeline.config import Config
from pipeline.datasets.prepared import Prepared
from pipeline.evaluation.figures import Figures
from pipeline.files import whole_folder, write_json
from pipeline.inference.measure import measure
from pipeline.inference.score import score
from pipeline.inference.whole_image import on_device
from pipeline.models.checkpoint import load_network


def evaluate_run(config: Config, run_folder: Path, data: Prepared) -> Figures:
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
    metrics = run_folder / "metrics.json"
    metrics.unlink(missing_ok=True)
    trained = load_network(run_folder / "model.ckpt", config.evaluate.output_stride)
    network, device = on_device(trained, config.trainer.accelerator)
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
