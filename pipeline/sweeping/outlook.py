"""The plan: for each variant what `dvc repro` will do, why, and what it will cost."""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.composition import compose_variants, load_config, load_resolved
from pipeline.config import Config
from pipeline.errors import UserError, nearest
from pipeline.sweeping.planning import CONFIGS, PERHAPS, RUNS, STAYS, Evidence, Step
from pipeline.sweeping.repository import Repository

if TYPE_CHECKING:
    from pipeline.sweeping.estimate import Cost


@dataclass(frozen=True)
class VariantOutlook:
    """What will happen to one variant.

    Attributes:
        name: the variant.
        steps: its stages, in their order.
        cost: of its training; None where it is not trained.
        seconds: that the training will take; None if there is nothing to tell it from.
        source: the run that the time is told from.
        twin: a variant of the same training, from which it is taken over.
        resumes_at: the iteration at which a stopped training goes on.
    """

    name: str
    steps: tuple[Step, ...]
    cost: "Cost | None" = None
    seconds: float | None = None
    source: str | None = None
    twin: str | None = None
    resumes_at: int | None = None

    @property
    def will(self) -> str:
        """`runs`, `perhaps` or `stays`."""
        return _strongest(self.steps)


@dataclass(frozen=True)
class Outlook:
    """The plan.

    Attributes:
        shared: the stages that are no variant's.
        variants: in the order of params.yaml.
    """

    shared: tuple[Step, ...]
    variants: tuple[VariantOutlook, ...]


def look_ahead(root: Path, names: Sequence[str] = ()) -> Outlook:
    """Compose in memory, ask DVC, and say what will run. Nothing in the project is written.

    Args:
        root: the project.
        names: of the variants that are asked for; none: all of them.

    Raises:
        UserError: params.yaml or conf/ cannot work, or there is no such variant.
    """
    repository = Repository(root)
    asked = repository.start_status()  # it takes its second while the configurations are composed
    try:
        with tempfile.TemporaryDirectory() as folder:
            every = compose_variants(Path(folder))
            check_names(names, every)
            composed = {
                f"{CONFIGS}/{path.relative_to(folder).as_posix()}": path.read_text(encoding="utf-8")
                for path in Path(folder).rglob("*.yaml")
            }
            configs = {name: load_resolved(Path(folder), "train", name) for name in every}
        changes = repository.status(asked)
    finally:
        if asked.poll() is None:
            asked.kill()
            asked.communicate()
    stages = repository.stages(load_config([]).dataset, every)
    evidence = Evidence(repository, stages, composed, changes, repository.locked())
    steps = {
        name: tuple(evidence.step(stage) for stage in stages if stage.variant == name)
        for name in every
    }
    shared = tuple(evidence.step(stage) for stage in stages if stage.variant is None)
    chosen = [name for name in every if not names or name in names]
    return Outlook(shared, tuple(_with_costs(root, chosen, steps, configs)))


def check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a variant that params.yaml has not."""
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such variant in params.yaml; {nearest(name, known)}")


def same_training(config: Config) -> str:
    """A word that two variants share if what is learned is the same (training/twin.py)."""
    values = dataclasses.asdict(config)
    return json.dumps([values[key] for key in ("dataset", "seed", "model", "train", "trainer")])


def _will_train(steps: Sequence[Step]) -> bool:
    return any(step.stage.kind == "train" and step.will != STAYS for step in steps)


def _strongest(steps: Sequence[Step]) -> str:
    found = {step.will for step in steps}
    return next((will for will in (RUNS, PERHAPS) if will in found), STAYS)


def _with_costs(
    root: Path,
    chosen: Sequence[str],
    steps: dict[str, tuple[Step, ...]],
    configs: dict[str, Config],
) -> list[VariantOutlook]:
    plain = {name: VariantOutlook(name, steps[name]) for name in chosen}
    trains = [name for name in chosen if _will_train(steps[name])]
    if not trains:
        return list(plain.values())
    # torch takes seconds to import: only where there is something to count.
    from pipeline.datasets.manifest import load_manifest
    from pipeline.sweeping.estimate import estimated_seconds, measured_runs, training_cost

    classes = len(load_manifest(configs[trains[0]].dataset).classes)
    measured = measured_runs(root / "runs", classes)
    # A training is done once: by a variant that has it, or by the first that is to have it.
    first_of: dict[str, str] = {}
    for name in sorted(configs, key=lambda name: _will_train(steps[name])):
        first_of.setdefault(same_training(configs[name]), name)
    for name in trains:
        config, twin = configs[name], first_of[same_training(configs[name])]
        cost = training_cost(config, classes)
        if twin != name:
            plain[name] = dataclasses.replace(plain[name], cost=cost, seconds=0.0, twin=twin)
            continue
        seconds, source = estimated_seconds(config, cost, measured) or (None, None)
        done, iterations = _done(root, config, name), config.train.iterations
        if seconds is not None and done:
            seconds *= max(
                0.0, 1 - done / max(1, iterations + config.train.second_phase.iterations)
            )
        plain[name] = dataclasses.replace(
            plain[name], cost=cost, seconds=seconds, source=source, resumes_at=done
        )
    return list(plain.values())


def _done(root: Path, config: Config, name: str) -> int | None:
    """The iteration after which a stopped training of these settings, data and code goes on."""
    from pipeline.datasets.prepared import load_prepared
    from pipeline.sweeping.estimate import iterations_of
    from pipeline.training.signature import signature

    folder = root / "runs" / name
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        digest = load_prepared(root / "data" / "prepared" / config.dataset).digest
        same = record["signature"] == signature(config, digest) and not record["finished"]
    except (OSError, ValueError, KeyError, UserError):
        return None
    return iterations_of(folder) or None if same else None
