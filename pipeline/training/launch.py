"""A job of a Hydra sweep over several devices, in a process of its own."""

import subprocess
import sys

from hydra.conf import HydraConf
from hydra.types import RunMode

from pipeline.config import TrainerConfig
from pipeline.errors import UserError


def needs_own_process(job: HydraConf, trainer: TrainerConfig) -> bool:
    """Whether Lightning would start further processes from inside a sweep.

    They re-run the command line, and the command line of a sweep is the whole sweep.
    """
    return job.mode == RunMode.MULTIRUN and trainer.devices > 1


def run_in_own_process(job: HydraConf) -> None:
    """Run the job by a command line that is this job alone, in the job's own folder.

    Raises:
        UserError: it failed; what it printed stands above.
    """
    command = [
        *(sys.executable, "-m", "pipeline.train", *job.overrides.task),
        f"hydra.run.dir='{job.runtime.output_dir}'",
        "hydra.mode=RUN",
    ]
    if subprocess.run(command).returncode:
        raise UserError(f"the job {' '.join(job.overrides.task)} failed")
