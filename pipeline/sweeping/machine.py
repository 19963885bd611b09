"""The machine in slots: what each training that runs beside others may use."""

import os
import sys
from dataclasses import dataclass

from pipeline.errors import UserError

#: CPU cores that a slot gets where there is no GPU, unless the number of slots is given.
CORES_A_SLOT = 4
#: Read by `pipeline.train`: the devices of a training, in place of `trainer.devices`.
DEVICES = "TRAINER_DEVICES"


@dataclass(frozen=True)
class Slot:
    """A share of the machine.

    Attributes:
        name: for the screen.
        gpus: as CUDA_VISIBLE_DEVICES names them; empty: it computes on its cores.
        cores: that its processes are bound to.
        devices: of the training that runs in it; None: as many as its configuration says.
    """

    name: str
    gpus: tuple[str, ...]
    cores: tuple[int, ...]
    devices: int | None = None

    def environment(self, processes: int) -> dict[str, str]:
        """What the processes of a training are told.

        Args:
            processes: that it has, which share the cores.
        """
        threads = max(1, len(self.cores) // max(1, processes))
        told = {"OMP_NUM_THREADS": str(threads)}
        if self.gpus:
            told["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        if self.devices is not None:
            told[DEVICES] = str(self.devices)
        return told

    def bind(self, process: int) -> None:
        """Keep a process that has just been started, and all that it starts, on the cores."""
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process, self.cores)


def machine_slots(
    gpus: list[str], cores: list[int], count: int | None, devices: int, told: bool
) -> list[Slot]:
    """Share the machine out.

    Args:
        gpus: of the machine; none: its cores are shared.
        cores: of the machine.
        count: of trainings at a time; None: as many as there are GPUs for, or one for every four
            cores. More than there are GPUs for share them.
        devices: of one training.
        told: whether `devices` holds for every training, whatever its configuration says.

    Raises:
        UserError: one training needs more GPUs than there are.
    """
    if gpus and devices > len(gpus):
        raise UserError(f"trainer.devices={devices}: this machine has {len(gpus)} GPUs")
    full = len(gpus) // devices if gpus else max(1, len(cores) // CORES_A_SLOT)
    count = full if count is None else count
    slots = []
    for number in range(count):
        own = [gpus[(number * devices + k) % len(gpus)] for k in range(devices)] if gpus else []
        share = _share(cores, number, count)
        name = f"GPU {','.join(own)}" if own else _core_name(share)
        slots.append(Slot(name, tuple(own), share, devices if told else None))
    return slots


def _share(cores: list[int], number: int, count: int) -> tuple[int, ...]:
    """The cores of one of `count` slots, neighbours; one that is shared where there are too few."""
    first, end = (len(cores) * (number + k) // count for k in (0, 1))
    return tuple(cores[first:end]) or (cores[number % len(cores)],)


def _core_name(cores: tuple[int, ...]) -> str:
    if len(cores) == 1:
        return f"core {cores[0]}"
    neighbours = cores[-1] - cores[0] == len(cores) - 1
    return f"cores {cores[0]}-{cores[-1]}" if neighbours else f"{len(cores)} cores"


def own_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # seconds

    if sys.platform == "darwin":
        return []
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]
