"""One MLflow row a run: training opens it, evaluation reopens it.

A tracking server that is away never stops a run: the first failure is said in one line, and the
run goes on untracked. `mlflow` is imported when a row is opened: it takes seconds.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.paths import HOME

if TYPE_CHECKING:
    from mlflow import MlflowClient


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or mlflow.db beside the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{HOME / 'mlflow.db'}"


class Tracker:
    """A row of MLflow, or nothing where the store cannot be reached.

    Args:
        experiment: the experiment's name: one per data set.
        name: the row's name: the variant.
        run_id: the row to reopen; None opens a new one.
    """

    def __init__(self, experiment: str, name: str, run_id: str | None = None) -> None:
        self.run_id = run_id
        self._client: MlflowClient | None = None
        # A server that is away is given up after seconds, not after MLflow's many minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        self._guard(lambda: self._open(experiment, name))

    @classmethod
    def off(cls) -> "Tracker":
        """A tracker that logs nothing: for all processes of a run but the first."""
        tracker = cls.__new__(cls)
        tracker.run_id, tracker._client = None, None
        return tracker

    def _open(self, experiment: str, name: str) -> None:
        # The store prints a line for each migration of a new database.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        uri = tracking_uri()
        client = MlflowClient(tracking_uri=uri)
        if self.run_id is not None:
            try:
                client.update_run(self.run_id, status="RUNNING")
                self._client = client
                return
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                print(f"MLflow has no run {self.run_id} any more: opening a new row", flush=True)
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        if found is None:
            local = uri.startswith("sqlite:")
            place = (HOME / "mlartifacts" / experiment).as_uri() if local else None
            identifier = client.create_experiment(experiment, artifact_location=place)
        else:
            identifier = found.experiment_id
        self.run_id = client.create_run(identifier, run_name=name).info.run_id
        self._client = client

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings; a row's params cannot be changed afterwards."""

        def send(client: "MlflowClient", run_id: str) -> None:
            known = client.get_run(run_id).data.params
            for key, value in values.items():
                if key not in known:
                    client.log_param(run_id, key, value)

        self._send(send)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._send(lambda c, r: [c.set_tag(r, key, value) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._send(lambda client, run_id: client.log_batch(run_id, metrics=batch))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file or a folder with the row."""

        def send(client: "MlflowClient", run_id: str) -> None:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), folder)
            else:
                client.log_artifact(run_id, str(path), folder)

        self._send(send)

    def dataset(self, name: str, digest: str) -> None:
        """Say which data the run saw, so that runs can be found by it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # MLflow's digests have 36 characters at most.
        seen = Dataset(name=name, digest=digest[:36], source_type="local", source=name)
        inputs = [DatasetInput(seen, [InputTag("mlflow.data.context", "training")])]
        self._send(lambda client, run_id: client.log_inputs(run_id, inputs))

    def finish(self, status: str = "FINISHED") -> None:
        """Close the row as FINISHED or FAILED."""
        self._send(lambda client, run_id: client.set_terminated(run_id, status))

    def _send(self, call: "Callable[[MlflowClient, str], object]") -> None:
        client, run_id = self._client, self.run_id
        if client is not None and run_id is not None:
            self._guard(lambda: call(client, run_id))

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        # Whatever a store raises, from a refused connection to a locked database: the run goes on.
        except Exception as error:
            self._client = None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(
                f"warning: MLflow at {tracking_uri()} failed ({reason[:200]}); "
                "going on without tracking",
                file=sys.stderr,
                flush=True,
            )
