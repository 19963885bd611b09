import os
import shutil
from pathlib import Path

import pytest

from pipeline.datasets.own_folder import link_files, list_files, list_own_files
from pipeline.errors import UserError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a file in it and one below, hidden ones, and a link to a folder elsewhere."""
    folder = tmp_path / "own"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"aaa")
    (folder / "list.txt").write_bytes(b"a")
    (folder / ".DS_Store").touch()
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"mm")
    (folder / "masks").symlink_to(tmp_path / "elsewhere")
    return folder


def test_listing_has_all_but_hidden_files_and_follows_links(own: Path) -> None:
    listing = list_files(own)
    assert {name: size for name, (size, _) in listing.items()} == {
        "images/a.png": 3,
        "list.txt": 1,
        "masks/a.png": 2,
    }


def test_listing_tells_a_changed_file_by_its_time(own: Path) -> None:
    before = list_files(own)
    os.utime(own / "list.txt", ns=(1, 1))
    assert {name for name, entry in list_files(own).items() if before[name] != entry} == {
        "list.txt"
    }


@pytest.mark.parametrize("links", [True, False])
def test_linked_or_copied_folder_has_the_same_listing(
    own: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "raw").mkdir()
    link_files(own, tmp_path / "raw")
    assert list_files(tmp_path / "raw") == list_files(own)
    assert (tmp_path / "raw/masks/a.png").samefile(own / "masks/a.png") == links
    assert not (tmp_path / "raw/masks").is_symlink()
    assert not (tmp_path / "raw/.DS_Store").exists()


def test_copies_that_do_not_fit_are_refused_before_the_first(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 5))
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"a copy of .*own needs 6 bytes, free are 5 bytes"):
        link_files(own, tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_link_back_to_a_folder_above_is_refused(own: Path) -> None:
    (own / "images" / "loop").symlink_to(own)
    with pytest.raises(UserError, match="images/loop: is a link to a folder above itself"):
        list_files(own)


def test_two_links_to_one_folder_are_two_folders(own: Path) -> None:
    (own / "again").symlink_to(own / "images")
    assert "again/a.png" in list_files(own)


@pytest.mark.parametrize("kind", ["dangling", "pipe"])
def test_what_is_no_file_is_named(own: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(own / "odd")
    else:
        (own / "odd").symlink_to(own / "nothing")
    with pytest.raises(UserError, match="own/odd: is no file, or a link that leads nowhere"):
        list_files(own)


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("missing", "missing: the folder is not there; put or link your files there"),
        ("dangling", "dangling: the folder is not there"),
        ("own/list.txt", "list.txt: the folder is not there"),
        ("empty", "empty: the folder is empty; put your files there"),
        ("raw/mine", "raw/mine: must be neither in .*raw, which is filled from it, nor around it"),
        ("linked", "linked: must be neither in .*raw"),
        (".", "must be neither in .*raw"),
    ],
)
def test_folder_that_can_be_no_data_set_is_refused_in_one_line(
    own: Path, tmp_path: Path, folder: str, complaint: str
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    (tmp_path / "raw" / "mine").mkdir(parents=True)
    (tmp_path / "raw" / "mine" / "a.png").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "raw" / "mine")
    with pytest.raises(UserError, match=complaint) as caught:
        list_own_files(tmp_path / folder, tmp_path / "raw", "source.folder in mine.yaml")
    assert "source.folder in mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["images", "list.txt"])
def test_what_may_not_be_read_is_named(own: Path, tmp_path: Path, name: str) -> None:
    (own / name).chmod(0)
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=f"own/{name}: may not be read; change its permissions"):
        link_files(own, tmp_path / "raw")
    (own / name).chmod(0o755)
