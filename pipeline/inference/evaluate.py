"""Evaluate a trained run from its stored logits: its figures before and after the CRF."""

from pathlib import Path

from pipeline.config import Config, EvaluateConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.figures import Figures
from pipeline.files import whole_folder, write_json
from pipeline.inference.logits import LOGITS, StoredLogits, read_cost, run_settings
from pipeline.inference.score import score
from pipeline.inference.search import crf_settings, held_apart


def evaluate_run(config: Config, run_folder: Path, data: Prepared) -> Figures:
    """Score runs/<variant>/logits; write evaluation/, then metrics.json, into the same folder.

    The network is not run. Images on which the CRF's settings were searched are in no figure.

    Args:
        config: of which the sections evaluate and trainer count.
        run_folder: runs/<variant>, with what the stages `infer` and `tune` left there.
        data: the training-ready set it was trained on.

    Returns:
        The figures that were written.

    Raises:
        UserError: something of that is missing, damaged, or of another data set or settings.
    """
    metrics = run_folder / "metrics.json"
    metrics.unlink(missing_ok=True)
    logits = StoredLogits(run_folder / LOGITS, config.evaluate.fusion)
    _check_up_to_date(logits, config.evaluate, data)
    cost, network_seconds = read_cost(run_folder)
    crf, apart = crf_settings(run_folder), held_apart(run_folder)
    ids = [id for id in logits.ids if id not in apart]
    with whole_folder(run_folder / "evaluation") as folder:
        tally, seconds = score(data, logits, ids, config.evaluate, crf, folder, config.trainer)
        figures = Figures(
            dataset=data.name,
            split=config.evaluate.split,
            classes=list(data.classes),
            palette=[list(colour) for colour in data.palette],
            ids=ids,
            tally=tally,
            cost=cost,
            evaluate=config.evaluate,
            crf=crf,
            held_apart=len(logits.ids) - len(ids),
            seconds=network_seconds | seconds.parts,
        )
        figures.write(folder)
    write_json(metrics, figures.metrics())
    print(f"{run_folder.name}: {seconds.line()}")
    return figures


def _check_up_to_date(logits: StoredLogits, evaluate: EvaluateConfig, data: Prepared) -> None:
    """Refuse logits of other data or another run of the network.

    Raises:
        UserError: they are.
    """
    index = logits.index
    if index.data != data.digest or len(data.classes) != index.classes:
        raise UserError(f"{logits.folder}: of other data than {data.folder}; {logits.remedy}")
    if index.settings != run_settings(evaluate):
        wanted = run_settings(evaluate)
        key = next(key for key in wanted if index.settings.get(key) != wanted[key])
        raise UserError(
            f"{logits.folder}: made with evaluate.{key}={index.settings.get(key)}, not "
            f"{wanted[key]}; {logits.remedy}"
        )
