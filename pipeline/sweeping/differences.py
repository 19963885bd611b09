"""What changed, in words: settings key by key, code file by file."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: Parts of a resolved file that say how it is run, not what.
_HEAD = ("defaults", "hydra")
#: How many commits are searched for the code that a stage ran with.
_COMMITS = 200


def md5(content: bytes) -> str:
    """As DVC names a file's content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def settings_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`train.learning_rate 0.1 -> 0.05`, a line for each key that differs, one for all new keys.

    Args:
        before: the resolved settings of the last run; sections that it has not are not compared.
        now: those that are to run.
    """
    now = {key: value for key, value in now.items() if key not in _HEAD}
    old = _flat({key: before[key] for key in now if key in before})
    new = _flat({key: value for key, value in now.items() if key in before})
    changes = []
    for key in [*new, *(key for key in old if key not in new)]:
        if key in old and key not in new:
            changes.append(f"{key} is gone")
        elif key in old and old[key] != new[key]:
            changes.append(f"{key} {_word(old[key])} -> {_word(new[key])}")
    added = [key for key in new if key not in old]
    return changes + ([f"new keys: {', '.join(added)}"] if added else [])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _word(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


def code_changes(root: Path, path: str, before: str) -> list[str]:
    """Which files of a folder differ from those that a stage ran with.

    DVC keeps one hash of a folder, so the commit that has it is looked for; code that was never
    committed is not found, and then it is the folder that is named.

    Args:
        root: of the project.
        path: of the folder.
        before: its hash in dvc.lock.
    """
    was = _folder_of_hash(root, path, before)
    if was is None:
        return [f"{path} changed"]
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", path)
    names = {name.decode() for name in (listed or b"").split(b"\0") if name}
    now = {name: md5((root / name).read_bytes()) for name in names if (root / name).is_file()}
    changes = []
    for name in sorted(set(was) | set(now)):
        if was.get(name) != now.get(name):
            what = "is new" if name not in was else "is gone" if name not in now else "changed"
            changes.append(f"{name} {what}")
    return changes or [f"{path} changed"]


@cache
def _folder_of_hash(root: Path, path: str, wanted: str) -> dict[str, str] | None:
    """File -> md5 of the folder in the newest commit where DVC's hash of it is the wanted one."""
    commits = _git(root, "log", f"-{_COMMITS}", "--format=%H", "--", path) or b""
    for commit in commits.decode().split():
        files = _folder_in_commit(root, path, commit)
        if _folder_hash(path, files) == wanted:
            return files
    return None


def _folder_in_commit(root: Path, path: str, commit: str) -> dict[str, str]:
    listed = _git(root, "ls-tree", "-r", "-z", "--full-tree", commit, "--", path) or b""
    files = {}
    for line in filter(None, listed.split(b"\0")):
        about, _, name = line.partition(b"\t")
        files[name.decode()] = _blob_md5(root, about.split()[2].decode())
    return files


@cache
def _blob_md5(root: Path, blob: str) -> str:
    return md5(_git(root, "cat-file", "blob", blob) or b"")


def _folder_hash(path: str, files: Mapping[str, str]) -> str:
    """DVC's hash of a folder: of the sorted list of its files and their hashes, as JSON."""
    entries = [{"md5": files[name], "relpath": name[len(path) + 1 :]} for name in files]
    entries.sort(key=lambda entry: entry["relpath"])
    return f"{md5(json.dumps(entries, sort_keys=True).encode())}.dir"


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it is missing or fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
