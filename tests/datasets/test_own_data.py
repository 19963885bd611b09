"""The user's own folder, from a short manifest to the training-ready set: no line of Python."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError

COLOURS = np.zeros((256, 3), dtype=np.uint8)
COLOURS[[0, 1, 2, tiny.VOID]] = [*tiny.CLASSES.values(), [255, 255, 255]]
HEAD = "source: {folder: data/own/photos}\n"
#: Every class by name only.
NAMED = "classes: [background, square, stripe]\n"


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def take_over(project: Path, manifest: str) -> Prepared:
    """The set that `dvc repro augment` makes from <project>/data/own/photos and this manifest."""
    (project / "own.yaml").write_text(manifest, encoding="utf-8")
    loaded = load_manifest("own", project)
    return prepare(loaded, fetch(loaded, project / "raw", project), project / "prepared")


def refused(project: Path, manifest: str) -> str:
    with pytest.raises(UserError) as caught:
        take_over(project, manifest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def place(template: str, split: str, number: int) -> str:
    return template.format(split=split, id=f"a{number}")


LAYOUTS = {
    "splits above": ("{split}/images/{id}.jpg", "{split}/masks/{id}.png"),
    "splits below": ("images/{split}/{id}.jpg", "masks/{split}/{id}.png"),
    "splits in the names": ("images_{split}/{id}.jpg", "annotations_{split}/{id}.png"),
    "one folder, another suffix": ("{split}/{id}.jpg", "{split}/{id}.png"),
    "one folder, a longer name": ("{split}/{id}.png", "{split}/{id}_mask.png"),
    "one folder, a longer image": ("{split}/{id}_rgb.png", "{split}/{id}.png"),
    "a folder a sample": ("{split}/{id}/photo.jpg", "{split}/{id}/mask.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_usual_layouts_are_described_in_two_lines(tmp_path: Path, layout: str) -> None:
    image, mask = LAYOUTS[layout]
    for number, split in enumerate(["train", "train", "val"]):
        picture, label = tiny.scene(number)
        save(tmp_path / "data/own/photos" / place(image, split, number), picture)
        save(tmp_path / "data/own/photos" / place(mask, split, number), label)
    lines = f'images: "{image}"\nlabels: "{mask}"\nsplits: [train, val]\nvoid: {tiny.VOID}\n'
    data = take_over(tmp_path, HEAD + NAMED + lines)
    assert data.splits == {"train": ("a0", "a1"), "val": ("a2",)}
    label = np.asarray(Image.open(data.label_path("a2")))
    expected = tiny.scene(2)[1]
    np.testing.assert_array_equal(label, np.where(expected == tiny.VOID, 255, expected))


def unsplit(project: Path, write: Callable[[Path, np.ndarray], None], count: int = 10) -> None:
    """images/ and masks/ of `count` images that nobody has split."""
    for number in range(count):
        picture, label = tiny.scene(number)
        kind = "jpg" if number % 2 else "png"
        save(project / f"data/own/photos/images/{number:03}.{kind}", picture)
        write(project / f"data/own/photos/masks/{number:03}.png", label)


PLACES = 'images: "images/{id}.*"\nlabels: "masks/{id}.png"\n'
DEALT = HEAD + PLACES + "split_by_seed: {train: 0.7, val: 0.2, test: 0.1, seed: 0}\n"


def test_unsplit_folder_is_dealt_out(tmp_path: Path) -> None:
    unsplit(tmp_path, save)
    data = take_over(tmp_path, DEALT + NAMED + f"void: {tiny.VOID}\n")
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 7,
        "val": 2,
        "test": 1,
    }
    assert sorted(sum(data.splits.values(), ())) == [f"{number:03}" for number in range(10)]
    again = take_over(tmp_path, DEALT + NAMED + f"void: {tiny.VOID}\n")
    assert again.digest == data.digest


def palette_png(path: Path, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    image.putpalette(COLOURS.tobytes())
    image.save(path)


def colour_png(path: Path, label: np.ndarray) -> None:
    save(path, COLOURS[label])


def sixteen_bits(path: Path, label: np.ndarray) -> None:
    save(path, label.astype(np.uint16) * 1000)


COLOURED = "classes:\n" + "".join(
    f"  - {{name: {name}, color: {color}}}\n" for name, color in tiny.CLASSES.items()
)
BY_COLOUR = DEALT.replace('"masks/{id}.png"', '{path: "masks/{id}.png", format: colours').replace(
    "format: colours", "format: colours, void_colours: [[255, 255, 255]]}"
)
BY_MAP = DEALT.replace('"masks/{id}.png"', '{path: "masks/{id}.png", format: numbers, map: {')
BY_MAP = BY_MAP.replace("map: {", "map: {0: background, 1000: square, 2000: stripe}}")


@pytest.mark.parametrize(
    ("write", "manifest"),
    [
        (save, DEALT + NAMED + f"void: {tiny.VOID}\n"),
        (palette_png, DEALT + NAMED + f"void: {tiny.VOID}\n"),
        (palette_png, BY_COLOUR + COLOURED),
        (colour_png, BY_COLOUR + COLOURED),
        (sixteen_bits, BY_MAP + NAMED),
    ],
    ids=["numbers", "palette", "colours of a palette", "colours", "mapped"],
)
def test_masks_of_every_kind_give_the_same_set(
    tmp_path: Path, write: Callable[[Path, np.ndarray], None], manifest: str
) -> None:
    unsplit(tmp_path, write)
    data = take_over(tmp_path, manifest)
    for number in range(10):
        expected = tiny.scene(number)[1]
        label = np.asarray(Image.open(data.label_path(f"{number:03}")))
        np.testing.assert_array_equal(label, np.where(expected == tiny.VOID, 255, expected))


def test_lists_split_a_folder(tmp_path: Path) -> None:
    unsplit(tmp_path, save)
    for name, numbers in {"train": (1, 2, 3), "val": (5,)}.items():
        path = tmp_path / f"data/own/photos/{name}.txt"
        path.write_text("".join(f"{number:03}\n" for number in numbers))
    splits = "splits:\n  train: {list: train.txt}\n  val: {list: val.txt}\n"
    data = take_over(tmp_path, HEAD + PLACES + splits + NAMED + f"void: {tiny.VOID}\n")
    assert data.splits == {"train": ("001", "002", "003"), "val": ("005",)}


def test_image_without_a_mask_is_named(tmp_path: Path) -> None:
    unsplit(tmp_path, save)
    (tmp_path / "data/own/photos/masks/004.png").unlink()
    line = refused(tmp_path, DEALT + NAMED)
    assert f"{tmp_path}/raw/own/masks/004.png: the mask of image 004 is missing, split " in line
    assert line.endswith(
        f"mend data/own/photos or {tmp_path}/own.yaml, then run `dvc repro -f download`"
    )


def test_mask_without_an_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsplit(tmp_path, save)
    for number in (4, 6):
        (tmp_path / f"data/own/photos/images/00{number}.png").unlink()
    take_over(tmp_path, DEALT + NAMED + f"void: {tiny.VOID}\n")
    said = "".join(capsys.readouterr().out)
    assert (
        f"warning: {tmp_path}/raw/own/masks/004.png (and 1 more): a mask without an image, left out"
        in said
    )


def test_too_few_images_for_the_shares_are_named(tmp_path: Path) -> None:
    unsplit(tmp_path, save, count=2)
    line = refused(tmp_path, DEALT + NAMED + f"void: {tiny.VOID}\n")
    assert line == (
        f"{tmp_path}/raw/own/images/{{id}}.*: 2 images are too few, split test is empty; "
        f"bring more, or mend split_by_seed in {tmp_path}/own.yaml"
    )


def test_empty_place_is_named(tmp_path: Path) -> None:
    unsplit(tmp_path, save)
    line = refused(tmp_path, DEALT.replace("images/{id}", "image/{id}") + NAMED)
    assert line.startswith(f"{tmp_path}/raw/own/image/{{id}}.*: no image is there")


def test_equal_names_in_two_splits_are_answered_with_the_remedy(tmp_path: Path) -> None:
    tiny.write_raw(tmp_path / "data/own/photos")
    lines = 'images: "{split}/images/{id}.*"\nlabels: "{split}/labels/{id}.png"\n'
    lines += f"splits: [train, val]\nvoid: {tiny.VOID}\n"
    assert "set sample_id: '{split}_{id}' in" in refused(tmp_path, HEAD + NAMED + lines)
    data = take_over(tmp_path, HEAD + NAMED + lines + 'sample_id: "{split}_{id}"\n')
    assert data.ids("val") == ["val_0000", "val_0001"]


def test_instances_of_an_annotation_tool_need_no_masks(tmp_path: Path) -> None:
    """The tools' usual export: COCO's JSON, whatever the categories are called."""
    unsplit(tmp_path, save)
    box = [[1, 1, 6, 1, 6, 4, 1, 4]]
    content = {
        "images": [
            {"id": n, "file_name": f"images/{n:03}.jpg", "height": tiny.HEIGHT, "width": tiny.WIDTH}
            for n in range(9)
        ],
        "annotations": [
            {"image_id": n, "category_id": 7, "iscrowd": 0, "area": 15, "segmentation": box}
            for n in range(9)
        ],
        "categories": [{"id": 7, "name": "Crack (fine)"}],
    }
    (tmp_path / "data/own/photos/instances.json").write_text(json.dumps(content))
    source = '{path: instances.json, format: coco, map: {"Crack (fine)": stripe}}'
    data = take_over(tmp_path, DEALT.replace('"masks/{id}.png"', source) + NAMED)
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 6,
        "val": 2,
        "test": 1,
    }
    label = np.asarray(Image.open(data.label_path("004")))
    assert (label[1:4, 1:6] == 2).all()
    assert np.count_nonzero(label) == 15
