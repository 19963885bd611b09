import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from pipeline.datasets.layout import find_samples
from pipeline.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tiny.write_raw(tmp_path / "raw")


def with_train(folder: Path, **changes: Any) -> Any:
    """The manifest, with keys of its train split changed."""
    content = tiny.describe()
    content["splits"]["train"] |= changes
    return tiny.write_manifest(folder, content)


def with_list(raw: Path, text: str, size: int) -> Any:
    (raw / "train.txt").write_text(text, encoding="utf-8")
    return with_train(raw.parent, list="train.txt", size=size)


def test_files_that_match_the_template_are_found_in_order(raw: Path) -> None:
    (raw / "train" / "images" / "Thumbs.db").touch()
    splits = find_samples(tiny.write_manifest(raw.parent), raw)
    assert [sample.id for sample in splits["train"]] == [f"train_{n:04d}" for n in range(4)]
    last = splits["val"][1]
    assert (last.id, last.image) == ("val_0001", raw / "val/images/0001.png")
    assert last.mask.path == raw / "val/labels/0001.png"
    expected = np.where(tiny.scene(5)[1] == tiny.VOID, 255, tiny.scene(5)[1])
    np.testing.assert_array_equal(last.mask.read(), expected)


def test_list_decides_what_is_taken_and_in_which_order(raw: Path) -> None:
    splits = find_samples(with_list(raw, "0002\r\n0000 1\n\n", 2), raw)
    assert [sample.id for sample in splits["train"]] == ["train_0002", "train_0000"]


def test_first_mask_that_exists_is_taken(raw: Path) -> None:
    (raw / "better").mkdir()
    (raw / "better" / "0001.png").touch()
    labels = ["better/{id}.png", "train/labels/{id}.png"]
    splits = find_samples(with_train(raw.parent, labels=labels), raw)
    names = [sample.mask.path.relative_to(raw).parts[0] for sample in splits["train"]]
    assert names == ["train", "better", "train", "train"]


def test_split_may_hold_another_one(raw: Path) -> None:
    content = tiny.describe(sample_id="{id}")
    content["splits"]["val"] |= {"size": 4} | {
        key: content["splits"]["train"][key] for key in ("image", "labels")
    }
    splits = find_samples(tiny.write_manifest(raw.parent, content), raw)
    assert splits["train"] == splits["val"]


