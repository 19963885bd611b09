"""What a stopped training left in its folder, and whether the next one goes on from it."""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models.checkpoint import read_checkpoint
from pipeline.tracking.naming import flatten
from pipeline.training.signature import RELEVANT, Identity
from pipeline.training.state import LAST, PREVIOUS

#: What a training leaves, and the next one of other settings must not find.
LEFT = (
    *("run.json", "config.yaml", "history.csv", "tracking.jsonl"),
    *(LAST, PREVIOUS, "model.ckpt"),
)


class State(NamedTuple):
    """Where a stopped training stands.

    Attributes:
        path: of the checkpoint.
        phase: its number.
        step: iterations done of the phase.
        offset: iterations of the phases before.
    """

    path: Path
    phase: int
    step: int
    offset: int


def is_finished(folder: Path, identity: Identity) -> bool:
    """Whether a training of this identity has ended here, and all that it left is whole."""
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        same = record["signature"] == identity.signature and record["finished"]
        same = same and read_whole(folder / "model.ckpt")["signature"] == identity.signature
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return False
    return bool(same) and (folder / "history.csv").exists()


def unfinished(folder: Path, identity: Identity) -> dict[str, Any] | None:
    """The record of a training of this identity that was stopped here; None: start anew.

    Args:
        folder: the run's.
        identity: of the training that is asked for.
    """
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        same = record["signature"] == identity.signature and not record["finished"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if same else None


def state_of(folder: Path, identity: Identity, say: bool = True) -> State | None:
    """The state to go on from: last.ckpt, or the one before where that is damaged.

    Args:
        folder: the run's.
        identity: whose signature the checkpoint has to have.
        say: whether a damaged one is worth a line: for one of several processes.

    Returns:
        None where no state was saved yet.
    """
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            saved = read_whole(path)
        except UserError:
            if say:
                print(f"{path}: damaged; going on from the state before it", flush=True)
            continue
        if saved.get("signature") == identity.signature:
            return State(path, saved["phase"], saved["global_step"], saved["offset"])
    return None


def read_whole(path: Path) -> dict[str, Any]:
    """A checkpoint of which every byte is as it was written.

    Raises:
        UserError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({error})") from error
    if wrong is not None:
        raise UserError(f"{path}: damaged ({wrong})")
    return read_checkpoint(path)


def differences(folder: Path, config: Config, identity: Identity) -> list[str]:
    """How the run in the folder differs from the one that is asked for.

    Args:
        folder: with run.json of the earlier one.
        config: of the new one.
        identity: of the new one.

    Returns:
        `key: before -> now` for settings; "data", "initial weights", "code". Empty if it is the
        same, or cannot be told.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        known = flatten(record["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    now = flatten({key: dataclasses.asdict(config)[key] for key in RELEVANT})
    found = [
        f"{key}: {_said(known, key)} -> {_said(now, key)}"
        for key in dict.fromkeys([*known, *now])
        if known.get(key) != now.get(key)
    ]
    for name, key in (("data", "data_digest"), ("initial weights", "weights_digest")):
        if record.get(key) != getattr(identity, key):
            found.append(name)
    if record.get("code_digest") != identity.code_digest:
        found.append("code")
    return found


def _said(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "(none)"


def clear(folder: Path) -> None:
    """Remove what an earlier run left: none of it may be taken for the new one's."""
    for name in LEFT:
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}.partial").unlink(missing_ok=True)
