"""The dense CRF's speed and labels: this project's beside pydensecrf's, on real maps.

    python -m benchmarks.crf FOLDER [--images 297] [--preset v2_resnet101]

takes VOC's validation photographs and the ready-trained network's maps of 21 classes (from the
shared data, see --data), keeps the logits in FOLDER as float16 at the network's own resolution, and
runs pydensecrf (one process, all classes) and ours group by group in turn, so that other programs
on the machine slow all of them alike. "CPU" is the time that a thread works, without what other
programs take; "wall" is the time that passes, for pydensecrf on one core, for which it holds
Python's lock, for ours on --threads. mIoU comes from one confusion matrix over all images.
"""

import argparse
import dataclasses
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from pipeline.config import CrfConfig, ModelConfig
from pipeline.entry import run
from pipeline.errors import UserError
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.crf import refine
from pipeline.inference.dense_crf import Backend, DenseCrfSettings, refine_labels
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.models.weights import load_weights
from pipeline.paths import PROJECT

CLASSES = 21
#: The network's input; smaller images are padded at the bottom and right.
SIDE = 513
#: Cross-validated values of the authors' releases, by network.
PRESETS = {
    "v2_resnet101": DenseCrfSettings(w1=4, sigma_alpha=67, sigma_beta=3, w2=3, sigma_gamma=1),
    "v1_largefov": DenseCrfSettings(w1=4, sigma_alpha=121, sigma_beta=5, w2=3, sigma_gamma=3),
    "v2_vgg16": DenseCrfSettings(w1=4, sigma_alpha=65, sigma_beta=3, w2=2, sigma_gamma=2),
}

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A photograph with its truth and the network's softmax, at its own size."""

    image: Labels
    truth: Labels
    maps: npt.NDArray[np.float32]


Refine = Callable[[Case], Labels]


class Contestant:
    """One way to refine: its labels so far, and the time they took."""

    def __init__(self, name: str, refine: Refine, threads: int) -> None:
        self.name, self.refine, self.threads = name, refine, threads
        self.matrix = ConfusionMatrix(CLASSES)
        self.busy: list[float] = []
        self.passed: list[float] = []
        self.differing: list[float] = []

    def go(self, cases: list[Case]) -> list[Labels]:
        """Refine a group of images."""
        start = time.perf_counter()
        with ThreadPoolExecutor(self.threads) as pool:
            done = list(pool.map(self._timed, cases))
        # Every image of the group is charged the same.
        self.passed += [(time.perf_counter() - start) / len(cases)] * len(cases)
        self.busy += [busy for _, busy in done]
        for (labels, _), case in zip(done, cases, strict=True):
            self.matrix.update(case.truth, labels)
        return [labels for labels, _ in done]

    def _timed(self, case: Case) -> tuple[Labels, float]:
        start = time.thread_time()
        labels = self.refine(case)
        return labels, time.thread_time() - start


def main() -> None:
    """Make the maps, run everything in turn, and print the table."""
    options = _options()
    torch.set_num_threads(1)
    settings = dataclasses.replace(PRESETS[options.preset], normalisation=options.normalisation)
    files = cached_logits(options.folder, options.data, options.images)
    contestants = [Contestant("pydensecrf", lambda case: pydensecrf(case, settings), 1)]
    for mode in ("lattice", "fast"):
        contestants.append(
            Contestant(f"ours, {mode}", _ours(settings, mode, options.backend), options.threads)
        )
    plain = ConfusionMatrix(CLASSES)
    for group in _groups(files, options.group):
        for case in group:
            plain.update(case.truth, case.maps.argmax(axis=0).astype(np.uint8))
        wanted = contestants[0].go(group)
        for contestant in contestants[1:]:
            for ours, theirs in zip(contestant.go(group), wanted, strict=True):
                contestant.differing.append(float((ours != theirs).mean()))
    _print(options, settings, len(files), plain, contestants)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the network's logits are kept")
    parser.add_argument("--images", type=int, default=297, help="spread over the split")
    parser.add_argument("--preset", choices=PRESETS, default="v2_resnet101")
    parser.add_argument("--normalisation", choices=("symmetric", "after"), default="symmetric")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for ours")
    parser.add_argument("--backend", choices=("native", "portable"), default="native")
    parser.add_argument("--group", type=int, default=16, help="images refined by one, then another")
    parser.add_argument(
        "--data", type=Path, default=PROJECT.parent / "shared" / "data", help="archive and weights"
    )
    return parser.parse_args()


