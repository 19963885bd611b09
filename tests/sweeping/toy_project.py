"""A real DVC project in small: stages of the pipeline's shape, run by a script of one screen."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.sweeping.repository import Repository

#: What a variant's training does hangs on its name.
TRAIN = """
import pathlib, signal, sys, time
name = sys.argv[1]
run = pathlib.Path("runs", name)
run.mkdir(parents=True, exist_ok=True)
here = pathlib.Path("here")
here.mkdir(exist_ok=True)

def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > end:
            sys.exit("error: nobody came")
        time.sleep(0.02)

def save(*_):
    (run / "saved").write_text("")
    print("saved", flush=True)
    sys.exit(75)

if name == "fails":
    print("error: the loss is nan at iteration 3", file=sys.stderr)
    sys.exit(1)
if name in ("left", "right"):  # they only end if they run at the same time
    (here / name).touch()
    wait_for(here / ("right" if name == "left" else "left"))
if name == "stopped" and not (run / "saved").exists():
    signal.signal(signal.SIGTERM, save)
    (here / name).touch()
    time.sleep(60)
if name == "held":
    (here / name).touch()
    wait_for(here / "go")
(run / "history.csv").write_text("iteration,val_miou\\n4,50.0\\n")
(run / "model.ckpt").write_text(name)
"""

STAGES = {
    "compose": {
        "cmd": "mkdir -p build/configs && cp params.yaml build/configs/all.yaml",
        "deps": ["params.yaml"],
        "outs": [{"build/configs": {"cache": False}}],
    },
    "train": {
        "foreach": "${variants}",
        "do": {
            "cmd": "python train.py ${key}",
            "deps": ["code"],
            "outs": [{"runs/${key}/model.ckpt": {"cache": False, "persist": True}}],
            "plots": [{"runs/${key}/history.csv": {"cache": False, "persist": True}}],
        },
    },
    "evaluate": {
        "foreach": "${variants}",
        "do": {
            "cmd": "cp runs/${key}/model.ckpt runs/${key}/metrics.json",
            "deps": ["runs/${key}/model.ckpt"],
            "metrics": [{"runs/${key}/metrics.json": {"cache": False}}],
        },
    },
    "report": {"cmd": "ls runs > report", "deps": ["runs"], "outs": [{"report": {"cache": False}}]},
}


def toy_project(root: Path, variants: Sequence[str]) -> Repository:
    """Make it in a folder.

    Args:
        root: of the project.
        variants: `left` and `right` wait for each other; `fails` does; `stopped` waits for SIGTERM
            and then saves; `held` waits for the file here/go; others end at once.
    """
    (root / "code").mkdir(parents=True)
    (root / "code" / "one.py").write_text("one = 1\n")
    (root / "code" / "two.py").write_text("two = 2\n")
    (root / "train.py").write_text(TRAIN)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}, sort_keys=False))
    (root / "params.yaml").write_text(yaml.safe_dump({"variants": {name: [] for name in variants}}))
    repository = Repository(root)
    dvc(repository, "init", "--no-scm", "--quiet")
    return repository


def dvc(repository: Repository, *arguments: str) -> str:
    """Run a DVC command there; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=repository.root,
        env=repository.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
