from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.templates import Files
from pipeline.errors import UserError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize(
    ("template", "ids"),
    [
        ("images/{id}.jpg", ["a", "b.c"]),
        ("images/{id}.*", ["B", "a", "b.c", "d"]),
        ("images/b{id}.jpg", [".c"]),
        ("*/{id}.jpg", ["a", "b.c", "e"]),
        ("im*es/{id}.jpg", ["a", "b.c"]),
        ("{id}/image.png", ["s1", "s2"]),
        ("{id}/{id}_mask.png", ["s1"]),
        ("nowhere/{id}.png", []),
        ("images/{id}.jpg/x", []),
    ],
)
def test_files_of_a_template_are_found_by_id(tmp_path: Path, template: str, ids: list[str]) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.c.jpg", "images/B.PNG", "images/d.webp")
    touch(tmp_path, "images/notes.txt", "images/._a.jpg", "other/e.jpg", "deep/er/f.jpg")
    touch(tmp_path, "s1/image.png", "s2/image.png", "s1/s1_mask.png", "s2/s1_mask.png")
    files = Files(tmp_path, template)
    assert list(files.all) == ids
    for id in ids:
        assert files.find(id) == files.all[id]
    assert files.find("nobody") is None


def test_signs_of_regular_expressions_mean_themselves(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]+/x(1).jpg", "a1/x1.jpg")
    assert list(Files(tmp_path, "a[1]+/{id}.jpg").all) == ["x(1)"]


def test_two_files_of_one_id_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "oslo/a.jpg", "rome/a.jpg")
    with pytest.raises(UserError) as caught:
        _ = Files(tmp_path, "*/{id}.jpg").all
    assert str(caught.value).startswith(f"{tmp_path}/rome/a.jpg: id a is {tmp_path}/oslo/a.jpg al")


def test_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "images").symlink_to(tmp_path / "elsewhere")
    assert list(Files(tmp_path / "raw", "images/{id}.jpg").all) == ["a"]
    assert list(Files(tmp_path / "raw", "*/{id}.jpg").all) == ["a"]


@given(id=st.text("ab_-.", min_size=1, max_size=8).filter(lambda id: not id.startswith(".")))
def test_id_comes_back_from_a_path(id: str) -> None:
    files = Files(Path("raw"), "left/*/{id}_left.png")
    assert files.id_of(f"/else/where/{id}_left.png") == id
    assert files.id_of(f"{id}.png") is None
