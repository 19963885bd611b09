import signal
import subprocess
import sys

#: A job of a sweep that saves when it is told to stop, and says so by its exit code.
JOB = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""
SWEEP = """
import sys
from pipeline.training import launch
sys.exit(launch._run([sys.executable, "-c", sys.argv[1]]))
"""


def test_a_sweep_that_is_told_to_stop_tells_the_job_in_its_own_process() -> None:
    sweep = subprocess.Popen([sys.executable, "-c", SWEEP, JOB], stdout=subprocess.PIPE)
    assert sweep.stdout is not None
    assert sweep.stdout.readline() == b"ready\n"
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(30) == 75
    sweep.stdout.close()
