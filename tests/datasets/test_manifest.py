from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from pipeline.datasets import shapes
from pipeline.datasets.manifest import Archive, Generator, load_manifest
from pipeline.errors import UserError
from pipeline.paths import MANIFESTS


def refused(folder: Path, content: Any) -> str:
    """The one line that a manifest of this content ends in, without its path."""
    path = folder / "tiny.yaml"
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_manifest("tiny", folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def with_split(**changes: Any) -> dict[str, Any]:
    content = tiny.describe()
    content["splits"]["train"] |= changes
    return content


def with_archive(**changes: Any) -> dict[str, Any]:
    content = tiny.describe()
    content["source"]["archives"][0] |= changes
    return content


def without(*keys: str) -> dict[str, Any]:
    content = tiny.describe()
    section = content
    for key in keys[:-1]:
        section = section[key]
    del section[keys[-1]]
    return content


def test_every_field_is_read(tmp_path: Path) -> None:
    manifest = tiny.write_manifest(tmp_path, tiny.describe(terms="cite it", homepage="https://x.y"))
    assert manifest.name == "tiny"
    assert (manifest.terms, manifest.homepage) == ("cite it", "https://x.y")
    assert manifest.source == (Archive("tiny.tar", ("x",), "0" * 64, 1),)
    assert list(manifest.splits) == ["train", "val"]
    assert manifest.splits["train"].labels == ("train/labels/{id}.png",)
    assert manifest.classes == ("background", "square", "stripe")
    assert manifest.palette == ((0, 0, 0), (200, 0, 0), (0, 0, 200))
    assert manifest.void == 9


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_manifests_are_valid(path: Path) -> None:
    manifest = load_manifest(path.stem)
    assert {"train", "val"} <= set(manifest.splits)
    assert len(manifest.classes) == len(manifest.palette)


def test_shapes_manifest_agrees_with_its_generator() -> None:
    manifest = load_manifest("shapes")
    assert manifest.source == Generator("shapes", seed=0, side=128)
    assert manifest.classes == shapes.CLASSES
    assert manifest.palette == shapes.PALETTE
    assert {name: split.size for name, split in manifest.splits.items()} == {
        "train": 600,
        "val": 100,
        "test": 100,
    }


def test_voc_palette_is_the_official_one() -> None:
    """VOC's colours are the bits of the class number, dealt out to red, green and blue."""
    manifest = load_manifest("voc2012-subset")
    for number, colour in enumerate(manifest.palette):
        expected = [0, 0, 0]
        for bit in range(8):
            expected[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        assert list(colour) == expected


def test_unknown_data_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"dataset=shaeps: no manifest .* did you mean 'shapes'"):
        load_manifest("shaeps")


def test_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    line = refused(tmp_path, tiny.describe(tilte="x"))
    assert line.startswith("tilte: unknown key; did you mean 'title'?")
    line = refused(tmp_path, with_split(lables=["x"]))
    assert line.startswith("splits.train.lables: unknown key; did you mean 'labels'?")


@pytest.mark.parametrize(
    "keys",
    [("licence",), ("void",), ("source", "archives"), ("splits", "train", "size")],
    ids=".".join,
)
def test_missing_key_is_named(tmp_path: Path, keys: tuple[str, ...]) -> None:
    line = refused(tmp_path, without(*keys))
    assert line == f"{'.'.join(keys)}: this key is missing; add it"


def test_missing_split_is_named(tmp_path: Path) -> None:
    line = refused(tmp_path, without("splits", "val"))
    assert line == "splits.val: this split is missing; train and val are needed"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiny.describe(name="other"), "name: other: must be the file's own name, tiny"),
        (tiny.describe(title=7), "title: must be text, is 7"),
        (tiny.describe(void=1), "void: 1 is class square; void must not be a class number"),
        (tiny.describe(void=300), "void: must be a whole number in 0..255, is 300"),
        (tiny.describe(splits=[]), "splits: must be a mapping of keys to values, is []"),
        (tiny.describe(sample_id="x"), "sample_id: x: must hold {id} once"),
        (tiny.describe(classes=[]), "classes: must be a list with at least one entry, is []"),
        (with_split(size=True), "splits.train.size: must be a whole number of at least 1, is True"),
        (with_split(image="a.png"), "splits.train.image: a.png: must hold {id} once"),
        (with_split(image="../{id}.png"), "splits.train.image: ../{id}.png: must be a path below"),
        (with_split(labels="x"), "splits.train.labels: must be a list with at least one entry"),
        (with_split(list="/etc/x"), "splits.train.list: /etc/x: must be a path below"),
        (with_archive(sha256="12"), "source.archives[0].sha256: 12: must be 64 hexadecimal"),
        (with_archive(file="a/b.tar"), "source.archives[0].file: a/b.tar: must be a file's name"),
        (with_archive(size=0), "source.archives[0].size: must be a whole number of at least 1"),
        (
            tiny.describe(source={"generator": "shape", "seed": 0, "side": 32}),
            "source.generator: shape: did you mean 'shapes'?",
        ),
        ("just text", "must be a mapping of keys to values, is 'just text'"),
        ("name: [", "not valid YAML: "),
    ],
)
def test_wrong_value_is_named(tmp_path: Path, content: Any, expected: str) -> None:
    assert refused(tmp_path, content).startswith(expected)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([("a", [0, 0, 0]), ("a", [1, 1, 1])], "classes[1].name: a: is class 0 already"),
        ([("a", [0, 0, 0]), ("b", [0, 0, 0])], "classes[1].color: [0, 0, 0]: is the colour of a"),
        ([("a", [0, 0, 256])], "classes[0].color: must be [red, green, blue] of 0..255"),
        ([("a", [0, 0, 0])], "classes: 2 to 255 classes are possible, here are 1"),
    ],
)
def test_wrong_class_is_named(tmp_path: Path, classes: list[Any], expected: str) -> None:
    content = tiny.describe(classes=[{"name": name, "color": color} for name, color in classes])
    assert refused(tmp_path, content).startswith(expected)
