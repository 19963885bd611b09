"""Predict a test set whose labels are secret, and pack the labels for its server."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config import Config, CrfConfig
from pipeline.cores import core_count
from pipeline.datasets.images import read_image
from pipeline.errors import UserError
from pipeline.evaluation.server import Server, find_server, write_submission
from pipeline.inference.crf import refine, releases_lock
from pipeline.inference.network import on_device
from pipeline.inference.passes import labels_of
from pipeline.inference.progress import progress
from pipeline.inference.search import crf_settings
from pipeline.inference.side_by_side import in_order
from pipeline.inference.whole_image import probabilities
from pipeline.models.checkpoint import load_network, read_checkpoint

Labels = npt.NDArray[np.uint8]
#: Id, image H x W x 3, probabilities C x H x W.
Predicted = tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.float32]]
SUFFIXES = (".jpg", ".jpeg", ".png")


def submit(
    config: Config, run_folder: Path, server: str, images: Path, ids: Path | None, mode: str
) -> str:
    """Write runs/<variant>/submission/<archive> for a server.

    Args:
        config: of which the sections evaluate and trainer count.
        run_folder: runs/<variant>, with model.ckpt, and for the CRF what the stage `tune` left.
        server: a key of SERVERS.
        images: folder of the test images, searched to any depth.
        ids: a file with the id of a test image a line; None: all images in the folder.
        mode: of MODES.

    Returns:
        What was done, in a line.

    Raises:
        UserError: the server does not know the network's classes; there are no images, or one
            that `ids` names is not there; an image, the checkpoint or the settings are damaged.
    """
    expected = find_server(server)
    paths = find_images(images, expected, ids)
    classes = list(read_checkpoint(run_folder / "model.ckpt").get("classes", []))
    crf = crf_settings(run_folder) if mode.endswith("_crf") else None
    labelled = _predictions(config, run_folder / "model.ckpt", paths, mode, crf)
    with progress(config.trainer.progress_bar) as bar:
        counted = bar.track(labelled, len(paths), description=f"predict for {server}")
        path, count = write_submission(server, run_folder / "submission", counted, classes)
    part = f"; its test set has {expected.images}" if count != expected.images else ""
    return f"{count} images, {mode}, for {server}{part}: {path}"


def find_images(folder: Path, server: Server, ids: Path | None = None) -> dict[str, Path]:
    """The test images by id, in order: of the list, else of their names.

    Raises:
        UserError: the folder or the list has none, two files have one id, or one is missing.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.stem.endswith(server.image_tail):
            continue
        id = path.stem.removesuffix(server.image_tail)
        if id in found:
            raise UserError(f"{path}: {found[id]} has the same id; name the folder of one of them")
        found[id] = path
    if not found:
        kind = f"*{server.image_tail}.jpg or .png"
        raise UserError(f"{folder}: no images ({kind}) there; name the folder of the test images")
    if ids is None:
        return found
    if not ids.is_file():
        raise UserError(f"{ids}: no such list of ids, one a line")
    wanted = ids.read_text(encoding="utf-8").split()
    missing = [id for id in wanted if id not in found]
    if missing or not wanted:
        named = f"{missing[0]} of {ids}" if missing else f"what {ids} names"
        raise UserError(f"{folder}: {named} is not there ({len(missing)} missing)")
    return {id: found[id] for id in wanted}


def _predictions(
    config: Config, checkpoint: Path, paths: dict[str, Path], mode: str, crf: CrfConfig | None
) -> Iterator[tuple[str, Labels]]:
    """The labels of every image; the network runs here, the CRF beside it."""
    evaluate = config.evaluate
    if mode.startswith("single"):
        evaluate = replace(evaluate, scales=[1.0], flip=False)
    trained = load_network(checkpoint, evaluate.output_stride)
    accelerator = config.trainer.accelerator
    network, device = on_device(trained, accelerator, precision=evaluate.precision)

    def predicted() -> Iterable[Predicted]:
        for id, path in paths.items():
            image = read_image(path)
            maps = probabilities(network, _pixels(image, device), evaluate)
            yield id, image, maps.cpu().numpy()

    if crf is None:
        for id, _, maps in predicted():
            yield id, labels_of(maps)
        return
    workers = core_count() if config.trainer.workers is None else config.trainer.workers
    label = partial(_refined, crf=crf)
    yield from in_order(label, predicted(), workers, threads=releases_lock(crf))


def _pixels(image: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """3 x H x W in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).to(device).float() / 255


def _refined(predicted: Predicted, crf: CrfConfig) -> tuple[str, Labels]:
    id, image, maps = predicted
    return id, refine(image, maps, crf)
