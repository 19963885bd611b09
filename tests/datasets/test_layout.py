import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from pipeline.datasets.layout import Sample, find_samples
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
    assert splits["val"][1] == Sample(
        "val_0001", raw / "val/images/0001.png", raw / "val/labels/0001.png"
    )


def test_list_decides_what_is_taken_and_in_which_order(raw: Path) -> None:
    splits = find_samples(with_list(raw, "0002\r\n0000 1\n\n", 2), raw)
    assert [sample.id for sample in splits["train"]] == ["train_0002", "train_0000"]


def test_first_mask_that_exists_is_taken(raw: Path) -> None:
    (raw / "better").mkdir()
    (raw / "better" / "0001.png").touch()
    labels = ["better/{id}.png", "train/labels/{id}.png"]
    splits = find_samples(with_train(raw.parent, labels=labels), raw)
    names = [sample.label.relative_to(raw).parts[0] for sample in splits["train"]]
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
    assert line.startswith(f"{raw}/nowhere.txt: the list of split train is missing; to fetch all")


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


def test_list_of_paths_is_refused(raw: Path) -> None:
    line = refused(with_list(raw, "train/images/0000.png\n", 1), raw)
    assert "train.txt: line 1: train/images/0000.png must be an id, without a folder" in line


def test_one_id_for_two_images_is_named(raw: Path) -> None:
    manifest = tiny.write_manifest(raw.parent, tiny.describe(sample_id="{id}"))
    line = refused(manifest, raw)
    assert line.startswith(f"{raw}/val/images/0000.png: id 0000 is another file in split train")
    assert re.search(r"set sample_id: '\{split\}_\{id\}' in .*tiny\.yaml$", line)


def test_image_of_an_unknown_format_is_named(raw: Path) -> None:
    path = raw / "train" / "images" / "0000.png"
    path.rename(path.with_suffix(".tiff"))
    line = refused(with_train(raw.parent, image="train/images/{id}.tiff", size=1), raw)
    assert "0000.tiff: images must be of .jpg, .jpeg, .png, .bmp" in line


def test_missing_raw_folder_is_answered_with_the_stage_to_run(tmp_path: Path) -> None:
    line = refused(tiny.write_manifest(tmp_path), tmp_path / "raw")
    assert line == f"{tmp_path}/raw: the raw data is not there; run `dvc repro download`"
