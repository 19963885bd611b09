import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.unpack import unpack, unpacked_size
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


def test_kind_is_read_from_the_file_not_from_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "download", "w") as zipped:
        zipped.writestr("a/b.txt", "xxx")
    unpack(tmp_path / "download", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"xxx"


def test_zip_with_the_separator_of_windows_is_unpacked_into_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a\\", "")
        zipped.writestr("a\\b.txt", "xxx")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"xxx"


def test_empty_archives_and_folders_are_unpacked(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    unpack(tmp_path / "a.zip", tmp_path / "out")
    unpack(tar_of(tmp_path / "a.tar", member("a/b", tarfile.DIRTYPE)), tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b").is_dir()


def test_second_archive_joins_the_first_and_wins(tmp_path: Path) -> None:
    first = tar_of(tmp_path / "a.tar", member("a/license.txt"), member("a/one.txt"))
    longer = member("a/license.txt")
    longer.size = 5
    unpack(first, tmp_path / "out")
    unpack(tar_of(tmp_path / "b.tar", longer, member("a/two.txt")), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "a").iterdir()) == [
        "license.txt",
        "one.txt",
        "two.txt",
    ]
    assert (tmp_path / "out" / "a" / "license.txt").read_bytes() == b"xxxxx"


def test_file_that_is_replaced_keeps_its_other_name_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.txt").hardlink_to(tmp_path / "mine.txt")
    unpack(tar_of(tmp_path / "a.tar", member("b.txt")), tmp_path / "out")
    assert (tmp_path / "out" / "b.txt").read_bytes() == b"xxx"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_links_inside_a_tar_become_files(tmp_path: Path) -> None:
    members = (
        member("x/before.txt", tarfile.SYMTYPE, "chain.txt"),
        member("x/chain.txt", tarfile.SYMTYPE, "../a/file.txt"),
        member("a/file.txt"),
        member("hard.txt", tarfile.LNKTYPE, "a/file.txt"),
    )
    unpack(tar_of(tmp_path / "a.tar", *members), tmp_path / "out")
    for name in ("x/before.txt", "x/chain.txt", "hard.txt"):
        path = tmp_path / "out" / name
        assert path.read_bytes() == b"xxx"
        assert not path.is_symlink()


@pytest.mark.parametrize(
    "links",
    [
        [member("b", tarfile.SYMTYPE, "missing")],
        [member("b", tarfile.SYMTYPE, "b")],
        [member("b", tarfile.SYMTYPE, "c"), member("c", tarfile.SYMTYPE, "b")],
        [member("a/x.txt"), member("b", tarfile.SYMTYPE, "a")],
        [member("b", tarfile.LNKTYPE, "missing")],
    ],
    ids=["nothing", "itself", "circle", "folder", "hard link to nothing"],
)
def test_link_to_no_file_of_the_archive_is_refused(
    tmp_path: Path, links: list[tarfile.TarInfo]
) -> None:
    with pytest.raises(UserError, match=r"refused, member b is a link to .* no file in it"):
        unpack(tar_of(tmp_path / "a.tar", *links), tmp_path / "out")


@pytest.mark.parametrize(
    "bad",
    [
        [member("../evil.txt")],
        [member("a/../../evil.txt")],
        [member("/tmp/evil.txt")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "../..")],
        [member("link", tarfile.LNKTYPE, "../outside.txt")],
        # What a link in the way would do to a tool that follows it.
        [member("link", tarfile.SYMTYPE, ".."), member("link/evil.txt")],
    ],
    ids=["up", "up again", "absolute", "link to a file", "link up", "hard link", "through a link"],
)
def test_tar_that_climbs_out_is_refused(tmp_path: Path, bad: list[tarfile.TarInfo]) -> None:
    (tmp_path / "outside.txt").touch()
    archive = tar_of(tmp_path / "a.tar", *bad)
    with pytest.raises(
        UserError, match=r"a\.tar: refused, member .* would leave the folder"
    ) as got:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(got.value)
    assert not (tmp_path / "evil.txt").exists()
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_device_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UserError, match="refused, member dev is a device"):
        unpack(tar_of(tmp_path / "a.tar", member("dev", kind)), tmp_path / "out")


def test_link_is_not_written_through(tmp_path: Path) -> None:
    members = member("a/x.txt"), member("link", tarfile.SYMTYPE, "a"), member("link/evil.txt")
    with pytest.raises(UserError, match="refused, member link"):
        unpack(tar_of(tmp_path / "a.tar", *members), tmp_path / "out")
    assert not (tmp_path / "out" / "a" / "evil.txt").exists()


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("x" * 300,)])
def test_name_that_cannot_be_written_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    archive = tar_of(tmp_path / "a.tar", *(member(name) for name in names))
    with pytest.raises(UserError, match=f"refused, member {names[-1]} cannot be written here"):
        unpack(archive, tmp_path / "out")


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
def test_what_is_no_archive_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive at all")
    with pytest.raises(UserError, match=f"{name}: cannot be unpacked, .*`unpack: false`") as caught:
        unpack(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [1 / 3, 2 / 3])
def test_cut_archive_is_named(tmp_path: Path, mode: str, share: float) -> None:
    large = member("large.bin")
    large.size = 100_000
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(large, io.BytesIO(np.random.default_rng(0).bytes(large.size)))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"a\.tar: cannot be unpacked.*get it again") as caught:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_archive_with_a_wrong_byte_is_named(tmp_path: Path, mode: str) -> None:
    large = member("large.bin")
    large.size = 100_000
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(large, io.BytesIO(np.random.default_rng(0).bytes(large.size)))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tar: cannot be unpacked.*get it again"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("what", ["cut between members", "cut in a header", "damaged header"])
def test_tar_that_lacks_members_is_named(tmp_path: Path, mode: str, what: str) -> None:
    archive = tar_of(tmp_path / "a.tar", member("a.txt"), member("b.txt"), member("c.txt"))
    content = bytearray(archive.read_bytes())
    header = 2 * 1024  # a header and a block of content each
    if what == "damaged header":
        content[header + 10] ^= 0xFF
    else:
        del content[header + (100 if what == "cut in a header" else 0) :]
    archive.write_bytes(gzip.compress(content) if mode == "w:gz" else content)
    with pytest.raises(UserError, match=r"cannot be unpacked \(a part is missing or damaged\)"):
        unpack(archive, tmp_path / "out")


def test_zip_with_a_wrong_byte_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a.txt", "x" * 1000)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[500] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip: cannot be unpacked \(Bad CRC"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_zip_knows_what_it_needs_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("instances.json", "x" * 100_000)
    assert (tmp_path / "a.zip").stat().st_size < 1000
    assert unpacked_size(tmp_path / "a.zip") == 100_000
    archive = tar_of(tmp_path / "a.tar", member("a.txt"))
    assert unpacked_size(archive) == archive.stat().st_size
