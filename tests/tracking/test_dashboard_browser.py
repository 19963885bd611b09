"""MLflow's own pages in a real browser, over a real store."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium_page import CHROMIUM, Page

from pipeline.config import Config
from pipeline.tracking.dashboard import OVER_SEEDS, link
from pipeline.tracking.naming import evaluation_metrics, swept_params, tags
from pipeline.tracking.store import connect
from pipeline.tracking.tracker import Tracker

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)

#: Variant, its output stride, GMACs and mIoU of each seed.
VARIANTS = {"v3-os16": (16, 1.5, (30.0, 34.0)), "v3-os8": (8, 4.25, (40.0, 43.0))}


def log_study(experiment: str) -> None:
    """Two variants, two seeds each, as training and evaluation log them."""
    for variant, (stride, gmacs, scores) in VARIANTS.items():
        for seed, score in enumerate(scores):
            name = f"{variant}-seed{seed}"
            words = [f"model.output_stride={stride}", f"seed={seed}"]
            config = Config(dataset=experiment, variant=name, overrides=words, seed=seed)
            config.model.output_stride = stride
            tracker = Tracker(experiment, name)
            tracker.params(swept_params(config))
            tracker.tags(tags(config, "0123456789ab", "digest"))
            for step in (10, 20):
                tracker.points({"train/loss": 10 / step, "val/miou": score - 30 + step}, step)
            figures = {"miou": score, "miou_crf": score + 2, "crf_gain": 2.0, "gmacs": gmacs}
            costs = {"params_m": 13.5, "ms_per_image": 10 * gmacs}
            classes = {"sea": score + 10, "island": score - 10}
            tracker.metrics(evaluation_metrics(figures | costs | {"iou": classes}))
            tracker.finish()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`make ui` over a store in a file: its address, and the link that it printed."""
    store = tmp_path_factory.mktemp("ui") / "mlflow.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        patch.setattr("pipeline.tracking.store.HOME", store.parent)
        log_study("in-a-file")
        command = [sys.executable, "-m", "pipeline.ui", "--port", str(port)]
        # MLflow keeps what is uploaded to it in the working directory.
        place = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        ui = subprocess.Popen(
            command, cwd=store.parent, env=place, stdout=subprocess.PIPE, text=True
        )
    assert ui.stdout is not None
    said = []
    for line in ui.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    try:
        (printed,) = (line for line in said if line.startswith("in-a-file: "))
        yield f"http://127.0.0.1:{port}", printed.removeprefix("in-a-file: ").strip()
    finally:
        ui.send_signal(signal.SIGINT)
        assert ui.wait(60) == 0


@pytest.fixture
def page() -> Iterator[Page]:
    # Wide: MLflow opens its assistant beside the charts, and cuts names that do not fit.
    one = Page(2000, 3200)
    yield one
    one.close()


def drawn(page: Page, address: str) -> str:
    """What the page says when its charts are drawn."""
    page.open(address)
    page.wait("document.querySelectorAll('.js-plotly-plot').length > 8")
    page.wait("document.body.innerText.includes('test/iou/island')")
    return page.text()


def test_the_printed_link_opens_the_comparison(dashboard: tuple[str, str], page: Page) -> None:
    server, printed = dashboard
    drawn(page, printed)
    # The axes of the parallel coordinates come last.
    page.wait("document.body.innerText.includes('model.decoder')")
    text = page.text()
    for name in ("v3-os8-seed0", "v3-os8-seed1", "v3-os16-seed0", "v3-os16-seed1"):
        assert name in text
    headings = ("Which variant wins, and at what cost", "From settings to mIoU", "Learning")
    charts = ("cost/gmacs vs. test/miou", "crf/gain", "Parallel Coordinates", "test/iou/sea")
    for title in (*headings, *charts):
        assert title in text
    for axis in ("model.backbone", "model.output_stride", "model.aspp", "model.decoder"):
        assert axis in text
    # A bar for each run.
    for score in ("30.00", "34.00", "40.00", "43.00"):
        assert score in text
    # Nobody else is asked for anything.
    assert page.hosts == {server.removeprefix("http://")}


def test_a_server_compares_the_means_over_seeds(
    dashboard: tuple[str, str], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = dashboard
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    log_study("on-a-server")
    experiment = connect().get_experiment_by_name("on-a-server")
    assert experiment is not None
    text = drawn(page, link(server, experiment.experiment_id, OVER_SEEDS))
    assert "Group: v3-os8" in text
    assert "Group: v3-os16" in text
    for mean in ("32.00", "41.50"):
        assert mean in text
