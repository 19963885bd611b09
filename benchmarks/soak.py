"""Trainings that are killed at random moments, over and over, beside ones that nobody stops.

    python -m benchmarks.soak FOLDER --kills 24

makes a copy of the project in FOLDER with a small data set, trains each case once undisturbed, and
once more with SIGKILL at random moments: while it starts, trains, validates, saves or ends. What is
left in the end is compared: the weights bit for bit, history.csv byte for byte, and MLflow, which
has to have one row with every point once. The last case is killed together with the `dvc repro`
that runs it.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mlflow import MlflowClient

from benchmarks.small_project import copy_project
from pipeline.entry import run
from pipeline.errors import UserError

SIZES = {"train": 6, "val": 3, "test": 2}
SMALL = (
    "model.width=0.25",
    "model.aspp_channels=16",
    "model.rates=[1,2,3]",
    "train.crop_size=65",
    "train.batch_size=2",
    "train.iterations=40",
    "train.validate_every=8",
    "train.keep=last",
    "trainer.accelerator=cpu",
)
#: Name -> overrides. Dropout, loader processes, two phases, the average of the weights.
CASES = {
    "plain": ("trainer.workers=0", "trainer.save_minutes=0.01"),
    "every-step": ("trainer.workers=1", "trainer.save_minutes=0", "train.keep=best"),
    "two-phases": (
        *("trainer.workers=0", "trainer.save_minutes=0.02"),
        *("train.iterations=20", "train.second_phase.iterations=20"),
    ),
    "averaged": ("trainer.workers=0", "trainer.save_minutes=0.01", "train.ema_decay=0.99"),
}


class Copy(NamedTuple):
    """The copied project.

    Attributes:
        root: its folder.
    """

    root: Path

    @property
    def store(self) -> str:
        """MLflow's."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def start(self, *command: str, log: Path) -> "subprocess.Popen[bytes]":
        """A command there, in a process group of its own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC"))}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment["PYTHONPATH"] = str(self.root)
        environment["OMP_NUM_THREADS"] = "1"
        with open(log, "ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def finish(self, *command: str, log: Path) -> float:
        """Run a command to its end.

        Returns:
            Seconds.

        Raises:
            UserError: it failed.
        """
        started = time.monotonic()
        if self.start(*command, log=log).wait():
            raise UserError(f"{' '.join(command)} failed: see {log}")
        return time.monotonic() - started


def copied(folder: Path, trainings: int) -> Copy:
    """The project with a small data set, prepared by its own stages, and variants to be killed."""
    root = folder / "project"
    shutil.rmtree(root, ignore_errors=True)
    # Each saves at times of its own: one that runs as another did would take over from it.
    variants = {
        f"repro-{number}": [*SMALL, *CASES["plain"], f"trainer.save_minutes={0.01 + number / 1e4}"]
        for number in range(trainings)
    }
    copy_project(root, {"dataset": "shapes", "seed": 0, "variants": variants}, SIZES)
    copy, log = Copy(root), folder / "prepare.log"
    copy.finish("git", "init", "-q", log=log)
    copy.finish("dvc", "commit", "-f", "-q", "data.dvc", log=log)
    copy.finish("dvc", "repro", "augment", "compose", log=log)
    return copy


class Training(NamedTuple):
    """One that is killed.

    Attributes:
        folder: the run's; its name is the row's in MLflow.
        command: that starts it, and goes on with it.
    """

    folder: Path
    command: tuple[str, ...]


class Case(NamedTuple):
    """A training, and how it is started.

    Attributes:
        name: of the case.
        whole: the undisturbed run.
        through_dvc: whether the others are started by `dvc repro`.
    """

    name: str
    whole: Training
    through_dvc: bool = False

    def training(self, copy: Copy, number: int) -> Training:
        """One more to be killed."""
        if self.through_dvc:
            name = f"repro-{number}"
            return Training(copy.root / "runs" / name, ("dvc", "repro", f"train@{name}"))
        return started(copy, f"{self.name}-killed-{number}", *CASES[self.name])


def started(copy: Copy, name: str, *overrides: str) -> Training:
    """A training in a folder of its own."""
    folder = copy.root / "soak" / name
    command = ("python", "-m", "pipeline.train", *SMALL, *overrides)
    return Training(folder, (*command, f"hydra.run.dir={folder}", f"variant={name}"))


def cases(copy: Copy) -> list[Case]:
    """Those of `CASES`, and one through DVC."""
    found = [Case(name, started(copy, name, *CASES[name])) for name in CASES]
    return [*found, Case("dvc repro", found[0].whole, through_dvc=True)]


def kill_and_resume(
    copy: Copy, training: Training, seconds: float, kills: int, log: Path, chance: random.Random
) -> int:
    """Start, kill at a random moment, start again; then leave it alone until it ends.

    Args:
        copy: where.
        training: what.
        seconds: of the undisturbed run, its start included.
        kills: so many at most; fewer if it ends before.
        log: gets what the processes print.
        chance: draws the moments.

    Returns:
        How often a process was killed.
    """
    done = 0
    while done < kills:
        process = copy.start(*training.command, log=log)
        # Half of them soon after the run's folder is touched, the others at any time.
        first = chance.random() < 0.5
        before = _touched(training.folder)
        deadline = time.monotonic() + 10 * seconds
        while first and _touched(training.folder) == before and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.01)
        moment = chance.uniform(0, 0.4 * seconds if first else seconds)
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            continue
        if code:
            raise UserError(f"{training.folder.name} ended with {code}: see {log}")
        return done
    copy.finish(*training.command, log=log)
    return done


def _touched(folder: Path) -> int:
    record = folder / "run.json"
    return record.stat().st_mtime_ns if record.exists() else 0


def differences(copy: Copy, whole: Path, killed: Path) -> set[str]:
    """In what the killed run differs from the undisturbed one; empty if in nothing."""
    found = set()
    if not _same(_state(whole), _state(killed)):
        found.add("weights")
    if (whole / "history.csv").read_bytes() != (killed / "history.csv").read_bytes():
        found.add("history.csv")
    rows = _rows(copy, whole.name), _rows(copy, killed.name)
    if rows[0] != rows[1] or len(rows[1]) != 1:
        found.add("MLflow")
    if (killed / "last.ckpt").exists():
        found.add("last.ckpt")
    return found


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    return state


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first
    )


def _rows(copy: Copy, variant: str) -> list[Any]:
    """Status and points of the variant's rows."""
    client = MlflowClient(copy.store)
    experiment = client.get_experiment_by_name("shapes")
    if experiment is None:
        return []
    rows = client.search_runs([experiment.experiment_id], f"tags.variant = '{variant}'")
    return [
        (
            row.info.status,
            {
                key: sorted(
                    (point.step, point.value)
                    for point in client.get_metric_history(row.info.run_id, key)
                )
                for key in sorted(row.data.metrics)
                if not key.startswith("system/")  # of the machine, at its own times
            },
        )
        for row in rows
    ]


def main() -> None:
    """Soak, and say how it went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=24, help="of all cases together")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    each = -(-arguments.kills // (len(CASES) + 1))
    copy = copied(folder, 2 * each)
    total, trainings, wrong, seconds = 0, 0, 0, 0.0
    for case in cases(copy):
        if not case.through_dvc:
            seconds = copy.finish(*case.whole.command, log=folder / f"{case.name}.log")
        chance, killed, found, number = random.Random(case.name), 0, set[str](), 0
        # A training may end before it was killed often enough: then there is another one.
        while killed < each and number < 2 * each:
            training = case.training(copy, number)
            log = folder / f"{training.folder.name}.log"
            killed += kill_and_resume(copy, training, seconds, each - killed, log, chance)
            found |= differences(copy, case.whole.folder, training.folder)
            number += 1
        total, trainings, wrong = total + killed, trainings + number, wrong + bool(found)
        said = f"differs in {', '.join(sorted(found))}" if found else "the same in everything"
        print(f"{case.name}: killed {killed} times in {number} trainings, {said}", flush=True)
    print(f"{total} kills in {trainings} trainings; {wrong} of the cases ended otherwise")
    if wrong:
        raise UserError(f"see the logs in {folder}")


if __name__ == "__main__":
    run(main)
