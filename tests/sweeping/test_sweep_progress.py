import math
import os
from pathlib import Path

import pytest

from pipeline.sweeping.progress import Progress


def write(path: Path, time: float, *rows: str) -> None:
    path.write_text("\n".join(("iteration,val_miou", *rows)) + "\n")
    os.utime(path, (time, time))


def test_the_pace_between_the_rows_tells_the_time_left(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    progress = Progress(path, iterations=100)
    progress.start(1000.0)
    assert not progress.look()
    assert progress.seconds_left(1001.0) is None
    write(path, 1010.0, "20,31.5")
    assert progress.look()
    assert not progress.look()  # nothing new
    assert (progress.iteration, progress.miou) == (20, 31.5)
    assert progress.seconds_left(1010.0) == pytest.approx(40.0)
    # From the second row on, the start of the process is no longer in the pace.
    write(path, 1018.0, "20,31.5", "40,40.0")
    assert progress.look()
    write(path, 1026.0, "20,31.5", "40,40.0", "60,41.0")
    assert progress.look()
    assert progress.seconds_left(1028.0) == pytest.approx(14.0)


def test_an_older_history_is_not_this_training(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write(path, 900.0, "100,70.0")
    progress = Progress(path, iterations=100)
    progress.start(1000.0)
    assert not progress.look()
    assert progress.iteration == 0
    assert math.isnan(progress.miou)


def test_a_resumed_training_is_timed_from_its_first_new_row(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    progress = Progress(path, iterations=100)
    progress.start(1000.0)
    write(path, 1010.0, "20,30.0", "40,31.0", "60,32.0")
    assert progress.look()
    assert progress.seconds_left(1010.0) is None
    write(path, 1020.0, "20,30.0", "40,31.0", "60,32.0", "80,33.0")
    assert progress.look()
    assert progress.seconds_left(1020.0) == pytest.approx(10.0)


def test_half_a_history_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    progress = Progress(path, iterations=100)
    write(path, 10.0, "twenty,")
    assert not progress.look()
    write(path, 11.0, "20,")
    assert progress.look()
    assert math.isnan(progress.miou)
