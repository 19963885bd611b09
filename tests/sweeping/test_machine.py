import os

import pytest

from pipeline.cores import own_cores
from pipeline.errors import UserError
from pipeline.sweeping.machine import DEVICES, machine_slots


def test_each_training_gets_its_gpus_and_a_share_of_the_cores() -> None:
    slots = machine_slots(["0", "1", "2", "3"], list(range(8)), None, 2, told=False)
    assert [slot.gpus for slot in slots] == [("0", "1"), ("2", "3")]
    assert [slot.cores for slot in slots] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    told = slots[1].environment(processes=2)
    assert told == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "2,3"}


def test_devices_on_the_command_line_hold_for_every_training() -> None:
    (slot,) = machine_slots(["0", "1"], [0, 1], None, 2, told=True)
    assert slot.environment(processes=2)[DEVICES] == "2"


def test_more_slots_than_gpus_share_them() -> None:
    slots = machine_slots(["4", "7"], [0, 1, 2], 3, 1, told=False)
    assert [slot.gpus for slot in slots] == [("4",), ("7",), ("4",)]


def test_without_gpus_the_cores_are_shared() -> None:
    slots = machine_slots([], list(range(10)), None, 1, told=False)
    assert [slot.name for slot in slots] == ["cores 0-4", "cores 5-9"]
    assert "CUDA_VISIBLE_DEVICES" not in slots[0].environment(1)
    assert slots[0].environment(processes=2)["OMP_NUM_THREADS"] == "2"


def test_more_slots_than_cores_share_them() -> None:
    slots = machine_slots([], [0, 1], 3, 1, told=False)
    assert [len(slot.cores) for slot in slots] == [1, 1, 1]


def test_a_training_that_needs_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer.devices=4: this machine has 2 GPUs"):
        machine_slots(["0", "1"], [0], None, 4, told=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_and_what_it_starts_stay_on_the_cores() -> None:
    import subprocess
    import sys

    first = own_cores()[0]
    (slot,) = machine_slots([], [first], 1, 1, told=False)
    script = "import os, sys; sys.stdin.readline(); print(sorted(os.sched_getaffinity(0)))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    slot.bind(process.pid)
    output, _ = process.communicate("go\n")
    assert output.strip() == str([first])
