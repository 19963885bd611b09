"""Real trainings in processes of their own, to be killed.

The processes are forked from one that has imported everything, so that each costs a moment.
"""

import csv
import json
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

SMALL = (
    "model.rates=[1,2,4]",
    "model.aspp_channels=16",
    "model.width=0.25",
    "train.crop_size=65",
    "train.batch_size=2",
    "train.iterations=6",
    "train.validate_every=2",
    "trainer.workers=0",
    "trainer.accelerator=cpu",
    "trainer.save_minutes=0",
    "train.keep=last",
)

multiprocessing.set_forkserver_preload(["pipeline.training.run", "mlflow", "pipeline.train"])


class RealRun:
    """`python -m pipeline.train` in a folder, as often as it takes.

    Args:
        folder: the run's.
        prepared: the training-ready set's.
        store: MLflow's URI.
    """

    def __init__(self, folder: Path, prepared: Path, store: str, *overrides: str) -> None:
        self.folder = folder
        self.overrides = [*SMALL, *overrides]
        self.prepared = prepared
        self.store = store
        #: What the processes print; on a disk that is not full.
        self.said = Path(tempfile.mkdtemp()) / "said.txt"

    def start(
        self,
        *overrides: str,
        limits: dict[int, int] | None = None,
        place: dict[str, str] | None = None,
    ) -> BaseProcess:
        """A process that trains.

        Args:
            overrides: for this time.
            limits: resource limits, by number.
            place: what its environment says of its place among several processes.
        """
        context = multiprocessing.get_context("forkserver")
        args = ([*overrides], limits or {}, place or {})
        process = context.Process(target=self._train, args=args)
        process.start()
        return process

    def start_two(self, *overrides: str, machines: bool = False) -> list[BaseProcess]:
        """Two processes that train together, started from outside, as by `torchrun` or Slurm.

        Args:
            overrides: for this time.
            machines: one each on two machines; otherwise both on one.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        own = "NODE_RANK" if machines else "LOCAL_RANK"
        ranks = {"NODE_RANK": "0", "LOCAL_RANK": "0"}
        words = (*overrides, f"trainer.{'nodes' if machines else 'devices'}=2")
        return [self.start(*words, place=meet | ranks | {own: rank}) for rank in "01"]

    def run(self, *overrides: str, limits: dict[int, int] | None = None) -> int:
        """The exit code of a process that is left alone."""
        process = self.start(*overrides, limits=limits)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def _train(self, overrides: list[str], limits: dict[int, int], place: dict[str, str]) -> None:
        import resource

        from pytorch_lightning.utilities.rank_zero import rank_zero_only

        from pipeline import composition, entry, train

        # One thread each: Lightning would take more where fewer processes share a machine.
        os.environ |= place | {"OMP_NUM_THREADS": "1"}
        # Lightning looks once, when it is imported: here, before the process was forked.
        rank = int(place.get("NODE_RANK", 0)) + int(place.get("LOCAL_RANK", 0))
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
        for number, limit in limits.items():
            resource.setrlimit(number, (limit, limit))
        output = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["MLFLOW_TRACKING_URI"] = self.store
        values = self.said.parent / "params"
        values.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parent.parent / "params.yaml", values)
        composition.PROJECT = values
        train.PREPARED = self.prepared.parent
        torch.set_num_threads(1)
        sys.argv = ["train", *self.overrides, *overrides, f"hydra.run.dir={self.folder}"]
        entry.run(train.main)

    def output(self) -> str:
        """What all processes printed."""
        return self.said.read_text()

    def record(self) -> dict[str, Any]:
        """run.json."""
        content: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return content

    def rows(self) -> list[dict[str, str]]:
        """history.csv."""
        with open(self.folder / "history.csv", newline="") as file:
            return list(csv.DictReader(file))

    def history(self) -> str:
        """history.csv as it stands."""
        return (self.folder / "history.csv").read_text()

    def weights(self) -> dict[str, torch.Tensor]:
        """Of model.ckpt."""
        state: dict[str, torch.Tensor] = torch.load(self.folder / "model.ckpt", weights_only=True)[
            "state_dict"
        ]
        return state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
