import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.memory import PAGES, has_large_pages

PROGRAM = """
import resource, sys
from pathlib import Path
import pipeline.entry
from pipeline import memory
import torch

memory.PAGES = Path(sys.argv[1])
memory.keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

def step():
    return sum(len(torch.zeros(1 << 20, 16) + 1) for _ in range(3))  # 64 MiB each

before = resident()
step()
kept = resident() - before
first = faults()
step()
print(faults() - first, kept)
"""


def faults_and_kept(pages: Path) -> tuple[int, float]:
    """Page faults of a second step, and MiB that the first one left with the process."""
    command = [sys.executable, "-c", PROGRAM, str(pages)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return int(found[0]), float(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
def test_a_second_step_gets_the_memory_of_the_first_where_pages_are_small(tmp_path: Path) -> None:
    pages = tmp_path / "enabled"
    pages.write_text("always madvise [never]\n")
    for where in (pages, tmp_path / "none"):
        faults, kept = faults_and_kept(where)
        # 64 MiB are 16384 pages.
        assert faults < 1000
        assert kept > 100


@pytest.mark.skipif(not has_large_pages(), reason="this system has no pages of 2 MiB")
def test_large_maps_go_back_and_come_in_large_pages() -> None:
    faults, kept = faults_and_kept(PAGES)
    assert faults < 5000  # of 6 x 16384
    assert kept < 32


HEAPS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from pipeline.memory import share_freed_memory

if sys.argv[1] == "shared":
    share_freed_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

def half_freed(_):
    # What lies below the rest cannot go back to the kernel.
    return [torch.ones(1 << 14) for _ in range(1000)][500:]

with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
    kept = first.submit(half_freed, 0).result()
    before = resident()
    more = second.submit(lambda: [torch.ones(1 << 14) for _ in range(450)]).result()
    print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
def test_a_thread_takes_what_another_has_freed() -> None:
    pages = {
        way: int(subprocess.check_output([sys.executable, "-c", HEAPS, way], text=True))
        for way in ("apart", "shared")
    }
    # 450 x 64 KiB are 7200 pages.
    assert pages["apart"] > 5000
    assert pages["shared"] < 2500


MAPS = """
import sys
from pathlib import Path
import pipeline.entry
import torch
from pipeline.memory import share_freed_memory

if sys.argv[1] == "shared":
    share_freed_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

torch.ones(1 << 22)  # once freed, glibc takes what is smaller from its heap
before = resident()
# What lies between is too large for the holes that imports have left: then no two maps touch.
maps = [(torch.ones(1 << 21), torch.ones(1 << 18)) for _ in range(10)]
small = [small for _, small in maps]
del maps
print(resident() - before)
"""


@pytest.mark.skipif(not has_large_pages(), reason="this system has no pages of 2 MiB")
def test_large_maps_leave_no_holes() -> None:
    pages = {
        way: int(subprocess.check_output([sys.executable, "-c", MAPS, way], text=True))
        for way in ("apart", "shared")
    }
    # 80 MiB are 20480 pages; what lies between is 2560.
    assert pages["apart"] > 18000
    assert pages["shared"] < 4000
