"""Two variants that differ only in how they are evaluated are trained once."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models.checkpoint import read_checkpoint

#: What a training leaves, and its twin takes over.
LEARNED = ("history.csv", "model.ckpt")


def find_twin(config: Config, folder: Path, stamp: str) -> Path | None:
    """The folder of a finished run beside `folder` that learned the very same.

    Args:
        config: of the run that is to be trained; one on other devices is no twin, since a sweep
            over devices is there to compare them.
        folder: the run's.
        stamp: its signature.
    """
    for record in sorted(folder.parent.glob("*/run.json")):
        twin = record.parent
        if twin == folder:
            continue
        try:
            known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            settings = yaml.safe_load((twin / "config.yaml").read_text(encoding="utf-8"))
            same = known["signature"] == stamp and known["finished"]
            same = same and settings["trainer"] == vars(config.trainer)
            same = same and read_checkpoint(twin / "model.ckpt")["signature"] == stamp
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, UserError):
            continue
        if same:
            return twin
    return None


def take_over(twin: Path, folder: Path) -> list[dict[str, str]]:
    """Copy what the twin learned; run.json is written by the caller, last.

    Returns:
        The rows of its history.
    """
    for name in LEARNED:
        beside = folder / f"{name}.partial"
        shutil.copyfile(twin / name, beside)
        beside.replace(folder / name)
    lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    keys = lines[0].split(",")
    return [dict(zip(keys, line.split(","), strict=True)) for line in lines[1:]]
