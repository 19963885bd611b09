import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from pipeline.datasets import shapes
from pipeline.datasets.manifest import (
    Archive,
    Checksum,
    Folder,
    Generator,
    load_manifest,
    voc_colour,
)
from pipeline.errors import UserError
from pipeline.paths import MANIFESTS, PROJECT

#: The YAML below the name of its file.
FIRST_EXAMPLE = re.compile(r"```yaml\n# data/manifests/mydata\.yaml\n(.*?)```", re.DOTALL)


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


def with_label(**changes: Any) -> dict[str, Any]:
    """The manifest with one label source, of class numbers unless changed."""
    return with_split(labels={"path": "train/labels/{id}.png", "format": "numbers"} | changes)


def with_shares(**shares: Any) -> dict[str, Any]:
    """The manifest with one place for all images, dealt out."""
    places = {"images": "images/{id}.*", "labels": "labels/{id}.png"}
    return without("splits") | {"split_by_seed": shares} | places


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
    assert manifest.source == (Archive("tiny.tar", ("x",), Checksum("sha256", "0" * 64), 1),)
    assert list(manifest.splits) == ["train", "val"]
    assert [source.path for source in manifest.splits["train"].labels] == ["train/labels/{id}.png"]
    assert manifest.splits["train"].size == 4
    assert manifest.shares is None
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


@pytest.mark.parametrize("name", ["voc2012-subset", "pascal_voc_2012_sbd", "coco_voc"])
def test_voc_palette_is_the_official_one(name: str) -> None:
    """VOC's colours are the bits of the class number, dealt out to red, green and blue."""
    manifest = load_manifest(name)
    assert manifest.palette == tuple(voc_colour(number) for number in range(21))
    assert [voc_colour(number) for number in (1, 9, 20)] == [(128, 0, 0), (192, 0, 0), (0, 64, 128)]


def test_data_sets_of_the_papers_have_their_published_sizes() -> None:
    """DeepLab v2, section 4; v3, section 4; SegNet's CamVid."""
    sizes = {
        path.stem: {name: split.size for name, split in load_manifest(path.stem).splits.items()}
        for path in MANIFESTS.glob("*.yaml")
    }
    assert sizes["pascal_voc_2012"] == {"train": 1464, "val": 1449, "trainval": 2913}
    assert sizes["pascal_voc_2012_sbd"]["trainaug"] == 10582
    assert sizes["pascal_context"] == {"train": 4998, "val": 5105}
    assert sizes["pascal_person_part"] == {"train": 1716, "val": 1817}
    assert sizes["cityscapes"] == {"train": 2975, "val": 500}
    assert sizes["cityscapes_coarse"] == {"train": 19998, "val": 500}
    assert sizes["camvid"] == {"train": 367, "val": 101, "test": 233}
    assert sizes["coco_voc"] == {"train": None, "val": None}


