"""What DVC knows: the stages, what changed at each since it ran, and what it recorded then."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml for one variant, or for all of them.

    Attributes:
        name: as DVC calls it, `train@os8`.
        variant: None for what the variants share.
        deps: paths from the root.
        outs: likewise, with metrics and plots.
    """

    name: str
    variant: str | None
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`train` of `train@os8`."""
        return self.name.partition("@")[0]

    def reads(self, other: "Stage") -> bool:
        """Whether it depends on something that the other one writes."""
        return any(_overlap(dep, out) for dep in self.deps for out in other.outs)


@dataclass
class Changes:
    """What DVC finds changed at a stage since it ran.

    Attributes:
        deps: path -> modified, deleted or new.
        outs: likewise.
        params: keys of params.yaml.
        others: in DVC's words, such as `changed command`.
    """

    deps: dict[str, str] = field(default_factory=dict)
    outs: dict[str, str] = field(default_factory=dict)
    params: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


class Repository:
    """A DVC project's folder.

    Args:
        root: with dvc.yaml and params.yaml.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, *arguments: str) -> list[str]:
        """The command line of a DVC command; it waits for others that change the project's state.

        Without waiting, a stage that took hours would be lost if at its end another process held
        DVC's lock for three seconds.
        """
        return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]

    def environment(self) -> dict[str, str]:
        """In which DVC and the stages run: `python` is the one that runs now."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return os.environ | {"PATH": path}

    def stages(self, dataset: str, variants: Iterable[str]) -> list[Stage]:
        """The stages in the order of dvc.yaml, those of a variant beside each other."""
        text = (self.root / "dvc.yaml").read_text(encoding="utf-8").replace("${dataset}", dataset)
        described = yaml.safe_load(text)["stages"]
        shared = [
            _stage(name, None, what) for name, what in described.items() if "foreach" not in what
        ]
        of_variants = [
            _stage(f"{name}@{variant}", variant, _with_key(what["do"], variant))
            for variant in variants
            for name, what in described.items()
            if "foreach" in what
        ]
        return shared + of_variants

    def locked(self) -> dict[str, dict[str, Any]]:
        """dvc.lock: stage -> its deps, outs and params when it last ran."""
        path = self.root / "dvc.lock"
        if not path.is_file():
            return {}
        try:
            return yaml.safe_load(path.read_text(encoding="utf-8")).get("stages") or {}
        except (yaml.YAMLError, AttributeError) as error:
            raise UserError(f"{path}: not readable; restore it: git checkout dvc.lock") from error

    def start_status(self) -> "subprocess.Popen[str]":
        """Ask DVC what changed, which takes it a second or more."""
        return subprocess.Popen(
            self.command("status", "--json"),
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def status(self, asked: "subprocess.Popen[str] | None" = None) -> dict[str, Changes]:
        """Stage -> what changed; stages that are up to date are not in it.

        Args:
            asked: what `start_status` gave.

        Raises:
            UserError: DVC cannot tell, in its words.
        """
        asked = asked or self.start_status()
        output, errors = asked.communicate()
        if asked.returncode:
            raise UserError(_dvc_error(errors))
        return {name: _changes(parts) for name, parts in json.loads(output).items()}


def recorded(entry: dict[str, Any], path: str, among: str = "deps") -> str | None:
    """The hash of a path in a stage's entry of dvc.lock."""
    for item in entry.get(among, []):
        if item["path"] == path:
            return str(item.get("md5"))
    return None


def is_busy(text: str) -> bool:
    """Whether DVC gave up because another DVC process works on the same files."""
    return "is busy, it is being blocked by" in text or "Unable to acquire lock" in text


def _dvc_error(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if is_busy(errors):
        holder = next((line for line in lines if line.startswith("(PID")), "")
        return f"another DVC process is at work {holder}; wait for its end, or stop it".replace(
            "  ", " "
        )
    found = next((line for line in lines if line.startswith("ERROR: ")), None)
    return f"dvc status: {(found or (lines or ['failed'])[-1]).removeprefix('ERROR: ')}"


def _changes(parts: list[Any]) -> Changes:
    """One stage of `dvc status --json`: a list of mappings and words."""
    found = Changes()
    for part in parts:
        if not isinstance(part, dict):
            found.others.append(str(part))
            continue
        found.outs |= part.get("changed outs", {})
        for path, state in part.get("changed deps", {}).items():
            if isinstance(state, dict):
                found.params.extend(state)
            else:
                found.deps[path] = state
    return found


def _stage(name: str, variant: str | None, what: dict[str, Any]) -> Stage:
    outs = [path for kind in ("outs", "metrics", "plots") for path in _paths(what.get(kind))]
    return Stage(name, variant, tuple(_paths(what.get("deps"))), tuple(outs))


def _paths(items: list[Any] | None) -> list[str]:
    """A list of dvc.yaml, whose items are paths or {path: options}."""
    return [next(iter(item)) if isinstance(item, dict) else item for item in items or []]


def _with_key(what: Any, variant: str) -> Any:
    """The text of a `foreach` stage, with the variant's name in it."""
    if isinstance(what, str):
        return what.replace("${key}", variant)
    if isinstance(what, list):
        return [_with_key(item, variant) for item in what]
    if isinstance(what, dict):
        return {_with_key(key, variant): _with_key(item, variant) for key, item in what.items()}
    return what


def _overlap(one: str, other: str) -> bool:
    """Whether the paths are the same, or one is a folder that holds the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
