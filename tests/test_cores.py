import os
import subprocess
import sys

from pipeline.cores import core_count, own_cores


def test_cores_that_were_taken_away_are_not_counted() -> None:
    assert core_count() == len(own_cores()) >= 1
    first = own_cores()[0]
    code = (
        f"import os; os.sched_setaffinity(0, [{first}]); import pipeline.cores as c;"
        "print(c.own_cores(), c.core_count())"
    )
    if hasattr(os, "sched_setaffinity"):
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert said.stdout.strip() == f"[{first}] 1"
