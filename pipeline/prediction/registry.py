"""Put a trained network on its row in MLflow, and into the registry under an alias."""

import base64
import io
import json
import shutil
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image as Pillow

from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.prediction.photograph import photograph
from pipeline.prediction.pyfunc import COLUMN
from pipeline.prediction.store import open_store
from pipeline.prediction.trained import CHECKPOINT, Trained, find_trained
from pipeline.tracking.journal import row_of

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

#: The model's name on the row.
NAME = "network"
#: What predicting needs besides this package.
PACKAGES = ("mlflow", "torch", "torchvision", "timm", "segmentation-models-pytorch", "numpy")
#: Figures of metrics.json that the registered version shows.
FIGURES = ("miou", "miou_ms_flip", "miou_crf", "miou_ms_flip_crf")


def register(run_folder: Path, name: str, alias: str) -> str:
    """Store a run's network on its row and register it; the alias moves to it.

    Args:
        run_folder: runs/<variant>, with model.ckpt and run.json.
        name: of the registered model.
        alias: by which it is found: models:/<name>@<alias>.

    Returns:
        Its address, with the version's number.

    Raises:
        UserError: the run has no row in MLflow, or the store cannot be reached.
    """
    trained = find_trained(str(run_folder))
    row = row_of(run_folder)
    if not row:
        raise UserError(f"{run_folder}: the run has no row in MLflow; train it with one")
    store = open_store()
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        before = client.get_run(row).info
        registered = _log(trained, row, name)
        # The row stands for the training, which ended then.
        client.set_terminated(row, before.status, before.end_time)
        client.set_registered_model_alias(name, alias, registered)
        for key, value in _tags(trained, run_folder).items():
            client.set_model_version_tag(name, registered, key, value)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{store}: the model was not registered ({reason})") from error
    return f"models:/{name}/{registered}"


def _log(trained: Trained, row: str, name: str) -> str:
    """The number of the version that is made."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "run"
        _store(trained, stored)
        with mlflow.start_run(run_id=row):
            info = mlflow.pyfunc.log_model(
                name=NAME,
                loader_module="pipeline.prediction.pyfunc",
                data_path=str(stored),
                signature=_signature(),
                input_example=[{COLUMN: _example()}],
                pip_requirements=[f"{one}=={version(one)}" for one in PACKAGES],
                metadata={"package": f"atrous {version('atrous')}", "classes": trained.described()},
                registered_model_name=name,
            )
    return str(info.registered_model_version)


def _store(trained: Trained, folder: Path) -> None:
    """A run's folder with what predicting needs."""
    folder.mkdir()
    shutil.copy(trained.checkpoint, folder / CHECKPOINT)
    values = {"evaluate": asdict(trained.evaluate), "crf": asdict(trained.crf)}
    write_whole(folder / "config.yaml", yaml.safe_dump(values, sort_keys=False))


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    # Any: an array, or the bytes of a file.
    images = Schema([ColSpec(AnyType(), COLUMN)])
    labels = Schema([ColSpec(Array(Array(DataType.integer)))])
    ways = [ParamSpec(key, DataType.boolean, False) for key in ("multi_scale", "flip", "crf")]
    return ModelSignature(images, labels, ParamSchema(ways))


def _example() -> str:
    """A small photograph, as a client sends it: a JPEG in base64."""
    file = io.BytesIO()
    Pillow.fromarray(photograph()).resize((96, 113)).save(file, format="JPEG")
    return base64.b64encode(file.getvalue()).decode()


def _tags(trained: Trained, run_folder: Path) -> dict[str, str]:
    figures = _record(run_folder, "metrics.json")
    there = [key for key in FIGURES if figures.get(key) is not None]
    return {"variant": run_folder.name} | {f"test/{key}": f"{figures[key]:.2f}" for key in there}


def _record(run_folder: Path, name: str) -> dict[str, Any]:
    path = run_folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON; train again") from error
    return content if isinstance(content, dict) else {}


def dataset_of(run_folder: Path) -> str:
    """The data set of a run, after which the registered model is called.

    Raises:
        UserError: there is no such run.
    """
    path = run_folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such run; train it first (`dvc repro`)")
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["dataset"])
