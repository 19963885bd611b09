"""The row of a run in MLflow's store: opened once, and filled with a journal's entries.

`mlflow` is imported when a row is opened: it takes seconds.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.paths import HOME
from pipeline.tracking.dashboard import write_views
from pipeline.tracking.journal import Entry, Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

#: Held while MLflow is imported, beside a training: a process that is forked meanwhile would have
#: modules that are half there.
NO_FORK = threading.RLock()
os.register_at_fork(
    before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=NO_FORK.release
)

#: The tag by which a row is found whose number was lost.
TOKEN = "journal"
#: The tag from which MLflow's charts have a row's colour, by itself a random one; and colours that
#: are told apart with any eyes (Okabe and Ito), before some that are with most.
COLOUR = "mlflow.runColor"
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#7B5EA7", "#8C564B", "#7F7F7F", "#A6A61D"),
)
#: MLflow takes at most so many metrics at once.
AT_ONCE = 1000


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or mlflow.db beside the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{HOME / 'mlflow.db'}"


def connect() -> "MlflowClient":
    """The store's client."""
    # A server that is away is noticed after seconds, not after MLflow's many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # The store prints a line for each migration of a new database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with NO_FORK:
        from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri())


class Row:
    """One row of MLflow.

    Args:
        journal: with the row's number, if it has one; it is noted there when it gets one.
        experiment: its name: one per data set.
        name: the row's.

    Raises:
        Exception: whatever a store raises that cannot be reached.
    """

    def __init__(self, journal: Journal, experiment: str, name: str) -> None:
        self._journal = journal
        self._client = connect()
        self._id = self._open(experiment, name)

    def _open(self, experiment: str, name: str) -> str:
        from mlflow.exceptions import MlflowException

        journal, client = self._journal, self._client
        if journal.row is not None and self._reopen(journal.row):
            return journal.row
        place = _experiment(client, experiment)
        with contextlib.suppress(MlflowException):
            # A store that does not take them shows its plain page.
            write_views(client, place)
        found = None
        if journal.continued and journal.row is None:
            # Ended between the row's opening and the note of its number, perhaps.
            rows = client.search_runs([place], f"tags.`{TOKEN}` = '{journal.token}'")
            found = rows[0].info.run_id if rows else None
        if found is None:
            tags = {TOKEN: journal.token, COLOUR: _free_colour(client, place)}
            row = client.create_run(place, run_name=name, tags=tags)
            found = row.info.run_id
        journal.opened(found)
        return found

    def _reopen(self, row: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(row, status="RUNNING")
            return True
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            print(f"MLflow has no run {row} any more: opening a new row", flush=True)
            self._journal.start_over()
            return False

    def send(self, entries: Sequence[Entry], again: bool) -> None:
        """Send entries in their order, each noted in the journal when it has arrived.

        Args:
            entries: the journal's waiting ones.
            again: whether some may have arrived before; points that are there are not doubled.
        """
        for what, group in groupby(entries, key=lambda entry: entry["do"]):
            if what in ("points", "metrics"):
                self._send_metrics(list(group), again and what == "points")
                continue
            for entry in group:
                self._send_one(entry)
                self._journal.arrived(1)

    def _send_metrics(self, entries: list[Entry], again: bool) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, entry["time"], entry["step"])
            for entry in entries
            for key, value in entry["values"].items()
        ]
        if again:
            metrics = self._without_known(metrics)
        for start in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[start : start + AT_ONCE])
        self._journal.arrived(len(entries))

    def _without_known(self, metrics: "list[Metric]") -> "list[Metric]":
        known = {
            (key, point.step)
            for key in {metric.key for metric in metrics}
            for point in self._client.get_metric_history(self._id, key)
        }
        return [metric for metric in metrics if (metric.key, metric.step) not in known]

    def _send_one(self, entry: Entry) -> None:
        client, row = self._client, self._id
        match entry["do"]:
            case "params":
                known = client.get_run(row).data.params
                for key, value in entry["values"].items():
                    if key not in known:
                        client.log_param(row, key, value)
            case "tags":
                for key, value in entry["values"].items():
                    client.set_tag(row, key, value)
            case "dataset":
                self._send_dataset(entry["name"], entry["digest"])
            case "artifact":
                path = Path(entry["path"])
                if path.is_dir():
                    client.log_artifacts(row, str(path), entry["folder"])
                elif path.exists():
                    client.log_artifact(row, str(path), entry["folder"])
            case "finish":
                client.set_terminated(row, entry["status"], entry["time"])

    def _send_dataset(self, name: str, digest: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # MLflow's digests have 36 characters at most.
        seen = Dataset(name=name, digest=digest[:36], source_type="local", source=name)
        inputs = [DatasetInput(seen, [InputTag("mlflow.data.context", "training")])]
        self._client.log_inputs(self._id, inputs)


def _free_colour(client: "MlflowClient", experiment: str) -> str:
    """The colour that the fewest of the latest rows have."""
    latest = ["attributes.start_time DESC"]
    rows = client.search_runs([experiment], order_by=latest, max_results=10 * len(COLOURS))
    taken = [row.data.tags.get(COLOUR) for row in rows]
    return min(COLOURS, key=taken.count)


def _experiment(client: "MlflowClient", name: str) -> str:
    """The experiment's number; it is made if there is none, and brought back if it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        local = tracking_uri().startswith("sqlite:")
        place = (HOME / "mlartifacts" / name).as_uri() if local else None
        return client.create_experiment(name, artifact_location=place)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id
