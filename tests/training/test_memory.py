import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pipeline.training.memory import keep_freed_memory

keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    return sum(len(b"x" * (1 << 26)) for _ in range(3))

step()
before = faults()
step()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does")
def test_a_second_step_gets_the_memory_of_the_first() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    # 64 MiB are 16384 pages.
    assert int(found) < 1000
