"""The images of a split, shared out to the devices: each process runs the network on its own.

Every image's files are the same on any number of devices.
"""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from pipeline.config import EvaluateConfig
from pipeline.datasets.images import read_image
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.space import require_space
from pipeline.errors import UserError
from pipeline.inference.logits import file_of, write_logits
from pipeline.inference.network import Network, on_device
from pipeline.inference.passes import Pass, passes_of
from pipeline.inference.seconds import Seconds
from pipeline.inference.side_by_side import in_order
from pipeline.inference.whole_image import run_passes
from pipeline.memory import share_freed_memory
from pipeline.models.checkpoint import load_network

Batch = list[str]
#: Part of the work -> seconds of a share, or why it could not be done.
Results: TypeAlias = "multiprocessing.Queue[dict[str, float] | UserError]"


@dataclass(frozen=True)
class Job:
    """What a process needs to run its share; it opens the checkpoint itself."""

    checkpoint: Path
    data: Prepared
    evaluate: EvaluateConfig
    folder: Path
    accelerator: str
    #: Images that are missing, of all processes.
    missing: int
    #: Memory for the maps of a batch of the largest images, of all processes; 0: not known.
    batch_bytes: int = 0


def run_share(
    job: Job,
    batches: Sequence[Batch],
    network: Network,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Run the network on some batches and store its scores.

    Args:
        job: what it is about.
        batches: ids.
        network: in evaluation mode, on `device`.
        device: where it runs.
        advance: called after each image.

    Returns:
        Part of the work -> seconds.

    Raises:
        UserError: an image cannot be read, the network does not fit the data set, its scores are
            not finite, or the disk has no room for what is to come.
    """
    seconds = Seconds()
    reading = in_order(partial(_pixels, job.data), batches, workers=1, threads=True)

    def read() -> Iterator[tuple[Batch, list[Tensor]]]:
        for batch in batches:
            with seconds.part("reading"):
                pixels = next(reading)
            yield batch, pixels

    threads, first = torch.get_num_threads(), True
    at_once = _at_once(job, device)
    if at_once:
        share_freed_memory()
    one = partial(_store, job, network, device, threads // max(1, at_once))
    try:
        for batch, parts in in_order(one, read(), at_once, threads=True):
            seconds.add(parts)
            if first:
                each = file_of(job.folder, batch[0]).stat().st_size
                require_space([(job.folder, each * (job.missing - len(batch)))], "the logits")
                first = False
            for _ in batch:
                advance()
    finally:
        torch.set_num_threads(threads)
    return seconds.parts


def _at_once(job: Job, device: torch.device) -> int:
    """How many batches the network sees side by side; 0: one after the other.

    Cores that have an image each do more than cores that share every layer's maps. What they all
    need has to fit into a quarter of the machine's memory: of all of it, not of what is free, since
    scores differ in their last digits with the threads that worked on them.
    """
    if device.type != "cpu" or job.batch_bytes == 0:
        return 0
    fitting = psutil.virtual_memory().total // 4 // job.batch_bytes
    return min(torch.get_num_threads(), fitting)


def _pixels(data: Prepared, batch: Batch) -> list[Tensor]:
    """The images of a batch, each uint8 3 x H x W."""
    images = [read_image(data.image_path(id)) for id in batch]
    return [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images]


def _store(
    job: Job,
    network: Network,
    device: torch.device,
    threads: int,
    read: tuple[Batch, list[Tensor]],
) -> tuple[Batch, dict[str, float]]:
    """Run the network on a batch and store its scores; the seconds of the parts."""
    # It counts for the thread that calls this.
    torch.set_num_threads(threads)
    seconds = Seconds()
    batch, pixels = read
    with seconds.part("network"):
        images = [image.to(device).float() / 255 for image in pixels]
        logits = _run(job, network, images, batch)
    with seconds.part("storing"):
        for place, id in enumerate(batch):
            size = (images[place].shape[-2], images[place].shape[-1])
            one = {which: values[place] for which, values in logits.items()}
            write_logits(job.folder, id, size, one)
    return batch, seconds.parts


def _run(
    job: Job, network: Network, images: Sequence[Tensor], batch: Batch
) -> dict[Pass, npt.NDArray[np.float16]]:
    """N x C x h x w of each pass."""
    passes, logits = passes_of(job.evaluate), {}
    for which, scores in run_passes(network, images, job.evaluate, passes):
        if scores.shape[1] != len(job.data.classes):
            raise UserError(
                f"the network has {scores.shape[1]} classes, data set {job.data.name} has "
                f"{len(job.data.classes)}; train on this data set first"
            )
        logits[which] = scores.half().cpu().numpy()
        if not np.isfinite(logits[which]).all():
            raise UserError(
                f"{job.data.image_path(batch[0])}: the network's scores are not finite in 16 bits; "
                "its training diverged, train again with a lower train.learning_rate"
            )
    return logits


def run_in_processes(
    job: Job, batches: Sequence[Batch], devices: int, advance: Callable[[], None]
) -> dict[str, float]:
    """Share the batches out to one process a device, and wait for them."""
    # Not fork: a forked copy of a process with threads (torch's, CUDA's) can hang.
    context = multiprocessing.get_context("spawn")
    results: Results = context.Queue()
    processes = [
        # Daemons: they end with this process, whatever ends it.
        context.Process(
            target=_share_of_process,
            args=(job, batches[rank::devices], rank, devices, results),
            daemon=True,
        )
        for rank in range(devices)
    ]
    total = Seconds()
    try:
        for process in processes:
            process.start()
        for _ in processes:
            total.add(_next_result(results, processes, advance))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    advance()
    return total.parts


def _next_result(
    results: Results, processes: Sequence[BaseProcess], advance: Callable[[], None]
) -> dict[str, float]:
    """The seconds of the share that is done next.

    Raises:
        UserError: as the process did, or it died.
    """
    while True:
        dead = any(process.exitcode not in (0, None) for process in processes)
        try:
            result = results.get(timeout=0.5)
        except queue.Empty:
            if dead:
                raise UserError(
                    f"trainer.devices={len(processes)}: a process died, most likely for lack of "
                    "memory; take fewer devices or a smaller evaluate.batch_size, and run the same "
                    "command again"
                ) from None
            advance()
            continue
        if isinstance(result, UserError):
            raise result
        return result


def _share_of_process(
    job: Job, batches: Sequence[Batch], rank: int, devices: int, results: Results
) -> None:
    # Ctrl-C is the main process's matter, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    try:
        trained = load_network(job.checkpoint, job.evaluate.output_stride)
        network, device = on_device(trained, job.accelerator, rank, job.evaluate.precision)
        results.put(run_share(job, batches, network, device))
    except UserError as error:
        results.put(error)
