"""How the figures were made: where each variant came from, all settings, the commands."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.reporting.load import Evaluation, Variant
from pipeline.reporting.tables import Cell, Column, Table
from pipeline.reporting.words import DASH, duration, written


def runs_table(variants: Sequence[Variant]) -> Table:
    """Where each variant came from, enough to find and repeat it."""
    names = [
        "Variant", "Seed", "State", "Training", "Device", "Signature", "MLflow run", "Data",
        "Evaluation", "Overrides",
    ]  # fmt: skip
    columns = [Column(name, numeric=False) for name in names]
    rows = [
        [
            Cell(v.name),
            Cell(str(v.config.seed) if v.config else DASH),
            Cell(v.state),
            Cell(duration(v.run.get("seconds"))),
            Cell(_or_dash(v.run.get("device"))),
            Cell(_or_dash(v.run.get("signature"))),
            Cell(_or_dash(v.run.get("run_id"))[:12]),
            Cell(_or_dash(v.run.get("data_digest"))[:12]),
            _seconds(v.evaluation),
            Cell(" ".join(v.config.overrides) if v.config and v.config.overrides else DASH),
        ]
        for v in variants
    ]
    return Table(columns, rows)


def _seconds(evaluation: Evaluation | None) -> Cell:
    """How long an evaluation took, of all threads together, and where most of it went."""
    if evaluation is None or not evaluation.seconds:
        return Cell(DASH)
    parts = sorted(evaluation.seconds.items(), key=lambda part: -part[1])[:3]
    said = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts)
    return Cell(duration(sum(evaluation.seconds.values())), note=said)


def settings_table(variants: Sequence[Variant]) -> Table:
    """Every setting and version: one value where all agree, else who has which."""
    parts: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for name, value in _settings(variant).items():
            parts.setdefault(name, {})[variant.name] = value
    rows = [[Cell(name), Cell(_agreed(values))] for name, values in parts.items()]
    return Table([Column("Setting", numeric=False), Column("Value", numeric=False)], rows)


def _settings(variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if variant.config is not None:
        found["seed"] = variant.config.seed
        found |= {f"model.{key}": value for key, value in asdict(variant.config.model).items()}
        found |= {f"train.{key}": value for key, value in asdict(variant.config.train).items()}
    if variant.evaluation is not None:
        for key, value in variant.evaluation.settings.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            found |= {f"{key}.{name}" if name else f"evaluate.{key}": v for name, v in inner}
        found["cost.device"] = variant.evaluation.cost.device
    versions = variant.run.get("versions")
    if isinstance(versions, dict):
        found |= {f"version of {name}": version for name, version in versions.items()}
    return found


def _agreed(values: dict[str, Any]) -> str:
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(written(value), []).append(name)
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())


def _or_dash(value: Any) -> str:
    return DASH if value is None else str(value)


def commands(variants: Sequence[Variant], best: str | None, commit: str | None) -> list[str]:
    """What makes the report again: all of it, then one variant stage by stage."""
    name = best or variants[0].name
    lines = []
    if commit is not None and not commit.endswith("-dirty"):
        lines.append(f"git checkout {commit}")
    return [
        *lines,
        "dvc repro",
        f"python -m pipeline.train --config-dir build/configs --config-name train/{name}",
        *(f"python -m pipeline.{stage} {name}" for stage in ("infer", "tune", "evaluate")),
        "python -m pipeline.report",
    ]
