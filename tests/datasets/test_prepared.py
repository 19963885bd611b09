import json
from pathlib import Path

import pytest
import tiny

from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    raw = tiny.write_raw(tmp_path / "raw")
    return prepare(tiny.write_manifest(tmp_path), raw, tmp_path / "out")


def test_set_is_read_as_it_was_written(data: Prepared) -> None:
    assert load_prepared(data.folder) == data
    assert data.name == "tiny"
    assert data.classes == ("background", "square", "stripe")
    assert data.palette[1] == (200, 0, 0)
    assert data.ids("val") == ["val_0000", "val_0001"]
    for id in data.ids("train") + data.ids("val"):
        assert data.image_path(id).is_file()
        assert data.label_path(id).is_file()
    assert data.mean == tuple(json.loads((data.folder / "statistics.json").read_text())["mean"])


def test_missing_set_is_answered_with_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/dataset\.json: not there; run `dvc repro aug"):
        load_prepared(tmp_path / "nowhere")


def test_unknown_split_is_answered_with_those_there_are(data: Prepared) -> None:
    with pytest.raises(
        UserError, match=r"split=test: data set tiny has no such split; .* train, val"
    ):
        data.ids("test")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("images/train_0002.png", None),
        ("labels/val_0000.png", None),
        ("splits/train.txt", None),
        ("splits/train.txt", "train_0000\n"),
        ("dataset.json", "{"),
        ("dataset.json", "[]"),
        ("dataset.json", '{"name": "tiny"}'),
        ("statistics.json", '{"mean": [0.5]}'),
    ],
)
def test_damaged_set_is_answered_with_the_stage_to_run_again(
    data: Prepared, path: str, content: str | None
) -> None:
    if content is None:
        (data.folder / path).unlink()
    else:
        (data.folder / path).write_text(content)
    with pytest.raises(UserError, match="run `dvc repro -f augment`") as caught:
        load_prepared(data.folder)
    assert str(data.folder) in str(caught.value)
