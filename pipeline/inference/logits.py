"""The network's scores of a split, stored on its own grid, so that it is run once.

A folder with one .npz for each image, written whole or not there, and index.json, which says what
they are of. A position of 21 classes takes 42 bytes: a VOC image at output stride 16 has 46 kB a
pass. No torch is needed to read them.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import EvaluateConfig
from pipeline.config.schema import NETWORK_RUN
from pipeline.errors import UserError
from pipeline.evaluation.figures import Cost
from pipeline.files import write_json, write_whole
from pipeline.inference.passes import MODES, STRIP, Geometry, Pass, Size, fuse, passes_of

#: Inside a run's folder.
LOGITS, COST = "logits", "cost.json"
INDEX = "index.json"


@dataclass(frozen=True)
class Index:
    """What the stored logits are of; that of others is never taken for it."""

    #: sha256 of model.ckpt.
    checkpoint: str
    #: sha256 over images, class numbers and splits.
    data: str
    #: sha256 over the code that runs the network.
    code: str
    #: The keys of `evaluate` that the network's run depends on.
    settings: dict[str, Any]
    geometry: Geometry
    classes: int
    #: In the split's order.
    ids: list[str] = field(default_factory=list)

    @property
    def evaluate(self) -> EvaluateConfig:
        """The settings of the run; what does not belong to it has its default."""
        return EvaluateConfig(**self.settings)

    def write(self, folder: Path) -> None:
        """Write index.json."""
        write_json(folder / INDEX, asdict(self))


def run_settings(evaluate: EvaluateConfig) -> dict[str, Any]:
    """The keys of `evaluate` that decide the logits: all of the network's run but the cost's."""
    values = asdict(evaluate)
    return {key: values[key] for key in NETWORK_RUN if key != "cost_size"}


def read_index(folder: Path) -> Index:
    """What the logits in a folder are of.

    Raises:
        UserError: there is no index, or it is not one of this version.
    """
    path = folder / INDEX
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Index(**values | {"geometry": Geometry(**values["geometry"])})
    except FileNotFoundError as error:
        raise UserError(f"{path}: no stored logits; {_remedy(folder)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the index of stored logits; {_remedy(folder)}") from error


def file_of(folder: Path, id: str) -> Path:
    """Where the logits of an image lie."""
    return folder / f"{id}.npz"


def write_logits(
    folder: Path,
    id: str,
    size: Size,
    logits: Mapping[Pass, npt.NDArray[np.float16]],
) -> None:
    """Write the logits of one image, whole or not at all.

    Args:
        folder: of the split.
        id: the image's.
        size: its height and width.
        logits: C x h x w for each pass.
    """
    file = io.BytesIO()
    arrays = {_name(which): values for which, values in logits.items()}
    np.savez(file, size=np.array(size), **arrays)  # type: ignore[arg-type]
    write_whole(file_of(folder, id), file.getvalue())


def keep_what_fits(folder: Path, index: Index) -> int:
    """Make the folder one of this index: what is of another is deleted, and that is said.

    Returns:
        How many images are there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        same = read_index(folder) == index
    except UserError:
        same = False
    files, wanted = sorted(folder.glob("*.npz")), set(index.ids)
    stale = [path for path in files if not same or path.stem not in wanted]
    if stale:
        print(f"{folder}: {len(stale)} images are of another network, data or setting; made anew")
    for path in [*stale, *folder.glob("*.partial")]:
        path.unlink()
    index.write(folder)
    return len(files) - len(stale)


class StoredLogits:
    """The logits of a split, as the stage `infer` left them.

    Args:
        folder: runs/<variant>/logits.
        fusion: how scales and flips are put together: average or maximum.

    Raises:
        UserError: the folder is missing, or not all images are there.
    """

    def __init__(self, folder: Path, fusion: str = "average") -> None:
        self.folder = folder
        self.index = read_index(folder)
        self.evaluate = self.index.evaluate
        self.evaluate.fusion = fusion
        self.ids = list(self.index.ids)
        there = {path.stem for path in folder.glob("*.npz")}
        missing = [id for id in self.ids if id not in there]
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {len(self.ids)} images are not there, "
                f"{missing[0]} the first; {_remedy(folder)}"
            )

    @property
    def remedy(self) -> str:
        """What to do about logits that are wrong."""
        return _remedy(self.folder)

    def probabilities(
        self, id: str, modes: Sequence[str] = MODES
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The softmax of an image at its own size, as `whole_image.probabilities`, but for float16.

        Args:
            id: the image's.
            modes: of `MODES`; where both are the same passes, they are one array.

        Returns:
            Mode -> C x H x W.

        Raises:
            UserError: the file is missing or damaged.
        """
        size, logits = self._read(id, passes_of(self.evaluate, modes))
        rows, wide = {}, {}
        for which, stored in logits.items():
            cells = stored.shape[1], stored.shape[2]
            rows[which], columns = self.index.geometry.weights(cells, size, which.scale)
            wide[which] = stored.astype(np.float32) @ columns.T
        maps: dict[str, npt.NDArray[np.float32]] = {}
        for top in range(0, size[0], STRIP):
            strip = slice(top, top + STRIP)

            def scores(which: Pass, strip: slice = strip) -> npt.NDArray[np.float32]:
                return np.matmul(rows[which][strip], wide[which])

            fused = fuse(scores, self.evaluate, modes)
            for mode, part in fused.items():
                twin = next(other for other in fused if fused[other] is part)
                if twin == mode and mode not in maps:
                    maps[mode] = np.empty((self.index.classes, *size), np.float32)
                if twin == mode:
                    maps[mode][:, strip] = part
                else:
                    maps[mode] = maps[twin]
        return maps

    def _read(
        self, id: str, passes: Sequence[Pass]
    ) -> tuple[Size, dict[Pass, npt.NDArray[np.float16]]]:
        path = file_of(self.folder, id)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                height, width = (int(side) for side in arrays["size"])
                return (height, width), {which: arrays[_name(which)] for which in passes}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            remedy = f"delete it and {_remedy(self.folder)}"
            raise UserError(f"{path}: missing or damaged; {remedy}") from error


def write_cost(run_folder: Path, cost: Cost, seconds: Mapping[str, float]) -> None:
    """Write cost.json: what the network costs, and the seconds of its run over the split."""
    write_json(run_folder / COST, asdict(cost) | {"seconds": dict(seconds)})


def read_cost(run_folder: Path) -> tuple[Cost, dict[str, float]]:
    """What `write_cost` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = run_folder / COST
    remedy = f"run `dvc repro -f infer@{run_folder.name}`"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        seconds = values.pop("seconds")
        return Cost(**values), seconds
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the cost of a network; {remedy}") from error


def _name(which: Pass) -> str:
    return f"{which.scale!r}{'-mirrored' if which.mirrored else ''}"


def _remedy(folder: Path) -> str:
    return f"run `dvc repro -f infer@{folder.parent.name}`"
