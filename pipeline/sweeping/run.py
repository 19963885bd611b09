"""A whole sweep: what the variants share, the pending variants side by side, the report."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipeline.composition import load_config, load_resolved
from pipeline.config import Config
from pipeline.cores import own_cores
from pipeline.errors import UserError
from pipeline.sweeping.machine import Slot, machine_slots, own_gpus
from pipeline.sweeping.outlook import check_names, same_training
from pipeline.sweeping.planning import CONFIGS
from pipeline.sweeping.repository import Repository
from pipeline.sweeping.scheduler import DONE, FAILED, STOPPED, Pending, Scheduler, states
from pipeline.sweeping.screen import LiveScreen, PlainScreen


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for.

    Attributes:
        variants: names; none: all of params.yaml.
        devices: of each training; None: as its configuration says.
        slots: trainings at a time; None: as many as the machine has room for.
    """

    variants: Sequence[str] = ()
    devices: int | None = None
    slots: int | None = None


def sweep(root: Path, wishes: Wishes) -> int:
    """Bring the wished variants up to date; afterwards `dvc repro` has nothing to do.

    Args:
        root: the project.
        wishes: which variants, and how many at a time.

    Returns:
        The exit code: 0; 1 if a variant failed; 130 if the sweep was stopped.

    Raises:
        UserError: the configuration cannot work, or what the variants share failed.
    """
    repository = Repository(root)
    base = load_config([])
    check_names(wishes.variants, list(base.variants))
    tracking = _start_tracking()
    _repro(repository, "augment", "compose")
    chosen = [name for name in base.variants if not wishes.variants or name in wishes.variants]
    configs = {name: load_resolved(root / CONFIGS, "train", name) for name in chosen}
    pending = find_pending(repository, base.dataset, configs)
    if pending:
        slots = _slots(wishes, [configs[variant.variant] for variant in pending])
        print(f"{len(pending)} of {len(chosen)} variants on {_named(slots)}", flush=True)
        if tracking is not None:
            tracking.wait()
        stopped = _run(repository, pending, slots[: len(pending)])
        if stopped:
            return 130
    if any(variant.state == DONE for variant in pending) or not pending:
        _repro(repository, "--single-item", "report")
    return 1 if states(pending, FAILED) else 0


def find_pending(repository: Repository, dataset: str, configs: dict[str, Config]) -> list[Pending]:
    """The variants that DVC finds changed, in their order.

    Of variants whose training is the same, the later ones wait for the first and take it over.

    Args:
        repository: the project.
        dataset: that it is about.
        configs: variant -> what it is trained with.
    """
    changed = repository.status()
    stages = repository.stages(dataset, configs)
    found: list[Pending] = []
    first: dict[str, str] = {}
    for name, config in configs.items():
        own = [stage for stage in stages if stage.variant == name]
        if not any(stage.name in changed for stage in own):
            continue
        twin = first.setdefault(same_training(config), name)
        iterations = config.train.iterations + config.train.second_phase.iterations
        found.append(
            Pending(
                name,
                [stage.name for stage in own],
                iterations,
                config.trainer.devices,
                after=twin if twin != name else None,
            )
        )
    return found


def _run(repository: Repository, pending: list[Pending], slots: list[Slot]) -> bool:
    """Run them; whether it was stopped."""
    console = Console()
    logs = repository.root / "build" / "sweep"
    screen: AbstractContextManager[LiveScreen | PlainScreen]
    screen = LiveScreen(console) if console.is_terminal else PlainScreen()
    with screen as shown:
        scheduler = Scheduler(repository, logs, repository.root / "runs", slots, shown)
        scheduler.run(pending)
    for variant in states(pending, FAILED):
        log = logs / f"{variant.variant}.log"
        print(f"{variant.variant} failed: {variant.error} ({log.relative_to(repository.root)})",
              file=sys.stderr, flush=True)  # fmt: skip
    if scheduler.stops:
        left = len(states(pending, STOPPED))
        print(f"stopped; {left} to go on with: python -m pipeline.sweep", file=sys.stderr)
    return bool(scheduler.stops)


def _slots(wishes: Wishes, configs: Sequence[Config]) -> list[Slot]:
    wanted = wishes.devices or max(config.trainer.devices for config in configs)
    on_cpu = all(config.trainer.accelerator == "cpu" for config in configs)
    gpus = [] if on_cpu else own_gpus()
    return machine_slots(gpus, own_cores(), wishes.slots, wanted, wishes.devices is not None)


def _named(slots: Sequence[Slot]) -> str:
    if len(slots) == 1:
        return slots[0].name
    return f"{len(slots)} slots: {'; '.join(slot.name for slot in slots)}"


def _repro(repository: Repository, *arguments: str) -> None:
    """`dvc repro`, whose output is shown.

    Raises:
        UserError: it failed.
    """
    print(f"dvc repro {' '.join(arguments)}", flush=True)
    command = repository.command("repro", *arguments)
    if subprocess.run(command, cwd=repository.root, env=repository.environment()).returncode:
        raise UserError(f"`dvc repro {' '.join(arguments)}` failed; what is wrong stands above")


def _start_tracking() -> "subprocess.Popen[bytes] | None":
    """Make MLflow's database before several processes would: its tables are made but once."""
    from pipeline.tracking.store import tracking_uri

    uri = tracking_uri()
    if not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).exists():
        return None
    code = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", code, uri], stdout=quiet, stderr=quiet)
