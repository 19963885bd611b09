import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny
from wild_server import WildServer, running

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


def fetch_into(home: Path, manifest: Manifest) -> Path:
    """Fetch to <home>/raw, with <home>/downloads, paths starting at `home`."""
    return fetch(manifest, home / "raw", base=home, downloads=home / "downloads")


def files(folder: Path) -> set[str]:
    """Everything below a folder but empty folders, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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
    folder = fetch_into(tmp_path, manifest)
    (folder / "mine.txt").touch()
    archive.unlink()
    capsys.readouterr()
    fetch_into(tmp_path, manifest)
    assert capsys.readouterr().out.count("\n") == 1
    assert (folder / "mine.txt").exists()


def test_another_archive_replaces_the_old_files(tmp_path: Path, archive: Path) -> None:
    folder = fetch_into(tmp_path, manifest_of(tmp_path, tiny.entry(archive)))
    (folder / "stale.txt").touch()
    shutil.rmtree(tmp_path / "source" / "val")
    newer = tiny.pack(tmp_path / "source", tmp_path / "newer.tar")
    fetch_into(tmp_path, manifest_of(tmp_path, tiny.entry(newer)))
    assert files(folder) == files(tmp_path / "source") | {".source.json"}


def test_licence_and_terms_are_said_before(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"archives": [tiny.entry(archive)]}
    content = tiny.describe(source=source, terms="research only")
    fetch_into(tmp_path, tiny.write_manifest(tmp_path, content))
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
        fetch_into(tmp_path, manifest)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "raw").iterdir()) == []


def test_missing_archive_names_every_place_and_the_remedy(tmp_path: Path, archive: Path) -> None:
    missing = tiny.entry(archive, "a/tiny.tar", "b/tiny.tar")
    content = tiny.describe(source={"archives": [missing]}, homepage="https://tiny.org")
    with pytest.raises(UserError) as caught:
        fetch_into(tmp_path, tiny.write_manifest(tmp_path, content))
    message = str(caught.value)
    assert f"{tmp_path}/a/tiny.tar is not there; {tmp_path}/b/tiny.tar is not there" in message
    assert "https://tiny.org" in message
    assert "source.archives.urls" in message


def test_several_downloads_are_unpacked_in_the_manifests_order(
    tmp_path: Path, archive: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "README").write_text(folder.name)
    (second / "extra.txt").touch()
    server = WildServer()
    with running(server):
        entries = [
            # The one that comes last is not the one that is unpacked last.
            tiny.entry(path, server.serve(f"/{path.name}", path.read_bytes(), pause=pause))
            for path, pause in (
                (archive, 0.01),
                (tiny.pack(first, tmp_path / "first.tar"), 0.03),
                (tiny.pack(second, tmp_path / "second.tar"), 0.0),
            )
        ]
        folder = fetch_into(tmp_path, manifest_of(tmp_path, *entries))
    assert (folder / "README").read_text() == "second"
    assert files(folder) == files(tmp_path / "source") | {".source.json", "README", "extra.txt"}
    assert files(tmp_path / "downloads") == {"tiny.tar", "first.tar", "second.tar"}


def test_plain_file_is_taken_as_it_is(tmp_path: Path, archive: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text("{}")
    entries = tiny.entry(archive), tiny.entry(labels, unpack=False)
    folder = fetch_into(tmp_path, manifest_of(tmp_path, *entries))
    assert (folder / "labels.json").samefile(labels)


def test_file_that_is_to_be_unpacked_after_all_is(tmp_path: Path, archive: Path) -> None:
    folder = fetch_into(tmp_path, manifest_of(tmp_path, tiny.entry(archive, unpack=False)))
    assert files(folder) == {"tiny.tar", ".source.json"}
    fetch_into(tmp_path, manifest_of(tmp_path, tiny.entry(archive)))
    assert files(folder) == files(tmp_path / "source") | {".source.json"}


def brought(tmp_path: Path, content: Path) -> Manifest:
    """A manifest of an archive that the user brings, of which nothing is known."""
    (tmp_path / "downloads").mkdir(exist_ok=True)
    shutil.copy(content, tmp_path / "downloads" / "tiny.tar")
    return manifest_of(tmp_path, {"file": "tiny.tar", "get": "ask its authors"})


def test_brought_archive_that_changes_is_noticed(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = brought(tmp_path, archive)
    folder = fetch_into(tmp_path, manifest)
    fetch_into(tmp_path, manifest)
    assert "already there and right, kept" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "source" / "val")
    brought(tmp_path, tiny.pack(tmp_path / "source", tmp_path / "newer.tar"))
    fetch_into(tmp_path, manifest)
    assert "downloads/tiny.tar: has changed, its sha256 was " in capsys.readouterr().out
    assert files(folder) == files(tmp_path / "source") | {".source.json"}


def test_brought_archive_may_be_removed_once_it_is_unpacked(tmp_path: Path, archive: Path) -> None:
    manifest = brought(tmp_path, archive)
    folder = fetch_into(tmp_path, manifest)
    (folder / "mine.txt").touch()
    (tmp_path / "downloads" / "tiny.tar").unlink()
    fetch_into(tmp_path, manifest)
    assert (folder / "mine.txt").exists()


def test_content_of_a_zip_that_does_not_fit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("instances.json", "x" * 100_000)
    server = WildServer()
    usage = shutil._ntuple_diskusage(0, 0, 50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with running(server):
        url = server.serve("/a.zip", (tmp_path / "a.zip").read_bytes())
        manifest = manifest_of(tmp_path, tiny.entry(tmp_path / "a.zip", url))
        with pytest.raises(UserError, match=r"tiny, unpacked, needs 100\.0 kB, free are 50\.0 kB"):
            fetch_into(tmp_path, manifest)
    assert list((tmp_path / "raw").iterdir()) == []
    assert files(tmp_path / "downloads") == {"a.zip"}


def test_own_folder_is_linked_and_again_only_when_it_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tiny.write_raw(tmp_path / "data" / "own" / "tiny")
    manifest = tiny.write_manifest(tmp_path, tiny.describe(source={"folder": "data/own/tiny"}))
    folder = fetch_into(tmp_path, manifest)
    assert files(folder) == files(own) | {".source.json"}
    image = "train/images/0000.png"
    assert (folder / image).samefile(own / image)
    first = (folder / "val").stat().st_ino
    capsys.readouterr()
    fetch_into(tmp_path, manifest)
    assert "kept" in capsys.readouterr().out
    assert (folder / "val").stat().st_ino == first
    (own / image).unlink()
    fetch_into(tmp_path, manifest)
    assert files(folder) == files(own) | {".source.json"}


def test_what_the_folder_says_of_its_source_is_the_same_on_every_machine(tmp_path: Path) -> None:
    stamps = []
    for machine in ("here", "there"):
        home = tmp_path / machine
        tiny.write_raw(home / "own")
        manifest = tiny.write_manifest(home, tiny.describe(source={"folder": "own"}))
        stamps.append((fetch_into(home, manifest) / ".source.json").read_bytes())
    assert stamps[0] == stamps[1]


def test_missing_own_folder_ends_in_one_line(tmp_path: Path) -> None:
    manifest = tiny.write_manifest(tmp_path, tiny.describe(source={"folder": "data/own/tiny"}))
    with pytest.raises(UserError) as caught:
        fetch_into(tmp_path, manifest)
    assert str(caught.value) == (
        f"{tmp_path}/data/own/tiny: the folder is not there; put or link your files there "
        f"(source.folder in {manifest.path})"
    )


def test_archive_that_does_not_fit_is_refused_before_a_byte(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"tiny needs .*, free are 1 byte; make room"):
        fetch_into(tmp_path, manifest_of(tmp_path, tiny.entry(archive)))
    assert list((tmp_path / "raw").iterdir()) == []


def test_broken_off_unpacking_leaves_nothing(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(_: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "unpack", break_off)
    with pytest.raises(KeyboardInterrupt):
        fetch_into(tmp_path, manifest_of(tmp_path, tiny.entry(archive)))
    assert list((tmp_path / "raw").iterdir()) == []


def test_generated_set_is_made_once_and_anew_for_another_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tiny.describe(source={"generator": "shapes", "seed": 0, "side": 32})
    folder = fetch_into(tmp_path, tiny.write_manifest(tmp_path, content))
    assert len(list((folder / "train" / "images").iterdir())) == tiny.SIZES["train"]
    first = (folder / "train" / "images" / "0000.bmp").read_bytes()
    capsys.readouterr()
    fetch_into(tmp_path, tiny.write_manifest(tmp_path, content))
    assert "kept" in capsys.readouterr().out
    content["source"]["seed"] = 1
    fetch_into(tmp_path, tiny.write_manifest(tmp_path, content))
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
