"""Seconds from a stage's start to the end of its first training step, imports included.

    python -m benchmarks.start [--rounds 3] [KEY=VALUE ...]

starts `python -m pipeline.train` with the default study's data and settings, in turns as it is and
with the imports that other code would have made (`pipeline.imports` left out). The data must be
prepared: `dvc repro augment`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from pipeline.entry import run
from pipeline.errors import UserError

#: What the started process runs: the stage, ended after its first step.
CODE = """
import contextlib, os, runpy, sys, time
from pipeline import imports as module

whole = {
    "lean": module.imports,
    "plain": lambda compiler=False: contextlib.nullcontext(),
}[sys.argv.pop(1)]

@contextlib.contextmanager
def imports(*args, **options):
    with whole(*args, **options):
        yield
        from pipeline.training.task import SegmentationTask
    def end(*_):
        print(time.time(), flush=True)
        os._exit(0)
    SegmentationTask.on_train_batch_end = end

module.imports = imports
runpy.run_module("pipeline.train", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    """Start both in turns, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"plain": [], "lean": []}
    for _ in range(options.rounds):
        for name, seconds in found.items():
            seconds.append(_started(name, options.overrides))
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    for name, said in (("plain", "plain imports"), ("lean", "as the stage does")):
        print(f"{said:20}{middle[name]:6.2f} s{middle[name] / middle['plain']:8.2f}")


def _started(name: str, overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        words = [f"hydra.run.dir={folder}/run", "trainer.progress_bar=false", *overrides]
        done = subprocess.run(
            [sys.executable, "-c", CODE, name, *words],
            capture_output=True,
            text=True,
            env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        )
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return float(done.stdout.split()[-1]) - started


if __name__ == "__main__":
    run(main)
