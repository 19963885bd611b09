import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from small_run import CLASSES, picture, save_run

from pipeline.errors import UserError
from pipeline.models.sizes import aligned_side
from pipeline.prediction.export import Check, export
from pipeline.prediction.photograph import photograph
from pipeline.prediction.predictor import Predictor
from pipeline.prediction.trained import find_trained


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "small", backbone="resnet18", width=1.0)


def test_onnx_as_its_description_says_gives_the_predicted_labels(
    run_folder: Path, tmp_path: Path
) -> None:
    trained = find_trained(str(run_folder))
    said = export(trained, "onnx", tmp_path / "model.onnx", photograph(), None)
    assert "images of any size" in said and "checked at 258 x 330, 186 x 218, 161 x 257" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]

    description = json.loads((tmp_path / "model.onnx.json").read_text())
    assert [one["name"] for one in description["classes"]] == list(CLASSES)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    padding, given = description["padding"], description["input"]
    for width, height in ((131, 155), (90, 70)):
        image = np.asarray(picture(width, height))
        sides = [aligned_side(side, padding["output_stride"]) for side in (height, width)]
        batch = np.empty((1, 3, *sides), dtype=given["type"])
        batch[:] = np.reshape(padding["pixel"], (1, 3, 1, 1))
        batch[0, :, :height, :width] = image.transpose(2, 0, 1) / 255
        (scores,) = session.run([description["output"]["name"]], {given["name"]: batch})
        labels = scores[0, :, :height, :width].argmax(axis=0)
        wanted = Predictor(trained, "cpu").labels(image, trained.passes())
        assert len(np.unique(wanted)) > 1
        assert (labels == wanted).mean() > 0.999


def test_an_exported_program_runs_at_other_sizes(run_folder: Path, tmp_path: Path) -> None:
    trained = find_trained(str(run_folder))
    export(trained, "torch", tmp_path / "model.pt2", photograph(), None)
    module = torch.export.load(tmp_path / "model.pt2").module()
    images = torch.rand(1, 3, 99, 66)
    with torch.no_grad():
        torch.testing.assert_close(module(images), trained.network()(images))


def test_what_cannot_be_of_any_size_is_of_one_and_that_is_said(tmp_path: Path) -> None:
    # LinkNet's maps fit together at some sizes without being resized, at others not.
    trained = find_trained(
        str(
            save_run(
                tmp_path / "run",
                backbone="resnet18",
                width=1.0,
                network="linknet",
                output_stride=32,
            )
        )
    )
    out = tmp_path / "model.pt2"
    said = export(trained, "torch", out, photograph(), None)
    assert "one size only" in said and "images of 513 x 513 pixels only" in said
    assert json.loads(out.with_name("model.pt2.json").read_text())["input"]["shape"][2:] == [
        513,
        513,
    ]


def test_a_size_that_is_asked_for_is_the_only_one(run_folder: Path, tmp_path: Path) -> None:
    trained = find_trained(str(run_folder))
    said = export(trained, "torch", tmp_path / "model.pt2", photograph(), (65, 97))
    assert said.startswith(f"{tmp_path / 'model.pt2'}: torch, images of 65 x 97 pixels only")
    module = torch.export.load(tmp_path / "model.pt2").module()
    with pytest.raises(AssertionError, match="Guard"):
        module(torch.rand(1, 3, 66, 97))


def test_a_file_that_differs_is_refused_and_nothing_is_left(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.prediction.export.TOLERANCE", -1.0)
    with pytest.raises(UserError, match="not written; torch gives scores that differ"):
        trained = find_trained(str(run_folder))
        export(trained, "torch", tmp_path / "model.pt2", photograph(), (65, 65))
    assert not list(tmp_path.iterdir())


def test_scores_that_are_no_numbers_do_not_pass() -> None:
    assert Check([(65, 65)], 1e-5, 1.0).passed
    assert not Check([(65, 65)], 1e-2, 1.0).passed
    assert not Check([(65, 65)], float("nan"), 1.0).passed
