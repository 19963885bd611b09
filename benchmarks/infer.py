"""Images a second through a trained network to counts: the stages of this project beside loops.

    python -m benchmarks.infer FOLDER [--backbone mobilenet_v2] [--images 60] [--rounds 3]

runs DeepLabv3+ at output stride 16 once over images of a real data set, each at its own size, which
it fetches and prepares in FOLDER by the project's own stages, and counts pixels by class. All
contestants have the same network with the same weights:

plain        the loop of the well-known DeepLabV3+ repositories: float32, NCHW, images opened by PIL
             in loader processes, scores upsampled, counted by numpy
torchvision  as torchvision's references evaluate: inference mode, counted by torch
ours         the stages `infer` and `evaluate` at a single scale without the CRF: the network on
             images padded to k * 16 + 1, its scores stored, put together and counted in threads
ours bf16    the same with `evaluate.precision=bf16`

Each runs in a process of its own, in turn. "CPU" is what the processors worked for an image, "wall"
what passed; memory is the peak of the process beyond its imports. mIoU says that they counted the
same; with random weights it is low. Left out: pictures and label maps, which no other loop writes.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.race import add_options, busy, prepared, race, resident, table
from pipeline.entry import run

if TYPE_CHECKING:
    from pipeline.config import EvaluateConfig
    from pipeline.datasets.prepared import Prepared
    from pipeline.evaluation.confusion import ConfusionMatrix
    from pipeline.models.network import SegmentationNetwork

CONTESTANTS = ("plain", "torchvision", "ours", "ours bf16")
#: Images that are not timed.
WARM_UP = 4


def main() -> None:
    """Run every contestant in turn, and print the table; or one of them, as this starts it."""
    options = _options()
    about = f"{options.images} images of {options.set}"
    found = race("benchmarks.infer", options, CONTESTANTS, about, _contest)
    if found:
        print(table(found))
    for name, results in found.items():
        print(f"{name:20}" + "".join(f"   mIoU {result['miou']:.3f}" for result in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser, CONTESTANTS)
    parser.add_argument("--images", type=int, default=60)
    return parser.parse_args()


def _contest(options: argparse.Namespace) -> None:
    """Be one contestant."""
    if options.contestant.startswith("ours"):
        # As the stage `evaluate`, which has an image a thread.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import torch

    from benchmarks.contestants import evaluate_by_hand
    from pipeline.composition import load_config
    from pipeline.datasets.prepared import load_prepared
    from pipeline.models.network import build_model
    from pipeline.models.weights import load_weights

    if options.threads:
        torch.set_num_threads(options.threads)
    data = load_prepared(prepared(options))
    precision = "bf16" if "bf16" in options.contestant else "32"
    config = load_config(
        [
            f"dataset={options.set}",
            "model=deeplab_v3plus",
            f"model.backbone={options.backbone}",
            "model.output_stride=16",
            f"model.weights={options.weights or 'null'}",
            "evaluate.scales=[1.0]",
            "evaluate.flip=false",
            f"evaluate.precision={precision}",
        ]
    )
    torch.manual_seed(0)
    network = build_model(config.model, len(data.classes))
    load_weights(network, config.model)
    ids = data.ids("val")[: WARM_UP + options.images]

    before = resident("VmRSS")
    if options.contestant.startswith("ours"):
        evaluated = _stages(network, config.evaluate, data, ids)
    else:
        with_numpy = options.contestant == "plain"
        evaluated = partial(evaluate_by_hand, network, data, options.workers, with_numpy=with_numpy)
    del network
    evaluated(ids[:WARM_UP])
    begun, worked = time.perf_counter(), busy()
    matrix = evaluated(ids[WARM_UP:])
    images = len(ids) - WARM_UP
    result = {
        "wall": (time.perf_counter() - begun) / images,
        "cpu": (busy() - worked) / images,
        "mib": (resident("VmHWM") - before) / 1024,
        "miou": matrix.miou(),
    }
    print("\n" + json.dumps(result))


def _stages(
    network: "SegmentationNetwork", evaluate: "EvaluateConfig", data: "Prepared", ids: list[str]
) -> "Callable[[list[str]], ConfusionMatrix]":
    """What `infer` and `evaluate` do with some images, after the network's cost was measured."""
    import torch

    from pipeline.cores import core_count
    from pipeline.datasets.images import read_label
    from pipeline.evaluation.confusion import ConfusionMatrix
    from pipeline.inference.infer import batch_bytes, keep_few_kernels, plan
    from pipeline.inference.logits import Index, StoredLogits, run_settings
    from pipeline.inference.measure import measure
    from pipeline.inference.network import on_device
    from pipeline.inference.passes import labels_of
    from pipeline.inference.share import Job, run_share
    from pipeline.inference.side_by_side import in_order
    from pipeline.inference.whole_image import geometry_of

    keep_few_kernels(network, evaluate)
    moved, device = on_device(network, "cpu", precision=evaluate.precision)
    classes, settings = len(data.classes), run_settings(evaluate)
    index = Index("", data.digest, "", settings, geometry_of(moved, evaluate), classes, ids)
    cost = measure(network, moved, evaluate.cost_size, device, evaluate.precision)
    room = batch_bytes(data, index, cost)

    def evaluated(ids: list[str]) -> ConfusionMatrix:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            asked = replace(index, ids=ids)
            asked.write(folder)
            job = Job(folder, data, evaluate, folder, "cpu", len(ids), room)
            run_share(job, plan(data, asked), moved, device)
            logits = StoredLogits(folder)

            def counted(id: str) -> ConfusionMatrix:
                labels = labels_of(logits.probabilities(id, ["single"])["single"])
                truth = torch.from_numpy(read_label(data.label_path(id)).copy())
                matrix = ConfusionMatrix(classes)
                matrix.update(truth, torch.from_numpy(labels), source=id)
                return matrix

            total = ConfusionMatrix(classes)
            for matrix in in_order(counted, ids, core_count(), threads=True):
                total += matrix
            return total

    return evaluated


if __name__ == "__main__":
    run(main)
