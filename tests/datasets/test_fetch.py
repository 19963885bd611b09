import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny

from pipeline.datasets import fetch as fetching
from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import Manifest, load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.errors import UserError
from pipeline.paths import HOME


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tiny.pack(tiny.write_raw(tmp_path / "source"), tmp_path / "tiny.tar")


def manifest_of(folder: Path, *entries: dict[str, Any]) -> Manifest:
    return tiny.write_manifest(folder, tiny.describe(source={"archives": list(entries)}))


def files(folder: Path) -> set[str]:
    """Everything below a folder but empty folders, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            if self.path != "/broken.tar":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"only this")

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder
        running.shutdown()
        thread.join()


def test_local_archive_is_unpacked_and_not_copied(tmp_path: Path, archive: Path) -> None:
    root = tmp_path / "raw"
    folder = fetch(manifest_of(tmp_path, tiny.entry(archive)), root)
    assert folder == root / "tiny"
    assert files(folder) == files(tmp_path / "source") | {".source.json"}
    assert [path.name for path in root.iterdir()] == ["tiny"]


def test_relative_path_starts_at_the_project(tmp_path: Path, archive: Path) -> None:
    manifest = manifest_of(tmp_path, tiny.entry(archive, "nowhere.tar", "../tiny.tar"))
    (tmp_path / "project").mkdir()
    assert fetch(manifest, tmp_path / "raw", base=tmp_path / "project").is_dir()


def test_what_is_there_and_right_is_kept(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_of(tmp_path, tiny.entry(archive))
    folder = fetch(manifest, tmp_path / "raw")
    (folder / "mine.txt").touch()
    archive.unlink()
    capsys.readouterr()
    fetch(manifest, tmp_path / "raw")
    assert capsys.readouterr().out.count("\n") == 1
    assert (folder / "mine.txt").exists()


def test_another_archive_replaces_the_old_files(tmp_path: Path, archive: Path) -> None:
    folder = fetch(manifest_of(tmp_path, tiny.entry(archive)), tmp_path / "raw")
    (folder / "stale.txt").touch()
    shutil.rmtree(tmp_path / "source" / "val")
    newer = tiny.pack(tmp_path / "source", tmp_path / "newer.tar")
    fetch(manifest_of(tmp_path, tiny.entry(newer)), tmp_path / "raw")
    assert files(folder) == files(tmp_path / "source") | {".source.json"}


def test_licence_and_terms_are_said_before(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"archives": [tiny.entry(archive)]}
    content = tiny.describe(source=source, terms="research only")
    fetch(tiny.write_manifest(tmp_path, content), tmp_path / "raw")
    said = capsys.readouterr().out
    assert "licence: CC0" in said
    assert "research only" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sha256": "1" * 64}, "tiny.tar has sha256 "),
        ({"size": 5}, "bytes, 5 are expected"),
    ],
)
def test_wrong_archive_leaves_nothing(
    tmp_path: Path, archive: Path, change: dict[str, Any], expected: str
) -> None:
    manifest = manifest_of(tmp_path, tiny.entry(archive, **change))
    with pytest.raises(UserError, match=expected) as caught:
        fetch(manifest, tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "raw").iterdir()) == []


def test_missing_archive_names_every_place_and_the_remedy(tmp_path: Path, archive: Path) -> None:
    missing = tiny.entry(archive, "a/tiny.tar", "b/tiny.tar")
    content = tiny.describe(source={"archives": [missing]}, homepage="https://tiny.org")
    with pytest.raises(UserError) as caught:
        fetch(tiny.write_manifest(tmp_path, content), tmp_path / "raw", base=tmp_path)
    message = str(caught.value)
    assert f"{tmp_path}/a/tiny.tar is not there; {tmp_path}/b/tiny.tar is not there" in message
    assert "https://tiny.org" in message
    assert "source.archives.urls" in message


def test_download_is_kept_once(tmp_path: Path, archive: Path, server: tuple[str, Path]) -> None:
    url, served = server
    shutil.move(archive, served)
    manifest = manifest_of(tmp_path, tiny.entry(served / "tiny.tar", f"{url}/tiny.tar"))
    root = tmp_path / "raw"
    folder = fetch(manifest, root)
    assert files(root / ".downloads") == {"tiny.tar"}
    (served / "tiny.tar").unlink()
    shutil.rmtree(folder)
    assert (fetch(manifest, root) / "train").is_dir()


def test_next_place_is_tried(tmp_path: Path, archive: Path, server: tuple[str, Path]) -> None:
    url, served = server
    shutil.copy(archive, served / "good.tar")
    (served / "changed.tar").write_bytes(b"x" * archive.stat().st_size)
    names = ("missing", "broken", "changed", "good")
    urls = [f"{url}/{name}.tar" for name in names]
    assert fetch(manifest_of(tmp_path, tiny.entry(archive, *urls)), tmp_path / "raw").is_dir()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.tar", "HTTP Error 404"),
        ("broken.tar", "ended after 9 of"),
        ("changed.tar", "has sha256"),
        ("long.tar", "sends more than"),
    ],
)
def test_wrong_download_leaves_nothing(
    tmp_path: Path, archive: Path, server: tuple[str, Path], name: str, expected: str
) -> None:
    url, served = server
    size = archive.stat().st_size
    (served / "changed.tar").write_bytes(b"x" * size)
    (served / "long.tar").write_bytes(b"x" * (size + 1))
    manifest = manifest_of(tmp_path, tiny.entry(archive, f"{url}/{name}"))
    with pytest.raises(UserError, match=expected) as caught:
        fetch(manifest, tmp_path / "raw")
    assert f"{url}/{name}" in str(caught.value)
    assert files(tmp_path / "raw") == set()


def test_server_that_is_away_is_named(tmp_path: Path, archive: Path) -> None:
    manifest = manifest_of(tmp_path, tiny.entry(archive, "http://127.0.0.1:9/tiny.tar"))
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/tiny\.tar: .*refused"):
        fetch(manifest, tmp_path / "raw")


def test_archive_that_does_not_fit_is_refused_before_a_byte(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"tiny needs .*, free are 1 byte; make room"):
        fetch(manifest_of(tmp_path, tiny.entry(archive)), tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_broken_off_unpacking_leaves_nothing(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(_: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "unpack", break_off)
    with pytest.raises(KeyboardInterrupt):
        fetch(manifest_of(tmp_path, tiny.entry(archive)), tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_generated_set_is_made_once_and_anew_for_another_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tiny.describe(source={"generator": "shapes", "seed": 0, "side": 32})
    folder = fetch(tiny.write_manifest(tmp_path, content), tmp_path / "raw")
    assert len(list((folder / "train" / "images").iterdir())) == tiny.SIZES["train"]
    first = (folder / "train" / "images" / "0000.bmp").read_bytes()
    capsys.readouterr()
    fetch(tiny.write_manifest(tmp_path, content), tmp_path / "raw")
    assert "kept" in capsys.readouterr().out
    content["source"]["seed"] = 1
    fetch(tiny.write_manifest(tmp_path, content), tmp_path / "raw")
    assert (folder / "train" / "images" / "0000.bmp").read_bytes() != first


FULL_DISK = """
import sys
from pathlib import Path
from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.entry import run
manifest, disk, raw = load_manifest("tiny", Path(sys.argv[2])), Path(sys.argv[3]), sys.argv[4]
run({
    "fetch": lambda: fetch(manifest, disk),
    "prepare": lambda: prepare(manifest, Path(raw), disk / "tiny", workers=2),
}[sys.argv[1]])
"""


def on_small_disk(what: str, manifests: Path, raw: Path) -> list[str]:
    """Run on a file system of 1 MB; the lines of stderr, then what is left on it."""
    disk = manifests / "disk"
    disk.mkdir()
    python = [sys.executable, "-c", FULL_DISK, what, str(manifests), str(disk), str(raw)]
    script = 'mount -t tmpfs -o size=1m tmpfs "$0" && "$@"; echo "code $?" >&2; ls -A "$0" >&2'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(disk), *python],
        capture_output=True,
        text=True,
        cwd=HOME,
    )
    return done.stderr.splitlines()


def can_mount(tmp_path: Path) -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare"):
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("what", ["fetch", "prepare"])
def test_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    if not can_mount(tmp_path):
        pytest.skip("a small disk needs the right to mount one")
    sizes = {"train": 8, "val": 1}
    raw = tiny.write_raw(tmp_path / "source", sizes)
    content = tiny.describe()
    for split, size in sizes.items():
        content["splits"][split]["size"] = size
        for path in (raw / split / "images").iterdir():
            # Zeros at the end of a PNG are no harm, fill a disk, and vanish in the archive.
            path.write_bytes(path.read_bytes() + bytes(200_000))
    packed = shutil.make_archive(str(tmp_path / "tiny"), "gztar", raw)
    content["source"] = {"archives": [tiny.entry(Path(packed))]}
    tiny.write_manifest(tmp_path, content)
    line, *rest = on_small_disk(what, tmp_path, raw)
    assert line.startswith("error: ")
    assert "the disk is full; make room" in line
    assert rest == ["code 1"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("voc2012-subset", {"train": 437, "trainaug": 537, "val": 297}),
        ("camvid-trainval", {"train": 367, "val": 101}),
    ],
)
def test_real_data_set_is_fetched_and_prepared_whole(
    tmp_path: Path, name: str, sizes: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = load_manifest(name)
    assert isinstance(manifest.source, tuple)
    place = HOME / manifest.source[0].urls[0]
    if not place.exists():
        pytest.skip(f"{place} is not there")
    data = prepare(manifest, fetch(manifest, tmp_path / "raw"), tmp_path / "prepared")
    assert {split: len(data.ids(split)) for split in data.splits} == sizes
    unseen = "aeroplane, bicycle, bus, motorbike, train" in capsys.readouterr().out
    assert unseen == (name == "voc2012-subset")
