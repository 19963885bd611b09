"""A trained network as one file for other programs: ONNX, or PyTorch's exported program.

The file takes an image and gives class scores at its size; normalisation and upsampling are inside.
What a program has to do before and after it stands in a JSON beside it.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.inference.passes import Size
from pipeline.models.network import SegmentationNetwork
from pipeline.models.sizes import aligned_side
from pipeline.models.weights.files import sha256_of
from pipeline.prediction.trained import Trained

#: Name -> the file's suffix.
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
INPUT, OUTPUT = "image", "scores"
#: How far the file's scores may be from the network's, as a share of the largest score: rounding,
#: in another order of additions, makes a tenth of it at most.
TOLERANCE = 1e-3
#: Sizes that the check is made at: between the strides' multiples, closer to the next one, and on
#: them; a network that was written for some of these may fail at others.
SIZES: tuple[Size, ...] = ((258, 330), (186, 218), (161, 257))
#: Side of a file that takes one size only, before it is rounded up.
FIXED = 513
LEAST = 33

#: An image to scores, both float32.
Runner = Callable[[Tensor], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Check:
    """How the file's scores compare with the network's on a real image."""

    sizes: Sequence[Size]
    #: Between two scores.
    largest_difference: float
    largest_score: float

    @property
    def passed(self) -> bool:
        """Whether the difference is rounding; a score that is no number does not pass."""
        return self.largest_difference <= TOLERANCE * self.largest_score


def export(
    trained: Trained, kind: str, out: Path, image: npt.NDArray[np.uint8], size: Size | None
) -> str:
    """Write the network as a file, and what it takes and gives as a JSON beside it.

    The file is checked against the network before it takes its place. It takes images of any size
    where the network can be written so; otherwise of one size.

    Args:
        trained: which network.
        kind: of FORMATS.
        out: the file.
        image: uint8 RGB, H x W x 3, that the check is made on.
        size: height and width that the file is to take; None: any.

    Returns:
        What was done, in a few lines.

    Raises:
        UserError: a package is missing, or the file's scores are not the network's.
    """
    _require_packages(kind)
    network = trained.network()
    fixed = size or (aligned_side(FIXED, network.output_stride),) * 2
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        beside = Path(folder) / f"network{FORMATS[kind]}"
        why, any_size = "", False
        if size is None:
            check, why = _any_size(network, kind, beside, image)
            any_size = check is not None
        if size is not None or check is None:
            check = _written(network, kind, beside, [scaled(image, fixed)], any_size=False)
        if not check.passed:
            raise UserError(
                f"{out}: not written; {kind} gives scores that differ from the network's by "
                f"{check.largest_difference:.3g} (the largest is {check.largest_score:.3g})"
            )
        os.replace(beside, out)
    write_json(out.with_name(f"{out.name}.json"), _description(trained, network, kind, check, out))
    takes = "images of any size" if any_size else f"images of {fixed[0]} x {fixed[1]} pixels only"
    sizes = ", ".join(f"{height} x {width}" for height, width in check.sizes)
    lines = [
        *([f"{trained.name}: one size only, for at another {why}"] if why else []),
        f"{out}: {kind}, {takes}",
        f"checked at {sizes}: scores up to {check.largest_score:.4g}, largest difference "
        f"{check.largest_difference:.2g}",
    ]
    return "\n".join(lines)


def scaled(image: npt.NDArray[np.uint8], size: Size) -> Tensor:
    """An image at another size, 1 x 3 x H x W in [0, 1]."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    return nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def _any_size(
    network: SegmentationNetwork, kind: str, path: Path, image: npt.NDArray[np.uint8]
) -> tuple[Check | None, str]:
    """Write the file for any size, and check it at several; or None, and why it cannot be."""
    images = [scaled(image, size) for size in SIZES]
    try:
        check = _written(network, kind, path, images, any_size=True)
    except Exception as error:  # of three libraries, and whatever an exported guard raises
        said = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"it fails ({said[0][:100]})"
    if not check.passed:
        return None, f"its scores differ by {check.largest_difference:.3g}"
    return check, ""


def _written(
    network: SegmentationNetwork, kind: str, path: Path, images: Sequence[Tensor], any_size: bool
) -> Check:
    """Write the file, open it, and compare it with the network on some images."""
    sides = (torch.export.Dim("height", min=LEAST), torch.export.Dim("width", min=LEAST))
    dynamic = {"images": {2: sides[0], 3: sides[1]}} if any_size else None
    with torch.no_grad():
        program = torch.export.export(network, (images[0],), dynamic_shapes=dynamic)
        run = _onnx(program, path) if kind == "onnx" else _torch(program, path)
        differences, largest = [], []
        for image in images:
            wanted = network(image).numpy()
            differences.append(float(np.abs(run(image) - wanted).max()))
            largest.append(float(np.abs(wanted).max()))
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    return Check(sizes, max(differences), max(largest))


def _onnx(program: torch.export.ExportedProgram, path: Path) -> Runner:
    import onnxruntime

    converted = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
    )
    if converted is None:
        raise RuntimeError("torch.onnx.export gave no program")
    converted.save(str(path), external_data=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is said in our own line
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> npt.NDArray[np.float32]:
        (scores,) = session.run([OUTPUT], {INPUT: image.numpy()})
        return np.asarray(scores)

    return run


def _torch(program: torch.export.ExportedProgram, path: Path) -> Runner:
    torch.export.save(program, path)
    module = torch.export.load(path).module()

    def run(image: Tensor) -> npt.NDArray[np.float32]:
        return np.asarray(module(image))

    return run


def _require_packages(kind: str) -> None:
    if kind not in FORMATS:
        raise UserError(f"--format {kind}: one of {', '.join(FORMATS)}")
    needed = ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx: needs `pip install {' '.join(missing)}`")


def _description(
    trained: Trained, network: SegmentationNetwork, kind: str, check: Check, out: Path
) -> dict[str, Any]:
    """What a program has to know that runs the file."""
    stride = network.output_stride
    sides: list[Any] = ["height", "width"] if len(check.sizes) > 1 else list(check.sizes[0])
    return {
        "file": out.name,
        "format": kind,
        "model": trained.name,
        "checkpoint_sha256": sha256_of(trained.checkpoint),
        "input": {
            "name": INPUT,
            "type": "float32",
            "shape": [1, 3, *sides],
            "channels": "RGB, upright",
            "values": "0 to 1 (8 bits / 255); mean and standard deviation are in the network",
        },
        "padding": {
            "sides": f"the next k * {stride} + 1",
            "output_stride": stride,
            "least_side": trained.evaluate.pad_to,
            "where": "bottom and right",
            "pixel": [round(value, 6) for value in network.input_mean.flatten().tolist()],
        },
        "output": {
            "name": OUTPUT,
            "type": "float32",
            "shape": [1, len(trained.classes), *sides],
            "values": "class scores; cut off the padding; the label is the class of the greatest",
        },
        "classes": trained.described(),
        "check": {
            "sizes": [list(size) for size in check.sizes],
            "largest_difference": check.largest_difference,
            "largest_score": check.largest_score,
        },
        "versions": {"torch": torch.__version__},
    }
