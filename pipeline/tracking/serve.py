"""MLflow's pages on this machine, with the comparison of each experiment ready."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from pipeline.errors import UserError
from pipeline.tracking.dashboard import EVERY_RUN, TITLES, link, write_views
from pipeline.tracking.publish import pages
from pipeline.tracking.store import connect, tracking_uri

HOST = "127.0.0.1"
#: No answer of MLflow's for so many seconds: something is wrong.
LONGEST_START = 600.0
#: MLflow's workers for language models: eight processes that this project has no use for.
LEFT_OUT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def serve(port: int) -> None:
    """Show MLflow's pages on 127.0.0.1 until Ctrl-C; of a server, say where they are.

    Args:
        port: of the pages.

    Raises:
        UserError: the port is taken, or the pages do not come up.
    """
    store = tracking_uri()
    if store.startswith(("http://", "https://")):
        _say(ready(), pages())
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; try `make ui PORT=5001`") from error
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    print("starting MLflow ...", flush=True)
    # However this is told to end, the server ends with it; also as a script's background job.
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, signal.default_int_handler)
    # Its log of every request says nothing to a user.
    server = subprocess.Popen(
        command, env=os.environ | LEFT_OUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        # It takes seconds, as the server's start does. The store is the server's to make first.
        import mlflow  # noqa: F401

        _wait(server, port)
        _say(ready(), f"http://{HOST}:{port}")
        print("Ctrl-C ends it", flush=True)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


def ready() -> dict[str, str]:
    """Write the views onto the experiments that hold this project's rows.

    Returns:
        The experiments' names and numbers, the last worked on first.
    """
    client = connect()
    found = [
        experiment
        for experiment in client.search_experiments(order_by=["last_update_time DESC"])
        if client.search_runs([experiment.experiment_id], "tags.signature != ''", max_results=1)
    ]
    for experiment in found:
        write_views(client, experiment.experiment_id)
    return {experiment.name: experiment.experiment_id for experiment in found}


def _say(experiments: dict[str, str], server: str) -> None:
    if not experiments:
        print(f"open {server}/#/experiments?workflowType=machine_learning", flush=True)
        print("no variant is in it yet: `dvc repro` trains them", flush=True)
    for name, number in experiments.items():
        print(f"{name}: {link(server, number, EVERY_RUN)}", flush=True)
    if experiments:
        print(f"the menu `Views` there: {', '.join(TITLES.values())}", flush=True)


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + LONGEST_START
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise UserError(f"MLflow did not start; `mlflow server --port {port}` says why")
