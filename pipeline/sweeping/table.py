"""The plan as a table for a terminal, and as plain values for JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.sweeping.outlook import Outlook, VariantOutlook
from pipeline.sweeping.planning import PERHAPS, RUNS, STAYS, Step

#: What `dvc repro` does with a variant, by the first of its stages that runs.
VERBS = {
    "train": "trains",
    "infer": "runs the network",
    "tune": "tunes the CRF",
    "evaluate": "evaluates",
}
#: Reasons that a cell holds; the others are counted.
SHOWN = 4


def as_table(outlook: Outlook) -> RenderableType:
    """The table, what runs before and after, and the sum."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Variant", overflow="fold")
    table.add_column("Will", overflow="fold")
    table.add_column("Because", overflow="fold", ratio=1)
    counted = [variant for variant in outlook.variants if variant.cost is not None]
    if counted:
        for name in ("Params, M", "GMACs", "Memory", "Time"):
            table.add_column(name, justify="right", no_wrap=True)
    for variant in outlook.variants:
        cells = [variant.name, verb(variant), "\n".join(_reasons(variant))]
        table.add_row(*cells, *(_figures(variant) if counted else ()),
                      style="dim" if variant.will == STAYS else "")  # fmt: skip
    lines: list[RenderableType] = [table, Text()]
    lines += [Text(line) for line in _around(outlook)]
    return Group(*lines)


def as_values(outlook: Outlook) -> dict[str, Any]:
    """Everything, unrounded."""
    return {
        "shared": [_step_values(step) for step in outlook.shared],
        "variants": [
            {
                "variant": variant.name,
                "will": variant.will,
                "does": verb(variant),
                "stages": [_step_values(step) for step in variant.steps],
                "same_training_as": variant.twin,
                "resumes_at": variant.resumes_at,
                "params_m": variant.cost and variant.cost.params_m,
                "gmacs": variant.cost and variant.cost.gmacs,
                "memory_mib": variant.cost and variant.cost.memory_mib,
                "seconds": variant.seconds,
                "seconds_from": variant.source,
            }
            for variant in outlook.variants
        ],
    }


def verb(variant: VariantOutlook) -> str:
    """What `dvc repro` does with it, in a word or two."""
    first = next((step for step in variant.steps if step.will != STAYS), None)
    if first is None:
        return "stays"
    does = VERBS.get(first.stage.kind, first.stage.kind)
    return does if first.will == RUNS else f"perhaps {does}"


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3:05 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60}:{minutes % 60:02d} h"


def _reasons(variant: VariantOutlook) -> list[str]:
    """Each once, those of the first stage first; what only follows from it is left out."""
    first = next((step for step in variant.steps if step.will != STAYS), None)
    if first is None:
        return []
    follows = ("after ", "if ", "new variant")
    lines = list(first.reasons)
    for step in variant.steps:
        lines += [reason for reason in step.reasons if not reason.startswith(follows)]
    lines = list(dict.fromkeys(lines))
    more = len(lines) - SHOWN
    lines = lines[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
    if variant.twin:
        lines.append(f"the same training as {variant.twin}: taken over")
    if variant.resumes_at:
        lines.append(f"goes on at iteration {variant.resumes_at}")
    return lines


def _figures(variant: VariantOutlook) -> tuple[str, ...]:
    cost = variant.cost
    if cost is None:
        return ("", "", "", "")
    memory = cost.memory_mib
    return (
        f"{cost.params_m:.1f}",
        f"{cost.gmacs:.1f}" if cost.gmacs >= 1 else f"{cost.gmacs:.2f}",
        f"{memory:.0f} MiB" if memory < 1000 else f"{memory / 1024:.1f} GiB",
        duration(variant.seconds),
    )


def _around(outlook: Outlook) -> list[str]:
    lines = []
    for step in outlook.shared:
        if step.will != STAYS and step.stage.kind not in ("compose", "report"):
            may = "may run" if step.will == PERHAPS else "runs"
            lines.append(f"{step.stage.name} {may} first: {_listed(step.reasons)}")
    training = [variant for variant in outlook.variants if variant.cost is not None]
    if not training:
        return [*lines, "Nothing is trained."]
    one = "1 training" if len(training) == 1 else f"{len(training)} trainings"
    told = [variant for variant in training if variant.seconds is not None]
    if told:
        total = duration(sum(variant.seconds or 0.0 for variant in told))
        rest = len(training) - len(told)
        unknown = f", and {rest} of unknown length" if rest else ""
        sources = sorted({variant.source for variant in told if variant.source})
        lines.append(f"{one}, one after the other about {total}{unknown}; told from the time of "
                     f"{', '.join(sources)} by multiply-adds.")  # fmt: skip
    else:
        lines.append(f"{one}; no run has ended yet, from which their time could be told.")
    lines.append(
        "GMACs: of one crop, forward. Memory: of a device, for its share of the batch. Time: of "
        "the training."
    )
    return lines


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - SHOWN
    return ", ".join(reasons[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _step_values(step: Step) -> dict[str, Any]:
    return {"stage": step.stage.name, "will": step.will, "reasons": list(step.reasons)}
