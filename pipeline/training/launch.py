"""A job of a Hydra sweep over several devices, in a process of its own."""

import signal
import subprocess
import sys
from types import FrameType

from hydra.conf import HydraConf
from hydra.types import RunMode

from pipeline.config import TrainerConfig
from pipeline.errors import UserError
from pipeline.training.stopping import RESUMABLE, Stopped


def needs_own_process(job: HydraConf, trainer: TrainerConfig) -> bool:
    """Whether Lightning would start further processes from inside a sweep.

    They re-run the command line, and the command line of a sweep is the whole sweep.
    """
    return job.mode == RunMode.MULTIRUN and trainer.devices > 1


def run_in_own_process(job: HydraConf) -> None:
    """Run the job by a command line that is this job alone, in the job's own folder.

    Raises:
        UserError: it failed; what it printed stands above.
        Stopped: it was told to stop, and saved its state.
    """
    command = [
        *(sys.executable, "-m", "pipeline.train", *job.overrides.task),
        f"hydra.run.dir='{job.runtime.output_dir}'",
        "hydra.mode=RUN",
    ]
    code = _run(command)
    if code == RESUMABLE:
        raise Stopped(f"the job {' '.join(job.overrides.task)} was stopped")
    if code:
        raise UserError(f"the job {' '.join(job.overrides.task)} failed")


def _run(command: list[str]) -> int:
    """The exit code of a command that is told to stop when this process is."""
    process = subprocess.Popen(command)

    def hand_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    # Ctrl-C reaches the job by itself: the terminal tells them all.
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
    }
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