def refused(manifest: Any, raw: Path) -> str:
    with pytest.raises(UserError) as caught:
        find_samples(manifest, raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_mask_is_named(raw: Path) -> None:
    (raw / "train" / "labels" / "0002.png").unlink()
    line = refused(tiny.write_manifest(raw.parent), raw)
    assert line == (
        f"{raw}/train/labels/0002.png: the mask of image 0002 is missing, split train names it; "
        f"to fetch all files again, remove {raw} and run `dvc repro -f download`"
    )


def test_missing_image_is_named(raw: Path) -> None:
    line = refused(with_list(raw, "0000\n0007\n", 2), raw)
    assert line.startswith(
        f"{raw}/train/images/0007.png: the image is missing, split train names it; to fetch all"
    )


def test_missing_list_is_named(raw: Path) -> None:
    line = refused(with_train(raw.parent, list="nowhere.txt"), raw)
    assert line.startswith(f"{raw}/nowhere.txt: the list is missing; to fetch all files again")


def test_empty_split_is_named(raw: Path) -> None:
    for path in (raw / "val" / "images").iterdir():
        path.unlink()
    manifest = tiny.write_manifest(raw.parent)
    assert refused(manifest, raw) == (
        f"{raw}/val/images/{{id}}.png: split val is empty, 2 images are expected; "
        f"mend splits.val in {manifest.path}"
    )


def test_split_of_another_size_is_named(raw: Path) -> None:
    (raw / "train" / "images" / "0003.png").unlink()
    manifest = tiny.write_manifest(raw.parent)
    assert refused(manifest, raw).startswith(
        f"{raw}/train/images/{{id}}.png: split train has 3 images, 4 are expected; "
        f"mend splits.train.size in {manifest.path}, or to fetch all files again"
    )


def test_id_twice_in_a_list_is_named(raw: Path) -> None:
    line = refused(with_list(raw, "0000\n0001\n0000\n", 3), raw)
    assert line == f"{raw}/train.txt: line 3: 0000 stands in line 1 already"


@pytest.mark.parametrize("word", ["/else/where/0002.png", "C:\\data\\0002.png", "0002.png"])
def test_list_may_name_paths_of_another_machine(raw: Path, word: str) -> None:
    splits = find_samples(with_list(raw, f"{word} /else/where/mask.png\n", 1), raw)
    assert [sample.id for sample in splits["train"]] == ["train_0002"]


def test_path_in_a_list_loses_what_the_template_says_around_the_id(raw: Path) -> None:
    image = raw / "train" / "images" / "0002.png"
    image.rename(image.with_name("0002_left.png"))
    (raw / "train.txt").write_text("elsewhere/0002_left.png\n")
    changes: dict[str, Any] = {"image": "train/images/{id}_left.png", "list": "train.txt"}
    splits = find_samples(with_train(raw.parent, size=1, **changes), raw)
    assert [sample.id for sample in splits["train"]] == ["train_0002"]


def test_list_that_is_no_text_is_named(raw: Path) -> None:
    (raw / "train.txt").write_bytes(b"\xff\xfe0\x00")
    assert "train.txt: not a text of ids; save it as UTF-8" in refused(
        with_train(raw.parent, list="train.txt"), raw
    )


def test_lists_are_united_and_taken_away(raw: Path) -> None:
    for name, text in {"a": "0003\n0001\n", "b": "0001\n0000\n", "c": "0000\n"}.items():
        (raw / f"{name}.txt").write_text(text)
    listing = {"union": ["a.txt", "b.txt"], "minus": ["c.txt"]}
    splits = find_samples(with_train(raw.parent, list=listing, size=2), raw)
    assert [sample.id for sample in splits["train"]] == ["train_0003", "train_0001"]
    splits = find_samples(with_train(raw.parent, list={"minus": ["c.txt", "a.txt"]}, size=1), raw)
    assert [sample.id for sample in splits["train"]] == ["train_0002"]


def test_images_lie_in_folders_of_any_name(raw: Path) -> None:
    for number, city in enumerate(["rome", "oslo", "rome", "bonn"]):
        for kind, suffix in (("images", "_left"), ("labels", "_ids")):
            path = raw / "train" / kind / f"{number:04d}.png"
            (path.parent / city).mkdir(exist_ok=True)
            path.rename(path.parent / city / f"{number:04d}{suffix}.png")
    (raw / "train" / "images" / "rome" / "._0000_left.png").touch()
    changes = {"image": "train/images/*/{id}_left.png", "labels": "train/labels/*/{id}_ids.png"}
    samples = find_samples(with_train(raw.parent, **changes), raw)["train"]
    assert [sample.image.parent.name for sample in samples] == ["rome", "oslo", "rome", "bonn"]
    assert [sample.mask.path.parent.name for sample in samples] == ["rome", "oslo", "rome", "bonn"]


def test_every_sample_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    for split, size in tiny.SIZES.items():
        for number in range(size):
            folder = tmp_path / "raw" / split / f"scene{number}"
            folder.mkdir(parents=True)
            (folder / "image.jpg").touch()
            (folder / f"scene{number}_mask.png").touch()
    changes = {"images": "{split}/{id}/image.*", "labels": "{split}/{id}/{id}_mask.png"}
    content = tiny.describe(splits=["train", "val"], **changes)
    splits = find_samples(tiny.write_manifest(tmp_path, content), tmp_path / "raw")
    assert [sample.id for sample in splits["val"]] == ["val_scene0", "val_scene1"]
    assert splits["train"][3].mask.path == tmp_path / "raw/train/scene3/scene3_mask.png"


def test_two_images_of_one_name_are_named(raw: Path) -> None:
    (raw / "train" / "images" / "0001.JPG").touch()
    line = refused(with_train(raw.parent, image="train/images/{id}.*"), raw)
    assert line == (
        f"{raw}/train/images/0001.png: id 0001 is {raw}/train/images/0001.JPG already; rename one, "
        "so that every id of train/images/{id}.* is one file"
    )


def test_several_missing_masks_are_counted(raw: Path) -> None:
    for number in (1, 3):
        (raw / "train" / "labels" / f"000{number}.png").unlink()
    line = refused(tiny.write_manifest(raw.parent), raw)
    assert line.startswith(
        f"{raw}/train/labels/0001.png: the mask of image 0001 is missing (and 1 more), split train"
    )


def test_split_without_a_size_takes_what_is_there(raw: Path) -> None:
    content = tiny.describe()
    del content["splits"]["train"]["size"]
    assert len(find_samples(tiny.write_manifest(raw.parent, content), raw)["train"]) == 4
    for path in (raw / "train" / "images").iterdir():
        path.unlink()
    line = refused(tiny.write_manifest(raw.parent, content), raw)
    assert line.startswith(f"{raw}/train/images/{{id}}.png: split train is empty; mend splits.tr")


def test_one_id_for_two_images_is_named(raw: Path) -> None:
    manifest = tiny.write_manifest(raw.parent, tiny.describe(sample_id="{id}"))
    line = refused(manifest, raw)
    assert line.startswith(f"{raw}/val/images/0000.png: id 0000 is another file in split train")
    assert re.search(r"set sample_id: '\{split\}_\{id\}' in .*tiny\.yaml$", line)


def test_image_of_an_unknown_format_is_named(raw: Path) -> None:
    path = raw / "train" / "images" / "0000.png"
    path.rename(path.with_suffix(".gif"))
    line = refused(with_train(raw.parent, image="train/images/{id}.gif", size=1), raw)
    assert "0000.gif: images must be of .jpg, .jpeg, .png, .bmp, .tif, .tiff, .webp" in line


def test_missing_raw_folder_is_answered_with_the_stage_to_run(tmp_path: Path) -> None:
    line = refused(tiny.write_manifest(tmp_path), tmp_path / "raw")
    assert line == f"{tmp_path}/raw: the raw data is not there; run `dvc repro download`"
