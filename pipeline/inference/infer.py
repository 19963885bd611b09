"""Run a trained network over a split, once, and store its scores: the stage `infer`.

A run that was stopped goes on with the images that are missing. Several devices share the images
out and give the same files.
"""

import math
import os
from pathlib import Path

from PIL import Image
from torch import nn

from pipeline.config import Config, EvaluateConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.figures import Cost
from pipeline.files import code_digest
from pipeline.inference.logits import (
    LOGITS,
    Index,
    file_of,
    keep_what_fits,
    run_settings,
    write_cost,
)
from pipeline.inference.measure import measure
from pipeline.inference.network import on_device
from pipeline.inference.passes import Size, passes_of
from pipeline.inference.progress import progress
from pipeline.inference.seconds import Seconds
from pipeline.inference.share import Batch, Job, run_in_processes, run_share
from pipeline.inference.whole_image import geometry_of
from pipeline.models.checkpoint import load_network
from pipeline.models.processor import warn_without_bfloat16
from pipeline.models.weights.files import sha256_of

#: The code that decides the logits: those that other code has left are not gone on with.
CODE = (
    "pipeline/inference/logits.py",
    "pipeline/inference/network.py",
    "pipeline/inference/passes.py",
    "pipeline/inference/share.py",
    "pipeline/inference/whole_image.py",
    "pipeline/inference/windows.py",
    "pipeline/models",
)


def infer_run(config: Config, run_folder: Path, data: Prepared) -> str:
    """Write runs/<variant>/logits/, and cost.json, which says what the network costs.

    Args:
        config: of which the sections evaluate and trainer count.
        run_folder: runs/<variant>, with model.ckpt.
        data: the training-ready set it was trained on.

    Returns:
        What was done, in two lines.

    Raises:
        UserError: the checkpoint is missing or damaged, or does not fit the data set; the split is
            empty; a device is not there; the disk has no room.
    """
    evaluate, trainer = config.evaluate, config.trainer
    ids = _ids(data, evaluate.split)
    seconds = Seconds()
    checkpoint, folder = run_folder / "model.ckpt", run_folder / LOGITS
    trained = load_network(checkpoint, evaluate.output_stride)
    keep_few_kernels(trained, evaluate)
    network, device = on_device(trained, trainer.accelerator, precision=evaluate.precision)
    if evaluate.precision == "bf16":
        warn_without_bfloat16("evaluate.precision=bf16", "32", device)
    with seconds.part("cost"):
        cost = measure(trained, network, evaluate.cost_size, device, evaluate.precision)
    del trained
    index = Index(
        checkpoint=sha256_of(checkpoint),
        data=data.digest,
        code=code_digest(CODE),
        settings=run_settings(evaluate),
        geometry=geometry_of(network, evaluate),
        classes=len(data.classes),
        ids=ids,
    )
    kept = keep_what_fits(folder, index)
    batches = [
        batch
        for batch in plan(data, index)
        if any(not file_of(folder, id).exists() for id in batch)
    ]
    # Processes on processors share the memory too.
    room = batch_bytes(data, index, cost) * trainer.devices
    job = Job(checkpoint, data, evaluate, folder, trainer.accelerator, len(ids) - kept, room)
    with progress(trainer.progress_bar) as bar:
        task = bar.add_task(f"infer {evaluate.split}", total=len(ids), completed=kept)
        if trainer.devices == 1:
            parts = run_share(job, batches, network, device, lambda: bar.advance(task))
        else:
            del network
            parts = run_in_processes(
                job, batches, trainer.devices, lambda: bar.update(task, completed=_there(folder))
            )
    seconds.add(parts)
    write_cost(run_folder, cost, seconds.parts)
    stored = sum(file_of(folder, id).stat().st_size for id in ids) / 2**20
    done = f"{len(ids)} images of {data.name} {evaluate.split}, {stored:.1f} MiB of logits"
    return f"{done}{f', {kept} were there' if kept else ''}\n{seconds.line()}"


def _ids(data: Prepared, split: str) -> list[str]:
    ids = data.ids(split)
    if not ids:
        raise UserError(
            f"evaluate.split={split}: {data.name} has no images there; choose "
            f"another of {', '.join(name for name, ids in data.splits.items() if ids)}"
        )
    return ids


def plan(data: Prepared, index: Index) -> list[Batch]:
    """The split in batches of images that are padded to one size at every scale.

    Images of one size follow each other: the kernels that oneDNN compiles for a size are then
    needed once. The batches depend on the split alone: not on what is there already, and not on
    how many devices share them.
    """
    scales = sorted({which.scale for which in passes_of(index.evaluate)})
    alike: dict[tuple[Size, ...], Batch] = {}
    for id in index.ids:
        size = _size(data, id)
        shape = tuple(index.geometry.padded(size, scale) for scale in scales)
        alike.setdefault(shape, []).append(id)
    each = index.evaluate.batch_size
    return [ids[n : n + each] for ids in alike.values() for n in range(0, len(ids), each)]


def keep_few_kernels(network: nn.Module, evaluate: EvaluateConfig) -> None:
    """Have oneDNN keep the kernels for one image at all scales, not for the last thousand layers.

    They are compiled for the maps' size, and take as much memory as the maps. This counts for the
    process and those that it starts, if no convolution was run in it yet.

    Args:
        network: that will be run.
        evaluate: at its scales.
    """
    scales = len({which.scale for which in passes_of(evaluate)})
    layers = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    # A convolution, and the reordering of its weights.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(2 * layers * scales))


def batch_bytes(data: Prepared, index: Index, cost: Cost) -> int:
    """Memory that the network's maps take for a batch of the split's largest images, float32.

    Args:
        data: the training-ready set.
        index: of the split.
        cost: of the network; memory grows with the pixels.
    """
    scales = {which.scale for which in passes_of(index.evaluate)}
    sizes = {_size(data, id) for id in index.ids}
    pixels = max(
        math.prod(index.geometry.padded(size, scale)) for size in sizes for scale in scales
    )
    maps = cost.peak_mib * 2**20 - 4e6 * cost.params_m
    return math.ceil(maps / cost.size**2 * pixels * index.evaluate.batch_size)


def _size(data: Prepared, id: str) -> Size:
    """Height and width of an image, which are its label's; no pixel is decoded."""
    try:
        with Image.open(data.label_path(id)) as label:
            return label.height, label.width
    except OSError as error:
        remedy = "run `dvc repro -f augment`"
        raise UserError(f"{data.label_path(id)}: missing or damaged; {remedy}") from error


def _there(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.npz"))
