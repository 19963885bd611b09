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


def copied(folder: Path) -> Copy:
    """The project with a small data set, prepared by its own stages."""
    root = folder / "project"
    shutil.rmtree(root, ignore_errors=True)
    params = {"dataset": "shapes", "seed": 0, "variants": {"repro": [*SMALL, *CASES["plain"]]}}
    copy_project(root, params, SIZES)
    copy, log = Copy(root), folder / "prepare.log"
    copy.finish("git", "init", "-q", log=log)
    copy.finish("dvc", "commit", "-f", "-q", "data.dvc", log=log)
    copy.finish("dvc", "repro", "augment", "compose", log=log)
    return copy


class Case(NamedTuple):
    """A training, and how it is started.

    Attributes:
        name: of the case.
        whole: the folder of the undisturbed run.
        killed: the folder of the other.
        command: that starts the other.
        variant: the other's row in MLflow.
    """

    name: str
    whole: Path
    killed: Path
    command: tuple[str, ...]
    variant: str


def train_command(folder: Path, variant: str, *overrides: str) -> tuple[str, ...]:
    """What trains in a folder."""
    return (
        *("python", "-m", "pipeline.train", *SMALL, *overrides),
        *(f"hydra.run.dir={folder}", f"variant={variant}"),
    )


def cases(copy: Copy) -> list[Case]:
    """Those of `CASES`, and one through DVC."""
    found = []
    for name in CASES:
        killed = copy.root / "soak" / f"{name}-killed"
        command = train_command(killed, killed.name, *CASES[name])
        found.append(Case(name, copy.root / "soak" / name, killed, command, killed.name))
    repro = ("dvc", "repro", "train@repro")
    whole = copy.root / "soak" / "plain"
    return [*found, Case("dvc repro", whole, copy.root / "runs" / "repro", repro, "repro")]


def kill_and_resume(copy: Copy, case: Case, seconds: float, kills: int, log: Path) -> int:
    """Start, kill at a random moment, start again; then leave it alone until it ends.

    Args:
        copy: where.
        case: what.
        seconds: of the undisturbed run, its start included.
        kills: so many at most; fewer if it ends before.
        log: gets what the processes print.

    Returns:
        How often a process was killed.
    """
    done, chance = 0, random.Random(case.name)
    while done < kills:
        process = copy.start(*case.command, log=log)
        # Half of them soon after the run's folder is touched, the others at any time.
        first = chance.random() < 0.5
        before = _touched(case.killed)
        deadline = time.monotonic() + 10 * seconds
        while first and _touched(case.killed) == before and time.monotonic() < deadline:
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
            raise UserError(f"{case.name} ended with {code}: see {log}")
        return done
    copy.finish(*case.command, log=log)
    return done


def _touched(folder: Path) -> int:
    record = folder / "run.json"
    return record.stat().st_mtime_ns if record.exists() else 0


def differences(copy: Copy, case: Case) -> list[str]:
    """In what the killed run differs from the undisturbed one; empty if in nothing."""
    found = []
    if not _same(_state(case.whole), _state(case.killed)):
        found.append("weights")
    histories = [(folder / "history.csv").read_bytes() for folder in (case.whole, case.killed)]
    if histories[0] != histories[1]:
        found.append("history.csv")
    rows = [_row(copy, case.whole.name), _row(copy, case.variant)]
    if rows[0] != rows[1]:
        found.append("MLflow")
    return found


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    return state


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first
    )


def _row(copy: Copy, variant: str) -> list[Any]:
    """Status and points of the variant's rows: there has to be one."""
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
    copy = copied(folder)
    every = cases(copy)
    each = -(-arguments.kills // len(every))
    total, wrong, seconds = 0, 0, 0.0
    for case in every:
        if not case.whole.exists():
            command = train_command(case.whole, case.whole.name, *CASES[case.name])
            seconds = copy.finish(*command, log=folder / f"{case.name}.log")
        killed = kill_and_resume(copy, case, seconds, each, folder / f"{case.name}-killed.log")
        found = differences(copy, case)
        total, wrong = total + killed, wrong + bool(found)
        said = f"differs in {', '.join(found)}" if found else "the same in everything"
        print(f"{case.name}: killed {killed} times, {said}", flush=True)
    print(f"{total} kills in {len(every)} trainings; {wrong} of these ended otherwise")
    if wrong:
        raise UserError(f"see the logs in {folder}")


if __name__ == "__main__":
    run(main)
