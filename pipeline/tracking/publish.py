"""What the report adds to MLflow: itself, on the variants' rows; and where the comparison opens."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import warn
from pipeline.tracking.dashboard import EVERY_RUN, OVER_SEEDS, link, write_views
from pipeline.tracking.journal import row_of
from pipeline.tracking.naming import GROUP
from pipeline.tracking.store import connect, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

#: Where a row keeps the report.
FOLDER = "report"


def pages() -> str:
    """Where MLflow's pages are: the server's, or those of `make ui`."""
    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return f"http://127.0.0.1:{os.environ.get('PORT', '5000')}"
    parts = urlsplit(uri)
    # Without the user's name and password.
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def publish(page: Path, folders: Sequence[Path]) -> list[str]:
    """Keep the report with the variants' rows.

    A store that is away costs one line: the report is on the disk.

    Args:
        page: of the report, one file.
        folders: the variants' runs/<variant>.

    Returns:
        Where MLflow compares the variants; with several seeds also where it compares their means.
    """
    numbers = [number for folder in folders if (number := row_of(folder))]
    database = Path(tracking_uri().removeprefix("sqlite:///"))
    if not numbers or (tracking_uri().startswith("sqlite:///") and not database.is_file()):
        return []
    try:
        client = connect()
        rows = [row for number in numbers if (row := _row(client, number))]
        for row in rows:
            client.log_artifact(row.info.run_id, str(page), FOLDER)
        experiments = list(dict.fromkeys(row.info.experiment_id for row in rows))
        for experiment in experiments:
            write_views(client, experiment)
    # Whatever a store raises: the report is made.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = reason.replace(tracking_uri(), pages())
        warn(f"MLflow at {pages()} failed ({reason[:200]}); the report is not on its rows")
        return []
    groups = Counter(row.data.tags.get(GROUP) for row in rows)
    several = any(count > 1 for name, count in groups.items() if name)
    names = (OVER_SEEDS, EVERY_RUN) if several else (EVERY_RUN,)
    return [link(pages(), experiment, name) for experiment in experiments for name in names]


def dashboard_of(row: str | None) -> str | None:
    """Where MLflow compares a row with the others; None: the store has no such row, or is away."""
    if row is None:
        return None
    try:
        found = _row(connect(), row)
    # Whatever a store raises: the run is over.
    except Exception:
        return None
    return link(pages(), found.info.experiment_id) if found else None


def _row(client: "MlflowClient", number: str) -> "Run | None":
    """The row; None: it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
