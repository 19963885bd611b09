r"""Search over the settings by Optuna; the space is written as Hydra writes sweeps.

python -m pipeline.search model=deeplab_v3plus model.output_stride=8,16 --trials 30 \
  'train.learning_rate=tag(log,interval(1e-3,1e-1))'
"""

import argparse

from pipeline.entry import fail, run
from pipeline.errors import UserError
from pipeline.paths import PROJECT


def main() -> None:
    """Run the search that the command line describes, and print the best as a variant."""
    options = _options().parse_intermixed_args()
    for key in ("trials", "slots"):
        value = getattr(options, key)
        if value is not None and value < 1:
            raise UserError(f"--{key}={value}: must be 1 or more")

    from pipeline.composition import load_config
    from pipeline.cores import own_cores
    from pipeline.sweeping.machine import machine_slots, own_gpus
    from pipeline.sweeping.search import Search, open_study, summary
    from pipeline.sweeping.space import read_space

    space = read_space(options.words)
    config = load_config(list(space.fixed))
    folder = PROJECT / "multirun" / options.name
    folder.mkdir(parents=True, exist_ok=True)
    storage = options.storage or f"sqlite:///{folder / 'study.db'}"
    study = open_study(options.name, storage, config.train.iterations)
    gpus = [] if config.trainer.accelerator == "cpu" else own_gpus()
    slots = machine_slots(gpus, own_cores(), options.slots, config.trainer.devices, told=False)
    search = Search(study, space, config, folder, slots, options.trials)
    search.run()
    print(summary(study, space.fixed))
    if search.stopped:
        fail("stopped; the same command goes on", code=130)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="searched: choice(), range(), interval()"
    )
    parser.add_argument("--trials", type=int, default=20, help="to finish in all (default: 20)")
    parser.add_argument("--slots", type=int, help="trials at a time (default: the machine's)")
    parser.add_argument("--name", default="search", help="of the study, its folder and its rows")
    parser.add_argument(
        "--storage", help="Optuna's, for several machines (default: a file in the study's folder)"
    )
    return parser


if __name__ == "__main__":
    run(main)
