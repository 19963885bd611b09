import base64
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image
from small_run import CLASSES, picture, save_run

from pipeline.errors import UserError
from pipeline.prediction.predictor import Predictor
from pipeline.prediction.pyfunc import decoded
from pipeline.prediction.registry import dataset_of, register
from pipeline.prediction.trained import find_trained

#: Milliseconds.
ENDED = 1_700_000_000_000
PIXELS = np.asarray(picture())
CRF = {"sigma_alpha": 10.0, "sigma_beta": 10.0, "iterations": 2}


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def run_folder(tmp_path: Path, mlflow_store: str) -> Path:
    """A run with a row in a real store."""
    folder = save_run(tmp_path / "small")
    client = mlflow.MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("registry")
    place = (
        client.create_experiment("registry", artifact_location=(tmp_path / "kept").as_uri())
        if experiment is None
        else experiment.experiment_id
    )
    row = client.create_run(place, run_name="small").info.run_id
    client.set_terminated(row, end_time=ENDED)
    (folder / "run.json").write_text(json.dumps({"run_id": row}))
    (folder / "metrics.json").write_text(json.dumps({"miou": 71.234, "miou_crf": None}))
    evaluate = {"scales": [0.5, 1.0]}
    (folder / "config.yaml").write_text(
        json.dumps({"dataset": "shapes", "evaluate": evaluate, "crf": CRF})
    )
    return folder


def test_a_registered_network_gives_the_labels_of_the_run(
    run_folder: Path, mlflow_store: str
) -> None:
    row = json.loads((run_folder / "run.json").read_text())["run_id"]
    address = register(run_folder, dataset_of(run_folder), "best")
    served = mlflow.pyfunc.load_model("models:/shapes@best")
    predictor = Predictor(find_trained(str(run_folder)), "cpu")
    passes = predictor.trained.passes()
    wanted = predictor.labels(PIXELS, passes)
    assert len(np.unique(wanted)) > 1
    sent = base64.b64encode(png()).decode()
    for form in (PIXELS, png(), sent):
        (labels,) = served.predict([{"image": form}])
        np.testing.assert_array_equal(labels, wanted)
    both = predictor.trained.passes(multi_scale=True, flip=True)
    fused = predictor.labels(PIXELS, both, crf=True)
    ways = {"multi_scale": True, "flip": True, "crf": True}
    (labels,) = served.predict([{"image": PIXELS}], params=ways)
    np.testing.assert_array_equal(labels, fused)
    assert (fused != wanted).any()

    # What the dashboard shows of it.
    client = mlflow.MlflowClient(mlflow_store)
    found = client.get_model_version_by_alias("shapes", "best")
    assert address == f"models:/shapes/{found.version}"
    assert found.tags == {"variant": "small", "test/miou": "71.23"}
    assert served.metadata.signature.inputs.input_names() == ["image"]
    assert served.metadata.saved_input_example_info is not None
    # And the address works where a model is named.
    assert find_trained("models:/shapes@best").evaluate.scales == [0.5, 1.0]
    assert find_trained(f"runs:/{row}/network").classes == CLASSES
    # The row stays the training's.
    info = client.get_run(row).info
    assert (info.status, info.end_time) == ("FINISHED", ENDED)
    with pytest.raises(UserError, match="models:/shapes@worst: not found"):
        find_trained("models:/shapes@worst")


def test_a_run_without_a_row_is_refused(run_folder: Path) -> None:
    (run_folder / "run.json").unlink()
    with pytest.raises(UserError, match="no row in MLflow"):
        register(run_folder, "shapes", "best")
    with pytest.raises(UserError, match="no such run"):
        dataset_of(run_folder / "other")


@pytest.mark.parametrize(
    "image", ["no base64", b"no image", [[1, 2], [3]], np.zeros((4, 4)), np.full((2, 2, 3), 256)]
)
def test_what_is_no_image_is_named(image: object) -> None:
    with pytest.raises(MlflowException, match="column `image`"):
        decoded(image)
