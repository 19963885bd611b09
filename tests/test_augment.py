import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline import augment
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.prepared import load_prepared
from pipeline.entry import run
from pipeline.errors import UserError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the manifest and raw files of a set called few, for `augment` to work in."""
    split = {"image": "images/{id}.png", "labels": ["labels/{id}.png"], "size": 3}
    content = {
        "name": "few",
        "title": "Few",
        "licence": "CC0",
        "source": {"generator": "shapes", "seed": 0, "side": 32},
        "splits": {"train": split, "val": split},
        "void": 255,
        "classes": [{"name": "low", "color": [0, 0, 0]}, {"name": "high", "color": [255, 0, 0]}],
    }
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    rng = np.random.default_rng(0)
    for kind, values, shape in (("images", 256, (50, 60, 3)), ("labels", 2, (50, 60))):
        (tmp_path / "raw" / "few" / kind).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "raw" / "few" / kind / f"{number}.png")
    monkeypatch.setattr(augment, "RAW", tmp_path / "raw")
    monkeypatch.setattr(augment, "PREPARED", tmp_path / "prepared")
    monkeypatch.setattr(augment, "PREVIEWS", tmp_path / "previews")
    monkeypatch.setattr(augment, "load_manifest", lambda name: load_manifest(name, tmp_path))
    return tmp_path


def run_main(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr(sys, "argv", ["augment", "dataset=few", *overrides])
    augment.main()


def test_training_ready_set_is_written_with_its_pictures(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_main(monkeypatch)
    folder = project / "prepared" / "few"
    assert load_prepared(folder).ids("train") == ["0", "1", "2"]
    for name in ("samples.png", "augmentations.png", "classes.png", "sizes.png"):
        with Image.open(project / "previews" / "few" / name) as picture:
            assert picture.width > 1000


def test_pictures_follow_the_augmentation_and_data_does_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "prepared" / "few"
    drawn, digests = set(), set()
    for override in ("train.crop_size=97", "train.crop_size=129", "train.scale_max=1.0", "seed=1"):
        run_main(monkeypatch, override)
        drawn.add((project / "previews" / "few" / "augmentations.png").read_bytes())
        digests.add(load_prepared(folder).digest)
    assert len(drawn) == 4
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.split=trainaug", "train.split=trainaug: data set few has no such split; did you"),
        ("train.repeat=[hihg]", "train.repeat: data set few has no class hihg; did you mean"),
    ],
)
def test_what_the_data_does_not_have_is_said_before_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        run_main(monkeypatch, override)


def test_set_that_was_not_downloaded_ends_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "raw")
    monkeypatch.setattr(sys, "argv", ["augment", "dataset=few"])
    with pytest.raises(SystemExit) as ended:
        run(augment.main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"error: {project}/raw/few: the raw data is not there; run `dvc repro download`\n"
    )
