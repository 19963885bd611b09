"""What evaluation adds to the row that training opened."""

import json
from pathlib import Path

from pipeline.config import Config
from pipeline.tracking.naming import evaluation_metrics
from pipeline.tracking.tracker import Tracker


def log_evaluation(folder: Path, config: Config) -> None:
    """Add metrics.json and evaluation/ to the run's row.

    Args:
        folder: the run's, with run.json and what evaluation wrote.
        config: the evaluation's.
    """
    record = json.loads((folder / "run.json").read_text())
    tracker = Tracker(config.dataset, config.variant or folder.name, record.get("run_id"))
    tracker.metrics(evaluation_metrics(json.loads((folder / "metrics.json").read_text())))
    tracker.tags({"evaluate.split": config.evaluate.split})
    tracker.artifact(folder / "metrics.json")
    tracker.artifact(folder / "evaluation", "evaluation")
    tracker.finish()
