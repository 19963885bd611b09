import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import ExifTags, Image

from pipeline.datasets import prepare as preparing
from pipeline.datasets.manifest import Manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import load_prepared
from pipeline.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tiny.write_raw(tmp_path / "raw")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny.write_manifest(tmp_path)


def test_set_is_laid_out_as_promised(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "out"
    prepare(manifest, raw, out)
    description = json.loads((out / "dataset.json").read_text())
    digest = description.pop("digest")
    assert len(digest) == 64
    assert description == {
        "name": "tiny",
        "classes": ["background", "square", "stripe"],
        "palette": [[0, 0, 0], [200, 0, 0], [0, 0, 200]],
        "void": 255,
        "splits": {"train": 4, "val": 2},
    }
    assert (out / "splits" / "val.txt").read_text() == "val_0000\nval_0001\n"
    ids = [f"{split}_{n:04d}" for split, size in tiny.SIZES.items() for n in range(size)]
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"{id}.png" for id in ids]
    assert sorted(path.name for path in (out / "labels").iterdir()) == [f"{id}.png" for id in ids]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_images_are_copied_and_void_becomes_255(
    tmp_path: Path, raw: Path, manifest: Manifest
) -> None:
    data = prepare(manifest, raw, tmp_path / "out")
    source = raw / "val" / "images" / "0001.png"
    assert data.image_path("val_0001").read_bytes() == source.read_bytes()
    _, label = tiny.scene(5)
    with Image.open(data.label_path("val_0001")) as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.asarray(opened), np.where(label == tiny.VOID, 255, label))
        colours = np.asarray(opened.convert("RGB"))
    assert (colours[label == 1] == (200, 0, 0)).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_digest_and_files_are_the_same_every_time(
    tmp_path: Path, raw: Path, manifest: Manifest, workers: int
) -> None:
    first = prepare(manifest, raw, tmp_path / "first")
    second = prepare(manifest, raw, tmp_path / "second", workers=workers)
    assert first.digest == second.digest
    for path in (tmp_path / "first").rglob("*.*"):
        other = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert path.read_bytes() == other.read_bytes()


def test_digest_follows_the_data(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    digests = {prepare(manifest, raw, tmp_path / "out").digest}
    image, label = tiny.scene(0)
    label[9, 0] = 1
    Image.fromarray(label).save(raw / "train" / "labels" / "0000.png")
    digests.add(prepare(manifest, raw, tmp_path / "out").digest)
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(raw / "train" / "images" / "0000.png")
    digests.add(prepare(manifest, raw, tmp_path / "out").digest)
    for kind in ("images", "labels"):
        (raw / "val" / kind / "0001.png").rename(raw / "train" / kind / "0004.png")
    content = tiny.describe()
    content["splits"]["train"]["size"], content["splits"]["val"]["size"] = 5, 1
    digests.add(prepare(tiny.write_manifest(tmp_path, content), raw, tmp_path / "out").digest)
    assert len(digests) == 4


def test_digest_does_not_depend_on_how_a_mask_is_stored(
    tmp_path: Path, raw: Path, manifest: Manifest
) -> None:
    first = prepare(manifest, raw, tmp_path / "out").digest
    mask = Image.fromarray(tiny.scene(0)[1])
    mask.putpalette(list(range(256)) * 3)
    mask.save(raw / "train" / "labels" / "0000.png", compress_level=0)
    assert prepare(manifest, raw, tmp_path / "out").digest == first


def break_label(raw: Path, label: np.ndarray) -> None:
    Image.fromarray(label).save(raw / "train" / "labels" / "0001.png")


def wrong_value(raw: Path) -> None:
    label = tiny.scene(1)[1]
    label[4, 3] = 7
    break_label(raw, label)


def wrong_void(raw: Path) -> None:
    label = tiny.scene(1)[1]
    label[0, 0] = 255
    break_label(raw, label)


def wrong_size(raw: Path) -> None:
    break_label(raw, tiny.scene(1)[1][:, :-2])


def colours(raw: Path) -> None:
    break_label(raw, tiny.scene(1)[0])


def all_void(raw: Path) -> None:
    break_label(raw, np.full((tiny.HEIGHT, tiny.WIDTH), tiny.VOID, dtype=np.uint8))


def truncated_mask(raw: Path) -> None:
    path = raw / "train" / "labels" / "0001.png"
    path.write_bytes(path.read_bytes()[:-30])


def truncated_image(raw: Path) -> None:
    path = raw / "train" / "images" / "0001.png"
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (wrong_value, "train/labels/0001.png: class number 7 at x=3, y=4; allowed are 0..2 and 9"),
        (wrong_void, "train/labels/0001.png: class number 255 at x=0, y=0; allowed are 0..2 and 9"),
        (wrong_size, "train/labels/0001.png: the mask is 10x10, its image "),
        (colours, "train/labels/0001.png: the mask is an RGB picture"),
        (all_void, "train/labels/0001.png: every pixel is void, there is nothing to learn"),
        (truncated_mask, "train/labels/0001.png: truncated or not an image"),
        (truncated_image, "train/images/0001.png: truncated or not an image"),
    ],
)
def test_damage_ends_in_one_line_and_leaves_the_old_set(
    tmp_path: Path, raw: Path, manifest: Manifest, damage: Any, expected: str
) -> None:
    whole = prepare(manifest, raw, tmp_path / "out")
    damage(raw)
    wrong_size_later = raw / "val" / "labels" / "0001.png"
    Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(wrong_size_later)
    for out in ("out", "other"):
        with pytest.raises(UserError) as caught:
            prepare(manifest, raw, tmp_path / out)
        assert str(caught.value).startswith(f"{raw}/{expected}")
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw", "tiny.yaml"]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["digest"] == whole.digest


