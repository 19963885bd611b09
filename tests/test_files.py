from pathlib import Path

import pytest

from pipeline.files import code_digest, whole_folder, write_json, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_json_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_a_folder_takes_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "set"
    with whole_folder(place) as beside:
        (beside / "old").write_text("")
    with pytest.raises(ZeroDivisionError), whole_folder(place) as beside:
        (beside / "new").write_text("")
        raise ZeroDivisionError
    assert [entry.name for entry in place.iterdir()] == ["old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_the_digest_of_code_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    entries = ("room", "b.py")
    first = code_digest(entries, tmp_path)
    (tmp_path / "room" / "notes.txt").write_text("no code")
    assert code_digest(entries, tmp_path) == first
    (tmp_path / "room" / "a.py").rename(tmp_path / "room" / "c.py")
    renamed = code_digest(entries, tmp_path)
    (tmp_path / "b.py").write_text("3")
    assert len({first, renamed, code_digest(entries, tmp_path)}) == 3
