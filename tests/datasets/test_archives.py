import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from wild_server import WildServer, running

from pipeline.datasets import http
from pipeline.datasets.archives import Places, Verified, obtain
from pipeline.datasets.manifest import Archive, Checksum
from pipeline.errors import UserError

CONTENT = np.random.default_rng(0).bytes(100_000)
OTHER = np.random.default_rng(1).bytes(100_000)
CUT = 40_000


@pytest.fixture
def server() -> Iterator[WildServer]:
    server = WildServer()
    with running(server):
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSE", 0.01)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "raw").mkdir()
    return Places(tmp_path / "downloads", tmp_path / "project")


def archive(*urls: str, content: bytes = CONTENT, kind: str = "sha256", **how: Any) -> Archive:
    """An entry of a manifest, of known size and checksum unless said otherwise."""
    values: dict[str, Any] = {
        "file": "a.tar",
        "checksum": Checksum(kind, hashlib.new(kind, content).hexdigest()),
        "size": len(content),
    }
    return Archive(urls=urls, **(values | how))


def bring(places: Places, *archives: Archive) -> list[Verified]:
    root = places.downloads.parent / "raw"
    return obtain(tiny.write_manifest(root.parent / "manifests"), archives, places, root)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_download_is_kept_and_not_fetched_again(server: WildServer, places: Places) -> None:
    wanted = archive(server.serve("/a.tar", CONTENT))
    for _ in range(2):
        (found,) = bring(places, wanted)
        assert found == Verified(wanted, places.downloads / "a.tar", wanted.checksum)  # type: ignore[arg-type]
        assert contents(places.downloads) == {"a.tar": CONTENT}
    assert len(server.asked) == 1


def test_path_is_taken_where_it_lies_and_before_any_address(
    server: WildServer, places: Places
) -> None:
    places.base.mkdir()
    (places.base / "mine.tar").write_bytes(CONTENT)
    (found,) = bring(places, archive(server.serve("/a.tar", CONTENT), "mine.tar"))
    assert found.path == places.base / "mine.tar"
    assert server.asked == []
    assert not places.downloads.exists()


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_each_kind_of_checksum_is_checked(server: WildServer, places: Places, kind: str) -> None:
    wanted = archive(server.serve("/a.tar", CONTENT), kind=kind, size=None)
    assert bring(places, wanted)[0].checksum == wanted.checksum
    shutil.rmtree(places.downloads)
    server.serve("/a.tar", OTHER)
    with pytest.raises(UserError, match=rf"/a\.tar has {kind} .* is expected"):
        bring(places, wanted)
    assert contents(places.downloads) == {}