def test_interrupted_preparation_leaves_nothing(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        assert (tmp_path / "out.partial" / "labels" / "train_0000.png").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "_write_description", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, raw, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "tiny.yaml"]


def test_leftovers_of_a_killed_run_are_not_taken_over(
    tmp_path: Path, raw: Path, manifest: Manifest
) -> None:
    (tmp_path / "out.partial" / "images").mkdir(parents=True)
    (tmp_path / "out.partial" / "images" / "stale.png").touch()
    prepare(manifest, raw, tmp_path / "out")
    assert not (tmp_path / "out" / "images" / "stale.png").exists()


def test_classes_that_each_image_shows_are_kept(
    tmp_path: Path, raw: Path, manifest: Manifest
) -> None:
    label = tiny.scene(1)[1]
    label[label == 1] = tiny.VOID
    break_label(raw, label)
    data = prepare(manifest, raw, tmp_path / "out")
    assert data.shows["train_0000"] == (0, 1, 2)
    assert data.shows["train_0001"] == (0, 2)
    assert set(data.shows) == {*data.ids("train"), *data.ids("val")}


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_image_of_another_kind_is_kept_as_rgb(
    tmp_path: Path, raw: Path, manifest: Manifest, mode: str
) -> None:
    path = raw / "train" / "images" / "0001.png"
    Image.fromarray(tiny.scene(1)[0]).convert(mode).save(path)
    data = prepare(manifest, raw, tmp_path / "out")
    with Image.open(path) as source, Image.open(data.image_path("train_0001")) as kept:
        assert kept.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(source.convert("RGB")))


def test_tiff_becomes_a_png(tmp_path: Path, raw: Path) -> None:
    path = raw / "train" / "images" / "0001.png"
    path.unlink()
    Image.fromarray(tiny.scene(1)[0]).save(path.with_suffix(".TIF"))
    content = tiny.describe()
    content["splits"]["train"]["image"] = "train/images/{id}.*"
    data = prepare(tiny.write_manifest(tmp_path, content), raw, tmp_path / "out")
    assert data.image_path("train_0001").name == "train_0001.png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(data.image_path("train_0001"))), tiny.scene(1)[0]
    )


@pytest.mark.parametrize("upright", [True, False])
def test_turned_image_is_kept_as_its_mask_was_drawn(
    tmp_path: Path, raw: Path, manifest: Manifest, upright: bool
) -> None:
    """Some tools show an image as the camera's note says, others as it is stored."""
    image, label = tiny.scene(1)
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = 6
    Image.fromarray(image).save(raw / "train" / "images" / "0001.png", exif=note)
    break_label(raw, np.rot90(label, -1) if upright else label)
    data = prepare(manifest, raw, tmp_path / "out")
    with Image.open(data.image_path("train_0001")) as kept:
        assert ExifTags.Base.Orientation not in kept.getexif()
        expected = np.rot90(image, -1) if upright else image
        np.testing.assert_array_equal(np.asarray(kept), expected)


@pytest.mark.parametrize("own", [True, False])
def test_half_turned_image_is_upright_in_an_own_folder_only(
    tmp_path: Path, raw: Path, own: bool
) -> None:
    image = tiny.scene(1)[0]
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = 3
    Image.fromarray(image).save(raw / "train" / "images" / "0001.png", exif=note)
    content = tiny.describe(source={"folder": "x"}) if own else tiny.describe()
    data = prepare(tiny.write_manifest(tmp_path, content), raw, tmp_path / "out")
    kept = np.asarray(Image.open(data.image_path("train_0001")))
    np.testing.assert_array_equal(kept, image[::-1, ::-1] if own else image)


def test_digest_does_not_depend_on_how_a_converted_image_was_stored(
    tmp_path: Path, raw: Path, manifest: Manifest
) -> None:
    path, digests = raw / "train" / "images" / "0001.png", set()
    for level in (0, 9):
        Image.fromarray(tiny.scene(1)[0]).convert("L").save(path, compress_level=level)
        digests.add(prepare(manifest, raw, tmp_path / "out").digest)
    assert len(digests) == 1


def test_names_may_hold_spaces(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    for kind in ("images", "labels"):
        path = raw / "val" / kind / "0001.png"
        path.rename(path.with_name("my scene (2).png"))
    data = prepare(manifest, raw, tmp_path / "out")
    assert data.ids("val") == ["val_0000", "val_my scene (2)"]
    assert load_prepared(data.folder) == data


def test_class_without_a_training_image_is_warned_of(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [*tiny.describe()["classes"], {"name": "unicorn", "color": [1, 2, 3]}]
    prepare(tiny.write_manifest(tmp_path, tiny.describe(classes=classes)), raw, tmp_path / "out")
    assert "warning: tiny: no training image shows unicorn" in capsys.readouterr().out


def test_image_that_is_learned_and_scored_is_warned_of(
    tmp_path: Path, raw: Path, manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(manifest, raw, tmp_path / "out")
    assert "warning" not in capsys.readouterr().out
    shutil.copy(raw / "train" / "images" / "0002.png", raw / "val" / "images" / "0001.png")
    prepare(manifest, raw, tmp_path / "out")
    said = capsys.readouterr().out
    assert "warning: tiny: 1 images of val stand in train too, such as val_0001" in said
