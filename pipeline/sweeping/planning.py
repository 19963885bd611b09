"""Which stages will run and why, before anything does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.sweeping.differences import code_changes, md5, settings_changes
from pipeline.sweeping.repository import Changes, Repository, Stage, recorded

#: Where `compose` writes. What it would write is known, so that nothing about it is a guess.
CONFIGS = "build/configs"

RUNS, PERHAPS, STAYS = "runs", "perhaps", "stays"


@dataclass(frozen=True)
class Step:
    """A stage, and what `dvc repro` will do with it.

    Attributes:
        stage: which.
        will: `runs`; `perhaps`, if an earlier stage gives something else than before; `stays`.
        reasons: what changed, a line each; empty where it stays.
    """

    stage: Stage
    will: str
    reasons: tuple[str, ...] = ()


@dataclass
class Evidence:
    """From what the steps are told.

    Attributes:
        repository: the project.
        stages: of dvc.yaml.
        composed: path under build/configs -> what `compose` would write there now.
        changes: stage -> what DVC finds changed.
        locked: dvc.lock.
    """

    repository: Repository
    stages: Sequence[Stage]
    composed: Mapping[str, str]
    changes: Mapping[str, Changes]
    locked: Mapping[str, dict[str, Any]]
    _steps: dict[str, Step] = field(default_factory=dict)

    def step(self, stage: Stage) -> Step:
        """What will happen to a stage, from what happens to those before it."""
        if stage.name not in self._steps:
            self._steps[stage.name] = self._step(stage)
        return self._steps[stage.name]

    def _step(self, stage: Stage) -> Step:
        before = [
            self.step(other)
            for other in self.stages
            if other is not stage and other.kind != "compose" and stage.reads(other)
        ]
        entry = self.locked.get(stage.name)
        if entry is None:
            will, reasons = RUNS, ["new variant" if stage.variant else "never ran"]
        else:
            reasons = self._own(stage, entry, before)
            will = RUNS if reasons else STAYS
        for step in before:
            if step.will == STAYS or will == RUNS:
                continue
            # What a training gives is never what it gave before; data often is.
            certain = step.will == RUNS and step.stage.variant is not None
            will = RUNS if certain else PERHAPS
            reasons = [f"after {step.stage.kind}"] if certain else self._guess(step)
        return Step(stage, will, tuple(reasons))

    def _guess(self, step: Step) -> list[str]:
        if step.stage.variant is None:
            return [f"if {step.stage.kind} gives other data"]
        return [f"if {step.stage.kind} runs"]

    def _own(self, stage: Stage, entry: dict[str, Any], before: Sequence[Step]) -> list[str]:
        """What changed at the stage itself, not at what runs before it."""
        found = self.changes.get(stage.name, Changes())
        reasons = []
        for path in stage.deps:
            if path.startswith(CONFIGS):
                reasons += self._settings(stage, entry, path)
            elif path in found.deps and not _made_by(before, path):
                reasons += self._files(entry, path, found.deps[path])
        reasons += [f"{path} {state}" for path, state in found.outs.items()]
        reasons += [f"params.yaml: {key} changed" for key in found.params]
        return reasons + [word.replace("changed command", "its command changed")
                          for word in found.others]  # fmt: skip

    def _files(self, entry: dict[str, Any], path: str, state: str) -> list[str]:
        was = recorded(entry, path)
        place = self.repository.root / path
        if was is None:
            return [f"{path} is new to it"]
        if was.endswith(".dir") and place.is_dir():
            return code_changes(self.repository.root, path, was)
        return [f"{path} {'changed' if state == 'modified' else state}"]

    def _settings(self, stage: Stage, entry: dict[str, Any], path: str) -> list[str]:
        was, now = recorded(entry, path), self.composed.get(path)
        if now is None or was == md5(now.encode()):
            return []
        old = self._recorded_settings(stage, entry, path, was)
        changes = settings_changes(old, yaml.safe_load(now)) if old else []
        return changes or ["its settings changed"]

    def _recorded_settings(
        self, stage: Stage, entry: dict[str, Any], path: str, was: str | None
    ) -> dict[str, Any] | None:
        """What it ran with: its resolved file, or what the training kept of it."""
        kept = [path] if was else []
        config = f"runs/{stage.variant}/config.yaml"
        if stage.kind == "train":
            kept.append(config)
        for name in kept:
            place: Path = self.repository.root / name
            right = was if name == path else recorded(entry, name, "outs")
            if place.is_file() and md5(content := place.read_bytes()) == right:
                values = yaml.safe_load(content)
                return values if isinstance(values, dict) else None
        return None


def _made_by(before: Sequence[Step], path: str) -> bool:
    """Whether a stage that will run, or may, makes the path anew: then that is the reason."""
    reader = Stage("", None, (path,), ())
    return any(step.will != STAYS and reader.reads(step.stage) for step in before)
