import os
from pathlib import Path

import pytest

from pipeline.datasets.links import can_link, link_or_copy


def no_links(*_: object, **__: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_file_gets_a_second_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("old")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")


def test_symbolic_link_is_not_linked_but_its_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "link").symlink_to("a")
    link_or_copy(tmp_path / "link", tmp_path / "b")
    assert not (tmp_path / "b").is_symlink()
    assert (tmp_path / "b").samefile(tmp_path / "a")


def test_where_no_link_is_possible_it_is_copied_with_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    os.utime(tmp_path / "a", ns=(10**18, 10**18))
    assert can_link(tmp_path / "a", tmp_path)
    monkeypatch.setattr(os, "link", no_links)
    assert not can_link(tmp_path / "a", tmp_path)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").samefile(tmp_path / "a")
    assert (tmp_path / "b").read_text() == "a"
    assert (tmp_path / "b").stat().st_mtime_ns == 10**18
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
