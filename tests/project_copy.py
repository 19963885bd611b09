"""A small copy of the project with a real data set, in which tests run its commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.small_project import copy_project

PARAMS = {
    "dataset": "shapes",
    "seed": 0,
    "train": {"iterations": 2, "batch_size": 2, "crop_size": 65, "validate_every": 1},
    "evaluate": {"scales": [1.0, 1.5], "cost_size": 65, "pictures": 1},
    "crf": {"iterations": 2},
    "trainer": {"workers": 0},
    "variants": {
        "v3": ["model=deeplab_v3", "model.aspp_channels=16", "model.rates=[1,2,3]"],
        "v3plus": ["model=deeplab_v3plus", "model.aspp_channels=16", "model.rates=[1,2,3]"],
    },
}
SIZES = {"train": 6, "val": 2, "test": 3}


class Copy:
    """A copy of the project in a folder of its own, and its command line.

    Args:
        root: the folder.
        programs: where `python`, `dvc` and the like are found first; by default the environment's.
    """

    def __init__(self, root: Path, programs: Path = Path(sys.executable).parent) -> None:
        self.root = root
        self.programs = programs

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command there; its output, stderr included."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC"))}
        first = (str(self.programs), str(Path(sys.executable).parent))
        environment["PATH"] = os.pathsep.join((*first, os.environ["PATH"]))
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"{' '.join(command)} ended with:\n{done.stdout}"
        return done.stdout

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the stages that ran."""
        return set(re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments)))

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace text in a file."""
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def set_params(self, **sections: object) -> None:
        """Change sections of params.yaml."""
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))


def new_copy(root: Path, programs: Path) -> Copy:
    """A copy in a git repository of its own, with nothing run; see `Copy`."""
    copy_project(root, PARAMS, SIZES)
    copy = Copy(root, programs)
    copy.run("git", "init", "-q")
    copy.run("dvc", "commit", "-f", "-q", "data.dvc")
    copy.run("git", "config", "user.name", "tester")
    copy.run("git", "config", "user.email", "tester@example.invalid")
    copy.commit("start")
    return copy