def test_own_folder_needs_five_lines(tmp_path: Path) -> None:
    lines = FIRST_EXAMPLE.search((PROJECT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert lines is not None
    assert lines[1].count("\n") == 5
    (tmp_path / "mydata.yaml").write_text(lines[1], encoding="utf-8")
    manifest = load_manifest("mydata", tmp_path)
    assert (manifest.name, manifest.title) == ("mydata", "mydata")
    assert manifest.source == Folder("data/own/mydata")
    readme = (PROJECT / "data" / "own" / "README.md").read_text(encoding="utf-8")
    assert lines[0] in readme
    assert manifest.splits["val"].image == "val/images/{id}.*"
    assert manifest.splits["val"].labels[0].path == "val/masks/{id}.png"
    assert manifest.palette == (voc_colour(0), voc_colour(1), voc_colour(2))
    assert manifest.void == 255


def test_void_may_be_absent_from_the_masks(tmp_path: Path) -> None:
    assert tiny.write_manifest(tmp_path, tiny.describe(void=None)).void is None


def test_file_that_the_user_brings_needs_no_checksum(tmp_path: Path) -> None:
    entry = {"file": "a.json", "get": "ask for it", "unpack": False}
    content = tiny.describe(source={"archives": [entry]})
    manifest = tiny.write_manifest(tmp_path, content)
    assert manifest.source == (Archive("a.json", (), None, None, "ask for it", False),)


@pytest.mark.parametrize(("kind", "length"), [("sha256", 64), ("sha1", 40), ("md5", 32)])
def test_archive_may_have_any_of_the_published_checksums(
    tmp_path: Path, kind: str, length: int
) -> None:
    content = with_archive(sha256=None, size=None) | {}
    content["source"]["archives"][0][kind] = "AB" * (length // 2)
    source = tiny.write_manifest(tmp_path, content).source
    assert source == (Archive("tiny.tar", ("x",), Checksum(kind, "ab" * (length // 2))),)


def test_generator_needs_the_sizes_of_splits(tmp_path: Path) -> None:
    content = tiny.describe(source={"generator": "shapes", "seed": 0, "side": 32})
    del content["splits"]["val"]["size"]
    assert refused(tmp_path, content) == "source.generator: splits.val.size is missing; add it"


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
    [("licence",), ("void",), ("source", "archives"), ("splits", "train", "image")],
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
        (tiny.describe(licence=None), "licence: must be text, is None"),
        (tiny.describe(void=1), "void: 1 is class square; void must not be a class number"),
        (tiny.describe(void=300), "void: must be a whole number in 0..255, is 300"),
        (tiny.describe(splits="x"), "splits: must be a mapping of keys to values, is 'x'"),
        (tiny.describe(splits=[]), "splits.train: this split is missing; train and val are"),
        (tiny.describe(splits=["train", "val"]), "splits.train.image: this key is missing; add"),
        (without("splits"), "splits: this key is missing; add it, or split_by_seed"),
        (tiny.describe(sample_id="x"), "sample_id: x: must hold {id}, the image's name"),
        (tiny.describe(classes=[]), "classes: must be a list with at least one entry, is []"),
        (with_split(size=True), "splits.train.size: must be a whole number of at least 1, is True"),
        (with_split(size=0), "splits.train.size: must be a whole number of at least 1, is 0"),
        (with_split(image="a.png"), "splits.train.image: a.png: must hold {id}, the image's name"),
        (with_split(image="{id}{x}"), "splits.train.image: {id}{x}: must hold {id}, the image's"),
        (with_split(image="a/{id}*.png"), "splits.train.image: a/{id}*.png: * may stand in a"),
        (with_split(image="../{id}.png"), "splits.train.image: ../{id}.png: must be a path below"),
        (with_split(labels="x"), "splits.train.labels: x: must hold {id}, the image's name"),
        (with_split(labels=[]), "splits.train.labels: must be a list with at least one entry"),
        (with_split(labels=["{id}", 3]), "splits.train.labels[1]: must be a mapping of keys to"),
        (with_split(labels=[{"path": "{id}"}]), "splits.train.labels[0].format: this key is miss"),
        (with_label(format="colour"), "splits.train.labels.format: colour: did you mean 'colours'"),
        (with_label(path="/{id}"), "splits.train.labels.path: /{id}: must be a path below"),
        (with_label(path="a.png"), "splits.train.labels.path: a.png: must hold {id}"),
        (with_label(mop={}), "splits.train.labels.mop: unknown key; did you mean 'map'?"),
        (with_label(map={}), "splits.train.labels.map: must map something to a class, is empty"),
        (
            with_label(map=[7]),
            "splits.train.labels.map: must be a mapping of keys to values, is [7]",
        ),
        (with_label(map={"7": "square"}), "splits.train.labels.map.7: must be a whole number of"),
        (with_label(map={7: "sqare"}), "splits.train.labels.map.7: sqare: no such class; did you"),
        (with_label(map={70000: "square"}), "splits.train.labels.map: 70000: a mask's numbers are"),
        (
            with_label(format="colours", void_colours=[[1, 2]]),
            "splits.train.labels.void_colours: must be [red, green, blue] of 0..255, is [1, 2]",
        ),
        (
            with_label(format="colours", void_colours=[[200, 0, 0]]),
            "splits.train.labels.void_colours: [200, 0, 0]: is the colour of square",
        ),
        (with_label(format="sbd", map={}), "splits.train.labels.map: unknown key; "),
        (
            with_label(format="person_part"),
            "splits.train.labels.format: person_part: needs a class",
        ),
        (with_label(format="context", path="a"), "splits.train.labels.map: this key is missing"),
        (
            with_label(format="coco", path="a.json", map={1: "square"}),
            "splits.train.labels.map.1: must be text, as in the source's masks",
        ),
        (with_split(list="/etc/x"), "splits.train.list: /etc/x: must be a path below"),
        (with_split(list={}), "splits.train.list: must be a path, or hold union or minus"),
        (with_split(list={"add": ["x"]}), "splits.train.list.add: unknown key; "),
        (
            with_split(list={"minus": ["../x"]}),
            "splits.train.list.minus: ../x: must be a path below",
        ),
        (with_split(list={"union": "x"}), "splits.train.list.union: must be a list with at least"),
        (with_shares(train=0.8), "split_by_seed.val: this split is missing; train and val are"),
        (with_shares(train=0.8, val=0.1), "split_by_seed: the shares add up to 0.9; they must"),
        (
            with_shares(train=0.8, val=0),
            "split_by_seed.val: must be a number between 0 and 1, is 0",
        ),
        (with_shares(train=0.8, val=0.2, seed="x"), "split_by_seed.seed: must be a whole number"),
        (with_shares(train=0.8, val=0.2) | {"images": None}, "images: this key is missing; add it"),
        (with_shares(train=0.8, val=0.2) | {"labels": None}, "labels: this key is missing; add it"),
        (
            with_shares(train=0.8, val=0.2) | {"splits": ["train", "val"]},
            "split_by_seed: splits stands there too; keep one of the two",
        ),
        (with_archive(sha256="12"), "source.archives[0].sha256: 12: must be 64 hexadecimal"),
        (with_archive(md5="12"), "source.archives[0].md5: sha256 stands there too; keep one"),
        (with_archive(sha256=None, md5="12"), "source.archives[0].md5: 12: must be 32 hexadecimal"),
        (with_archive(sha256=None), "source.archives[0].sha256: this key is missing; add it, or"),
        (
            with_archive(urls=None),
            "source.archives[0]: needs urls, or get with how to get the file",
        ),
        (
            with_archive(get="ask"),
            "source.archives[0]: needs urls, or get with how to get the file",
        ),
        (with_archive(unpack="no"), "source.archives[0].unpack: must be true or false, is 'no'"),
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
