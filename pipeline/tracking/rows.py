"""What the search of the CRF's settings and evaluation add to the row that training opened."""

import json
from pathlib import Path

from pipeline.config import Config
from pipeline.tracking.naming import evaluation_metrics, search_metrics
from pipeline.tracking.tracker import Tracker


def log_evaluation(folder: Path, config: Config) -> None:
    """Add metrics.json and evaluation/ to the run's row.

    Args:
        folder: the run's, with run.json and what evaluation wrote.
        config: the evaluation's.
    """
    record = json.loads((folder / "run.json").read_text())
    tracker = Tracker(config.dataset, config.variant or folder.name, record.get("run_id"), folder)
    tracker.metrics(evaluation_metrics(json.loads((folder / "metrics.json").read_text())))
    tracker.tags({"evaluate.split": config.evaluate.split})
    # run.json: versions, device, seconds, where the weights came from.
    for name in ("run.json", "history.csv", "cost.json", "metrics.json"):
        tracker.artifact(folder / name)
    for path in sorted((folder / "evaluation").iterdir()):
        # The label maps of every image stay here: they would be thousands of files.
        if path.name != "labels":
            tracker.artifact(path, f"evaluation/{path.name}" if path.is_dir() else "evaluation")
    tracker.finish()


def log_search(folder: Path, config: Config) -> None:
    """Add what the search of the CRF's settings found to the run's row; without a run, nothing.

    Args:
        folder: the run's, with run.json and crf/.
        config: the search's.
    """
    if not (folder / "run.json").is_file():
        return
    record = json.loads((folder / "run.json").read_text())
    tracker = Tracker(config.dataset, config.variant or folder.name, record.get("run_id"), folder)
    tracker.metrics(search_metrics(json.loads((folder / "crf" / "search.json").read_text())))
    tracker.artifact(folder / "crf", "crf")
    tracker.finish()
