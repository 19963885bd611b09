"""A search by Optuna with real processes; the training is a script of a few lines."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.config import Config, TrainConfig
from pipeline.cores import own_cores
from pipeline.errors import UserError
from pipeline.sweeping.machine import Slot
from pipeline.sweeping.space import read_space

pytest.importorskip("optuna", reason="pip install '.[search]'")

from pipeline.sweeping.search import Search, open_study, summary

#: The worse the learning rate, the worse the figures, and a bad training takes its time.
TRAIN = """
import pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(words["hydra.run.dir"].strip("'"))
rate = float(words["train.learning_rate"])
if rate == 9.0:
    sys.exit("error: the loss is nan")
rows = ["iteration,val_miou"]
for iteration in (10, 20, 30):
    rows.append(f"{iteration},{100 * rate + iteration / 10}")
    (folder / "history.csv").write_text("\\n".join(rows) + "\\n")
    time.sleep(20 if rate < 0.2 and iteration == 20 else 0)
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, str]:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    return sys.executable, str(script)


def search_of(tmp_path: Path, program: tuple[str, str], word: str, trials: int) -> Search:
    study = open_study("rates", f"sqlite:///{tmp_path / 'study.db'}", iterations=30)
    config = Config(train=TrainConfig(iterations=30))
    slot = Slot("here", (), tuple(own_cores()))
    space = read_space(["model=deeplab_v3", word])
    return Search(study, space, config, tmp_path, [slot], trials, program)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sweeping.search.LOOK_EVERY", 0.02)


def test_the_best_point_is_found_and_a_second_call_goes_on(
    tmp_path: Path, program: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    search_of(tmp_path, program, "train.learning_rate=interval(0.3,0.9)", 4).run()
    search = search_of(tmp_path, program, "train.learning_rate=interval(0.3,0.9)", 6)
    search.run()
    values = [trial.value for trial in search.study.trials]
    assert len(values) == 6
    best = max(value for value in values if value is not None)
    rate = search.study.best_trial.user_attrs["words"][0]
    said = summary(search.study, search.space.fixed)
    assert said.startswith(f"best of 6: val mIoU {best:.2f}; as a variant for params.yaml:")
    assert f"[model=deeplab_v3, {rate}]" in said
    assert "rates-5: done" in capsys.readouterr().out


def test_a_trial_below_the_median_is_ended_early(
    tmp_path: Path, program: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    search = search_of(tmp_path, program, "train.learning_rate=0.1,0.5,0.6,0.7", 5)
    for rate in ("0.5", "0.6", "0.7", "0.5", "0.1"):
        search.study.enqueue_trial({"train.learning_rate": rate})
    started = time.monotonic()
    search.run()
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE"] * 4 + ["PRUNED"]
    assert time.monotonic() - started < 20
    assert "rates-4: pruned" in capsys.readouterr().out


def test_a_training_that_fails_counts_and_says_why(
    tmp_path: Path, program: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    search = search_of(tmp_path, program, "train.learning_rate=choice(9.0)", 2)
    search.run()
    assert "rates-1: failed: the loss is nan" in capsys.readouterr().out
    assert summary(search.study, ()) == "no trial has ended yet"


def test_a_stopped_trial_is_tried_again_and_not_counted(
    tmp_path: Path, program: tuple[str, str]
) -> None:
    def stop() -> None:
        while not (tmp_path / "rates-0" / "history.csv").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    search = search_of(tmp_path, program, "train.learning_rate=choice(0.1)", 1)
    search.run()
    assert search.stopped
    assert [trial.state.name for trial in search.study.trials] == ["FAIL", "WAITING"]
    # The next call takes the same point up: here it is one that ends.
    (tmp_path / "train.py").write_text(TRAIN.replace("sleep(20", "sleep(0"))
    again = search_of(tmp_path, program, "train.learning_rate=choice(0.1)", 1)
    again.run()
    assert [trial.state.name for trial in again.study.trials] == ["FAIL", "COMPLETE"]


def test_a_point_whose_process_was_killed_is_tried_again(
    tmp_path: Path, program: tuple[str, str]
) -> None:
    search = search_of(tmp_path, program, "train.learning_rate=choice(0.5)", 1)
    lost = search.study.ask()
    lost.suggest_categorical("train.learning_rate", ["0.5"])
    lost.set_user_attr("host", socket.gethostname())
    lost.set_user_attr("process", 2**22 + 1)  # more than there are
    search.run()
    assert [trial.state.name for trial in search.study.trials] == ["FAIL", "COMPLETE"]


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(UserError, match=r"nothing to search; name at least one key"):
        read_space(["model=deeplab_v3"])
    with pytest.raises(UserError, match=r"train\.learning_rate=interval"):
        read_space(["train.learning_rate=interval(1"])