def _ours(settings: DenseCrfSettings, mode: str, backend: Backend) -> Refine:
    chosen = dataclasses.replace(settings, mode=mode)  # type: ignore[arg-type]
    return lambda case: refine_labels(case.maps, case.image, chosen, backend)


def pydensecrf(case: Case, settings: DenseCrfSettings) -> Labels:
    """The reference, with all classes."""
    names = ("w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma", "iterations", "normalisation")
    values = {name: getattr(settings, name) for name in names}
    return refine(case.image, case.maps, CrfConfig(**values, backend="pydensecrf"))


def cached_logits(folder: Path, data: Path, count: int) -> list[Path]:
    """Files of image, truth and logits, `count` spread over the split; made where missing.

    Raises:
        UserError: the archive or the weights are not there.
    """
    archive, weights = (
        data / "voc2012-subset.tar",
        data / "weights/deeplab_v3_mobilenet_v2_voc21.pth",
    )
    for file in (archive, weights):
        if not file.is_file():
            raise UserError(f"{file}: no such file; name the folder that has it with --data")
    folder.mkdir(parents=True, exist_ok=True)
    network: SegmentationNetwork | None = None
    files = []
    with tarfile.open(archive) as opened:
        ids = _read(opened, "ImageSets/Segmentation/val.txt").read().decode().split()
        for position in range(min(count, len(ids))):
            id = ids[position * len(ids) // min(count, len(ids))]
            file = folder / f"{id}.npz"
            files.append(file)
            if file.is_file():
                continue
            if network is None:
                config = ModelConfig(aspp="no_atrous", weights=str(weights))
                network = build_model(config, CLASSES).eval()
                load_weights(network, config)
            image = np.array(Image.open(_read(opened, f"JPEGImages/{id}.jpg")))
            truth = np.array(Image.open(_read(opened, f"SegmentationClass/{id}.png")))
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, image=image, truth=truth, logits=logits_of(network, image))
            partial.rename(file)
    return files


def _read(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    member = archive.extractfile(f"VOCdevkit/VOC2012/{name}")
    assert member is not None
    return io.BytesIO(member.read())


@torch.inference_mode()
def logits_of(network: SegmentationNetwork, image: Labels) -> npt.NDArray[np.float16]:
    """C x 33 x 33 of an image, padded to 513 x 513 with what is 0 after normalisation."""
    height, width = image.shape[:2]
    padded = torch.full((1, 3, SIDE, SIDE), 0.5)
    padded[0, :, :height, :width] = torch.from_numpy(image).permute(2, 0, 1) / 255
    return np.asarray(network.scores(padded)[0].numpy().astype(np.float16))


def _groups(files: list[Path], size: int) -> Iterator[list[Case]]:
    for start in range(0, len(files), size):
        yield [read_case(file) for file in files[start : start + size]]


def read_case(file: Path) -> Case:
    """The maps at the image's own size, from a file of `cached_logits`."""
    with np.load(file) as kept:
        image, truth, logits = kept["image"], kept["truth"], kept["logits"]
    scores = torch.from_numpy(logits.astype(np.float32))[None]
    full = F.interpolate(scores, (SIDE, SIDE), mode="bilinear", align_corners=True)[0]
    maps = full[:, : truth.shape[0], : truth.shape[1]].softmax(dim=0)
    return Case(image, truth, np.ascontiguousarray(maps.numpy()))


def _print(
    options: argparse.Namespace,
    settings: DenseCrfSettings,
    images: int,
    plain: ConfusionMatrix,
    contestants: list[Contestant],
) -> None:
    print(f"{images} images, {options.preset}, {settings}")
    print(f"mIoU without a CRF: {plain.miou():.3f}")
    first = contestants[0]
    heads = ("CPU ms", "wall ms", "x CPU", "x wall", "differ %", "worst %", "mIoU", "change")
    print(f"{'':16}{'threads':>8}" + "".join(f"{head:>9}" for head in heads))
    for one in contestants:
        busy, passed = np.mean(one.busy), np.mean(one.passed)
        differing = 100 * np.array(one.differing or [0.0])
        print(
            f"{one.name:16}{one.threads:8}{1e3 * busy:9.1f}{1e3 * passed:9.1f}"
            f"{np.mean(first.busy) / busy:9.1f}{np.mean(first.passed) / passed:9.1f}"
            f"{differing.mean():9.4f}{differing.max():9.3f}"
            f"{one.matrix.miou():9.3f}{one.matrix.miou() - first.matrix.miou():+9.3f}"
        )


if __name__ == "__main__":
    run(main)
