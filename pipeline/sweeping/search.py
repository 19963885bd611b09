"""Search over the settings by Optuna: each trial is a training in a process of its own."""

import csv
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import psutil
import yaml

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.sweeping.machine import Slot
from pipeline.sweeping.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

LOOK_EVERY = 0.5


@dataclass
class Attempt:
    """A trial that runs.

    Attributes:
        trial: Optuna's.
        words: the point that it tries, as overrides.
        folder: of its run.
        slot: where it runs.
        process: its training.
        rows: of the history that Optuna knows.
        told: whether it was told to end.
        pruned: whether that was for being worse than the others.
    """

    trial: "Trial"
    words: list[str]
    folder: Path
    slot: Slot
    process: "subprocess.Popen[bytes]"
    rows: int = 0
    told: bool = False
    pruned: bool = False

    @property
    def name(self) -> str:
        """Of its row in MLflow and its folder."""
        return self.folder.name


@dataclass
class Search:
    """Tries points of a space, as many at a time as there are slots.

    Attributes:
        study: Optuna's, whose storage remembers.
        space: that is searched.
        config: of the fixed words.
        folder: that gets a run's folder for each trial.
        slots: of the machine.
        trials: to finish, those of earlier calls and of other machines counted in.
        program: that trains.
        stopped: whether it was told to stop.
    """

    study: "Study"
    space: Space
    config: Config
    folder: Path
    slots: Sequence[Slot]
    trials: int
    program: Sequence[str] = (sys.executable, "-m", "pipeline.train")
    stopped: bool = False
    _running: list[Attempt] = field(default_factory=list)

    def run(self) -> None:
        """Search until the trials are done; Ctrl-C or SIGTERM stops it, a second call goes on."""
        before = {each: signal.signal(each, self._note) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            _queue_again_what_was_lost(self.study)
            while self._running or (not self.stopped and self._left() > 0):
                self._start()
                for attempt in list(self._running):
                    self._follow(attempt)
                time.sleep(LOOK_EVERY)
        finally:
            for attempt in self._running:
                attempt.process.kill()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True

    def _left(self) -> int:
        known = self.study.get_trials(deepcopy=False)
        ended = sum(trial.state.is_finished() for trial in known)
        # One that was stopped gave no answer: its point is tried again.
        again = sum("again" in trial.user_attrs for trial in known)
        return self.trials - (ended - again) - len(self._running)

    def _start(self) -> None:
        taken = {id(attempt.slot) for attempt in self._running}
        for slot in self.slots:
            if id(slot) in taken or self.stopped or self._left() <= 0:
                continue
            trial = self.study.ask()
            words = self.space.suggest(trial)
            folder = self.folder / f"{self.study.study_name}-{trial.number}"
            attempt = Attempt(trial, words, folder, slot, self._train(folder, words, slot))
            trial.set_user_attr("process", attempt.process.pid)
            trial.set_user_attr("host", socket.gethostname())
            trial.set_user_attr("words", words)
            self._running.append(attempt)
            _say(f"{attempt.name}: {' '.join(words)} on {slot.name}")

    def _train(self, folder: Path, words: list[str], slot: Slot) -> "subprocess.Popen[bytes]":
        folder.mkdir(parents=True, exist_ok=True)
        own = [f"variant='{folder.name}'", f"hydra.run.dir='{folder}'"]
        with open(folder / "train.log", "wb") as log:
            # A session of its own: Ctrl-C reaches the search alone, which tells the trainings.
            process = subprocess.Popen(
                [*self.program, *self.space.fixed, *words, *own],
                env=os.environ | slot.environment(self.config.trainer.devices),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        slot.bind(process.pid)
        return process

    def _follow(self, attempt: Attempt) -> None:
        code = attempt.process.poll()
        rows = read_history(attempt.folder / "history.csv")
        for iteration, miou in rows[attempt.rows :]:
            attempt.trial.report(miou, iteration)
            _say(f"{attempt.name}: iteration {iteration}, val mIoU {miou:.2f}")
        attempt.rows = max(attempt.rows, len(rows))
        if code is not None:
            self._running.remove(attempt)
            self._end(attempt, code, [miou for _, miou in rows])
        elif not attempt.told:
            attempt.pruned = bool(rows) and not self.stopped and attempt.trial.should_prune()
            if attempt.pruned or self.stopped:
                attempt.told = True
                attempt.process.terminate()

    def _end(self, attempt: Attempt, code: int, scores: list[float]) -> None:
        from optuna.trial import TrialState

        trial, name = attempt.trial, attempt.name
        if code == 0 and scores:
            value = max(scores) if self.config.train.keep == "best" else scores[-1]
            self.study.tell(trial, value)
            _say(f"{name}: done, val mIoU {value:.2f}")
        elif attempt.pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            _say(f"{name}: pruned, worse than the others so far")
        else:
            self.study.tell(trial, state=TrialState.FAIL)
            if self.stopped:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
                _say(f"{name}: stopped")
            else:
                _say(f"{name}: failed: {_last_line(attempt.folder / 'train.log')}")
        if not self.stopped:
            _tag(attempt.folder, self.study.study_name)


def open_study(name: str, storage: str, iterations: int) -> "Study":
    """The study of a name, new or as it was left.

    Trials are ended early when they are below the median of the others at the same iteration, after
    a third of the training.

    Args:
        name: of the study.
        storage: Optuna's, such as `sqlite:///FILE`.
        iterations: of a training.

    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("optuna is not installed; pip install '.[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=iterations // 3),
    )


def read_history(path: Path) -> list[tuple[int, float]]:
    """(iteration, val mIoU) of each row that has one; empty as long as there is no history."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [
                (int(float(row["iteration"])), float(row["val_miou"] or math.nan))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [(iteration, miou) for iteration, miou in rows if math.isfinite(miou)]


def summary(study: "Study", fixed: Sequence[str]) -> str:
    """The best trial, as a variant that can be copied into params.yaml."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return "no trial has ended yet"
    best = study.best_trial
    every = [*fixed, *best.user_attrs["words"]]
    variant = yaml.safe_dump({f"{study.study_name}-{best.number}": every}, default_flow_style=None)
    return (
        f"best of {len(done)}: val mIoU {best.value:.2f}; as a variant for params.yaml:\n"
        f"  {variant.strip()}"
    )


def _queue_again_what_was_lost(study: "Study") -> None:
    """Points whose process on this machine is gone without an answer (kill -9) are tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        here = trial.user_attrs.get("host") == socket.gethostname()
        if here and not psutil.pid_exists(trial.user_attrs.get("process", -1)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    own = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (own or lines or ["no word"])[-1]


def _tag(folder: Path, study: str) -> None:
    """Name the study on the trial's row, so that MLflow can list its trials; if it can."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from pipeline.tracking.journal import row_of
    from pipeline.tracking.store import tracking_uri

    try:
        if row := row_of(folder):
            MlflowClient(tracking_uri()).set_tag(row, "search", study)
    except (OSError, MlflowException):
        return


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
