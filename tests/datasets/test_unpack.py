import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.datasets.unpack import unpack
from pipeline.errors import UserError


def tar_of(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_of_any_compression_is_unpacked(tmp_path: Path, mode: str) -> None:
    archive = tar_of(tmp_path / "a.tar", member("a/b.txt"), mode=mode)
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"xxx"


def test_zip_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a/b.txt", "xxx")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"xxx"


def test_links_inside_a_tar_are_kept(tmp_path: Path) -> None:
    link = member("b.txt", tarfile.SYMTYPE, "a.txt")
    unpack(tar_of(tmp_path / "a.tar", member("a.txt"), link), tmp_path / "out")
    assert (tmp_path / "out" / "b.txt").read_bytes() == b"xxx"


@pytest.mark.parametrize(
    "bad",
    [
        [member("../evil.txt")],
        [member("a/../../evil.txt")],
        [member("/tmp/evil.txt")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "../..")],
        [member("link", tarfile.LNKTYPE, "../outside.txt")],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
    ids=["up", "up again", "absolute", "link to a file", "link up", "hard link", "device"],
)
def test_tar_that_climbs_out_is_refused(tmp_path: Path, bad: list[tarfile.TarInfo]) -> None:
    (tmp_path / "outside.txt").touch()
    archive = tar_of(tmp_path / "a.tar", *bad)
    with pytest.raises(UserError, match=r"a\.tar: refused, a member would leave the folder") as got:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(got.value)
    assert not (tmp_path / "evil.txt").exists()
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_zip_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(name, "xxx")
    with pytest.raises(UserError, match=r"a\.zip: refused, member .* would leave the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="member link is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_what_is_no_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive at all")
    with pytest.raises(UserError, match=f"{name}: cannot be unpacked .*; get it again") as caught:
        unpack(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_cut_archive_is_named(tmp_path: Path, mode: str) -> None:
    large = member("large.bin")
    large.size = 10_000
    archive = tar_of(tmp_path / "a.tar", large, mode=mode)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 3])
    with pytest.raises(UserError, match=r"a\.tar: cannot be unpacked .*; get it again"):
        unpack(archive, tmp_path / "out")
