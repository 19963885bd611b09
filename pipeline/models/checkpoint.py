"""model.ckpt: a trained network in one self-contained file."""

import io
from pathlib import Path
from typing import Any

import torch

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.models.network import SegmentationNetwork, build_model


def save_network(
    path: Path, network: SegmentationNetwork, model: ModelConfig, about: dict[str, Any]
) -> None:
    """Write the weights, the configuration to build the network with, and what it is about.

    Args:
        path: of the file, whole or not there.
        network: the trained network.
        model: what it was built with.
        about: classes (their names), signature, iteration, val_miou.
    """
    state = {f"network.{key}": value.cpu() for key, value in network.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "model": dict(vars(model)), **about}, buffer)
    write_whole(path, buffer.getvalue())


def load_network(path: Path, output_stride: int | None = None) -> SegmentationNetwork:
    """The trained network of a run, in evaluation mode.

    Args:
        path: of model.ckpt.
        output_stride: at which it is built; the weights are the same at each. None: as trained.

    Raises:
        UserError: no such file, or it is damaged or not one of ours, or its backbone has no such
            output stride.
    """
    saved = read_checkpoint(path)
    try:
        model = ModelConfig(**saved["model"])
        if output_stride is not None:
            model.output_stride = output_stride
        network = build_model(model, len(saved["classes"]))
        weights = saved["state_dict"]
        network.load_state_dict({key.removeprefix("network."): weights[key] for key in weights})
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: not a model.ckpt of this version; train it again") from error
    return network.eval()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, tensors on the CPU.

    Raises:
        UserError: no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train first (`dvc repro`)")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for damaged files
        kind = type(error).__name__
        raise UserError(f"{path}: damaged ({kind}); delete it and train again") from error
    return content
