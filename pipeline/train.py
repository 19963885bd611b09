"""Stage `train@<variant>`, and the Hydra application of ad-hoc runs and sweeps.

dvc repro                                                      every variant of params.yaml
python -m pipeline.train model.output_stride=8                 one run, in outputs/
python -m pipeline.train -m model.output_stride=8,16 seed=0,1  a grid, in multirun/
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.composition import plain_experiment, register, to_config
from pipeline.entry import fail, run
from pipeline.errors import UserError
from pipeline.imports import imports
from pipeline.paths import CONF, PREPARED
from pipeline.sweeping.machine import DEVICES
from pipeline.training.launch import needs_own_process, run_in_own_process
from pipeline.training.stopping import RESUMABLE, Stopped


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def train(composed: DictConfig) -> None:
    """Train one composed configuration in Hydra's folder of the run."""
    job = HydraConfig.get()
    try:
        _train(composed, job)
    except UserError as error:
        if job.mode == RunMode.MULTIRUN:
            raise  # Hydra runs the sweep's other jobs, and reports this one at the end.
        fail(str(error))
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(RESUMABLE)  # of a sweep as well: whoever stops a job stops them all


def _train(composed: DictConfig, job: HydraConf) -> None:
    config = to_config(composed)
    # A sweep says how many devices of the machine this training has.
    config.trainer.devices = int(os.environ.get(DEVICES, config.trainer.devices))
    config.overrides = config.overrides or list(job.overrides.task)
    config.variant = config.variant or job.job.override_dirname or "default"
    if needs_own_process(job, config.trainer):
        run_in_own_process(job)
        return
    with imports(compiler=config.trainer.compile):  # torch and Lightning
        from pipeline.training.run import train_run

    train_run(config, Path(job.runtime.output_dir), PREPARED / config.dataset)


def main() -> None:
    """Hand the command line to Hydra."""
    register()
    sys.argv[1:] = plain_experiment(sys.argv[1:])
    train()


if __name__ == "__main__":
    run(main)
