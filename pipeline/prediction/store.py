"""MLflow's store, as the registry and those who load from it open it."""

import logging
import os
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking.store import tracking_uri


def open_store() -> str:
    """Have MLflow work on this project's store, or on the one that MLFLOW_TRACKING_URI names.

    Returns:
        Its address.

    Raises:
        UserError: its database is not there; asked for it, MLflow would make an empty one.
    """
    store = tracking_uri()
    database = Path(store.removeprefix("sqlite:///"))
    if store.startswith("sqlite:///") and not database.is_file():
        raise UserError(f"{database}: no such store of MLflow; set MLFLOW_TRACKING_URI")
    # A server that is away is noticed after seconds, not after MLflow's many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    mlflow.set_tracking_uri(store)
    return store
