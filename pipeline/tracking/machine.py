"""What a training makes of its machine: processors, memory, disk, network, GPUs.

MLflow's own monitors read the figures (GPUs: with `nvidia-ml-py`); they go through the run's
journal like everything else, so that a server that is away loses none. MLflow shows them beside
the run, under `System metrics`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from pipeline.tracking.store import NO_FORK
from pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

#: Seconds between two readings.
EVERY = 10.0
#: Seconds that a training waits at its end for the last one.
LONGEST_READING = 60.0


@contextmanager
def watched(tracker: Tracker) -> Iterator[None]:
    """Read the machine every ten seconds, and once at the end; a training that fails has none."""
    psutil.cpu_percent()  # the next call says how busy the processors were since this one
    ended, failed = threading.Event(), threading.Event()
    work = (tracker, ended, failed)
    reader = threading.Thread(target=_read, args=work, daemon=True, name="machine")
    reader.start()
    try:
        yield
    except BaseException:
        # A node that is taken away may have seconds.
        failed.set()
        raise
    finally:
        ended.set()
    reader.join(LONGEST_READING)


def _read(tracker: Tracker, ended: threading.Event, failed: threading.Event) -> None:
    # MLflow's import can wait until the training has taken its first steps.
    is_last = ended.wait(EVERY)
    if failed.is_set():
        return
    monitors = _monitors()
    while not failed.is_set():
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        # A training that is resumed goes on with later steps.
        tracker.points({f"system/{key}": value for key, value in values.items()}, int(time.time()))
        if is_last:
            return
        is_last = ended.wait(EVERY)


def _monitors() -> "list[BaseMetricsMonitor]":
    with NO_FORK:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except (ImportError, RuntimeError):
        pass  # no GPU, or nothing that reads it
    return monitors