def test_next_mirror_is_tried_and_the_bad_one_named(
    server: WildServer, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = [
        f"{server.url}/missing.tar",
        server.serve("/changed.tar", OTHER),
        server.serve("/long.tar", CONTENT + b"x"),
        server.serve("/page.tar", b"<html>", kind="text/html"),
        server.serve("/good.tar", CONTENT),
    ]
    assert bring(places, archive(*urls))
    assert contents(places.downloads) == {"a.tar": CONTENT}
    said = capsys.readouterr().out
    assert f"{urls[0]}: answers 404 Not Found; trying {urls[1]}" in said
    assert f"{urls[1]} has sha256" in said
    assert f"{urls[2]}: has 100001 bytes, 100000 are expected" in said


def test_mirror_goes_on_where_another_was_left(server: WildServer, places: Places) -> None:
    first = server.serve("/first.tar", CONTENT, ranges=False, cuts=[CUT] * 9)
    second = server.serve("/second.tar", CONTENT)
    assert bring(places, archive(first, second))
    assert server.asked[-1].range == f"bytes={CUT}-"
    assert server.asked[-1].sent == len(CONTENT) - CUT


def test_wrong_bytes_once_are_removed_and_the_next_run_gets_the_right_ones(
    server: WildServer, places: Places
) -> None:
    wanted = archive(server.serve("/a.tar", CONTENT, wrong=[OTHER]))
    with pytest.raises(UserError, match=r"/a\.tar has sha256"):
        bring(places, wanted)
    assert contents(places.downloads) == {}
    bring(places, wanted)
    assert contents(places.downloads) == {"a.tar": CONTENT}


def test_part_with_wrong_bytes_is_not_held_against_the_server(
    server: WildServer, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.downloads.mkdir()
    (places.downloads / "a.tar.partial").write_bytes(OTHER[:CUT])
    bring(places, archive(server.serve("/a.tar", CONTENT)))
    assert contents(places.downloads) == {"a.tar": CONTENT}
    assert [each.range for each in server.asked] == [f"bytes={CUT}-", None]
    assert "the part that was there is not right" in capsys.readouterr().out


def test_all_that_failed_is_said_in_one_line_with_the_remedy(
    server: WildServer, places: Places
) -> None:
    urls = [f"{server.url}/gone.tar", "nowhere.tar"]
    good = archive(server.serve("/good.tar", CONTENT), file="good.tar")
    with pytest.raises(UserError) as caught:
        bring(places, archive(*urls), archive(urls[0], file="b.tar"), good)
    message = str(caught.value)
    assert "\n" not in message
    gone = f"{urls[0]}: answers 404 Not Found"
    assert f"a.tar: {places.base}/nowhere.tar is not there; {gone}; b.tar: {gone}; " in message
    assert str(places.downloads) in message
    assert "source.archives.urls in " in message
    # The others came all the same.
    assert contents(places.downloads) == {"good.tar": CONTENT}


def test_several_come_at_once(server: WildServer, places: Places) -> None:
    wanted = [
        archive(server.serve(f"/{name}.tar", CONTENT, pause=0.03), file=f"{name}.tar")
        for name in "abcdef"
    ]
    found = bring(places, *wanted)
    assert [each.archive.file for each in found] == [f"{name}.tar" for name in "abcdef"]
    assert contents(places.downloads) == {f"{name}.tar": CONTENT for name in "abcdef"}
    assert 2 <= server.most_at_once <= 4


def test_second_run_waits_for_the_first_and_fetches_nothing(
    server: WildServer, places: Places
) -> None:
    wanted = archive(server.serve("/a.tar", CONTENT, pause=0.05))
    other = threading.Thread(target=bring, args=(places, wanted))
    other.start()
    assert bring(places, wanted)[0].path.read_bytes() == CONTENT
    other.join()
    assert len(server.asked) == 1
    assert contents(places.downloads) == {"a.tar": CONTENT}


def test_wrong_file_among_the_downloads_is_replaced_once_the_right_one_is_there(
    server: WildServer, places: Places
) -> None:
    places.downloads.mkdir()
    (places.downloads / "a.tar").write_bytes(b"mine")
    wanted = archive(server.serve("/a.tar", CONTENT, statuses=[404]))
    with pytest.raises(UserError, match=r"a\.tar has 4 bytes, 100000 are expected; http.* 404"):
        bring(places, wanted)
    assert contents(places.downloads) == {"a.tar": b"mine"}
    bring(places, wanted)
    assert contents(places.downloads) == {"a.tar": CONTENT}


def test_all_files_that_the_user_has_to_bring_are_named_before_anything_is_fetched(
    server: WildServer, places: Places
) -> None:
    cityscapes = "register at https://www.cityscapes-dataset.com and download it"
    with pytest.raises(UserError) as caught:
        bring(
            places,
            archive(file="labels.zip", get=cityscapes),
            archive(file="images.zip", get=cityscapes),
            archive(file="list.txt", get="ask its authors", checksum=None, size=None),
            archive(server.serve("/a.tar", CONTENT)),
        )
    assert str(caught.value) == (
        f"missing labels.zip, images.zip: {cityscapes}; list.txt: ask its authors; "
        f"put this into {places.downloads} and run the same command again"
    )
    assert server.asked == []
    assert places.downloads.is_dir()


def test_brought_file_is_checked_and_stays(places: Places) -> None:
    places.downloads.mkdir()
    (places.downloads / "a.tar").write_bytes(OTHER)
    with pytest.raises(UserError, match=r"downloads/a\.tar has sha256"):
        bring(places, archive(get="ask"))
    (places.downloads / "a.tar").write_bytes(CONTENT)
    assert bring(places, archive(get="ask"))[0].path == places.downloads / "a.tar"


def test_brought_file_without_a_checksum_has_its_own_said(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.downloads.mkdir()
    (places.downloads / "a.tar").write_bytes(CONTENT)
    (found,) = bring(places, archive(get="ask", checksum=None, size=None))
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert found.checksum == Checksum("sha256", digest)
    assert f"{places.downloads}/a.tar: sha256 {digest}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "free", "fits"),
    # What is to come, and as much again unpacked.
    [(0, 199_999, False), (0, 200_000, True), (CUT, 159_999, False), (CUT, 160_000, True)],
)
def test_room_is_asked_for_what_is_still_to_come(
    server: WildServer,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    part: int,
    free: int,
    fits: bool,
) -> None:
    if part:
        places.downloads.mkdir()
        (places.downloads / "a.tar.partial").write_bytes(CONTENT[:part])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    wanted = archive(server.serve("/a.tar", CONTENT))
    if fits:
        bring(places, wanted)
        return
    with pytest.raises(UserError, match=r"tiny needs .* kB, free are .* kB; make room"):
        bring(places, wanted)
    assert server.asked == []
