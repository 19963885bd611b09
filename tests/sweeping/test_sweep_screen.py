import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from pipeline.sweeping.job import Job
from pipeline.sweeping.progress import Progress
from pipeline.sweeping.scheduler import DONE, FAILED, RUNS, WAITS, Pending
from pipeline.sweeping.screen import PlainScreen, as_table, clock


def job(iteration: int, stage: str, **about: Any) -> Job:
    """What a screen reads of a job."""
    progress = Progress(Path("none"), iterations=30000, iteration=iteration, miou=71.25)
    slot = SimpleNamespace(name="GPU 0,1")
    return cast(
        Job, SimpleNamespace(slot=slot, stage=stage, progress=progress, waits=False, **about)
    )


def variants() -> list[Pending]:
    running = Pending("v3plus-resnet101-os16-a-long-name", [], 30000, state=RUNS)
    running.job = job(1500, "train")
    failed = Pending("bad", [], 30000, state=FAILED, error="the loss is nan", seconds=61.0)
    failed.job = job(0, "train")
    twin = Pending("twin", [], 30000, after="v3plus-resnet101-os16-a-long-name")
    done = Pending("done", [], 30000, state=DONE, seconds=3723.0)
    done.job = job(30000, "evaluate")
    return [running, failed, twin, done]


def drawn(height: int) -> str:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(as_table(variants(), 80, height, elapsed=75.0))
    return cast(io.StringIO, console.file).getvalue()


def test_the_table_fits_80_columns_and_says_how_far_each_is() -> None:
    lines = drawn(height=20).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert lines[1].startswith("v3plus-resnet101-os16-a-lo")
    assert "1500/30000" in lines[1]
    assert "71.25" in lines[1]
    assert "failed" in lines[2]
    assert lines[4].split() == ["done", "GPU", "0,1", "done", "30000/30000", "71.25", "1:02:03"]
    assert lines[-1].strip() == "2 of 4 ended, 1:15"


def test_where_not_all_fit_those_that_run_are_shown() -> None:
    text = drawn(height=2)
    assert "v3plus" in text
    assert "1:02:03" not in text
    assert "2 not shown" in text


def test_without_a_terminal_a_line_says_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    running, failed, waiting, done = variants()
    PlainScreen().show([], [running, failed, done])
    lines = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "v3plus-resnet101-os16-a-long-name: iteration 1500/30000, val mIoU 71.25",
        "bad: failed after 1:01: the loss is nan",
        "done: done in 1:02:03, val mIoU 71.25",
    ]
    assert waiting.state == WAITS


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3723, "1:02:03")])
def test_times_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
