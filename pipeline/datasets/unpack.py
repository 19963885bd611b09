"""Unpack tar and zip archives without letting them write anywhere else.

Only plain files and folders are made, by this module itself: a name that leads out is refused, and
a link becomes a second name of a file of the same archive. So no link is there to be followed.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from pipeline.datasets.links import link_or_copy
from pipeline.datasets.progress import CHUNK, Bar, one_bar
from pipeline.errors import UserError

#: The first bytes of a zip file; the second kind is empty.
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,  # .lzma, before there was .xz
}
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # zipfile: a password or a compression that is not known
    OSError,  # gzip and bz2; theirs have no number
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder.

    Args:
        archive: a zip file, or a tar file of any compression.
        folder: where its members go; may hold files already, those of the same name are replaced.

    Raises:
        UserError: the archive is damaged, or a member would leave the folder, is a device, or is a
            link to anything but a file of the archive.
    """
    with one_bar(archive.name) as bar:
        try:
            if _is_zip(archive):
                _unpack_zip(archive, folder, bar)
            else:
                _unpack_tar(archive, folder, bar)
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = " ".join(str(error).split())
            raise UserError(f"{archive}: cannot be unpacked ({reason}); get it again") from error


def unpacked_size(archive: Path) -> int:
    """Bytes that an archive's files need; of a tar file its own size, images hardly compress."""
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                return sum(member.file_size for member in zipped.infolist())
    except _DAMAGED:
        pass  # unpacking says what is wrong with it
    return archive.stat().st_size


def _is_zip(archive: Path) -> bool:
    with open(archive, "rb") as file:
        return file.read(4) in _ZIP


def _unpack_zip(archive: Path, folder: Path, bar: Bar) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        bar.begin("unpack", sum(member.file_size for member in members))
        for member in members:
            # Some of Windows' packers write its own separator.
            name = member.filename.replace("\\", "/")
            path = folder / _inside(archive, name)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _refused(archive, name, "is a link")
            if name.endswith("/"):
                _make(archive, name, path, None)
                continue
            with zipped.open(member) as content:
                _make(archive, name, path, content)
            bar.advance(member.file_size)


def _unpack_tar(archive: Path, folder: Path, bar: Bar) -> None:
    links: dict[PurePosixPath, PurePosixPath] = {}
    bar.begin("unpack", archive.stat().st_size)
    with open(archive, "rb") as file, _decompressed(file) as content:
        seen = 0
        for member in _members(archive, content):
            path = _inside(archive, member.info.name)
            if member.info.issym() or member.info.islnk():
                # A symbolic link starts at its own folder, a hard link at the archive's top.
                start = str(path.parent) if member.info.issym() else ""
                aim = posixpath.normpath(posixpath.join(start, member.info.linkname))
                links[path] = _inside(archive, aim, member.info.name)
            elif member.info.isdir() or member.info.isreg():
                _make(archive, member.info.name, folder / path, member.content)
                links.pop(path, None)
            else:
                raise _refused(archive, member.info.name, "is a device")
            bar.advance(file.tell() - seen)
            seen = file.tell()
        # To the end, where gzip, bzip2 and xz have the checksum of what they hold.
        while content.read(CHUNK):
            pass
        bar.advance(file.tell() - seen)
    _make_links(archive, folder, links)


class _Member(NamedTuple):
    info: tarfile.TarInfo
    #: None: it is no file.
    content: IO[bytes] | None


def _members(archive: Path, content: io.BufferedReader) -> Iterator[_Member]:
    """The members of a tar file, each to be read before the next, up to its proper end."""
    try:
        tar = tarfile.open(fileobj=content, mode="r:")
    except tarfile.ReadError as error:
        raise UserError(
            f"{archive}: cannot be unpacked, it is damaged or neither a zip nor a tar file; get it "
            "again, or say `unpack: false` in the manifest"
        ) from error
    with tar:
        for info in tar:
            yield _Member(info, tar.extractfile(info) if info.isreg() else None)
        # Tarfile takes a damaged header for the end, and the end of the file as well.
        content.seek(tar.offset)
        if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("a part is missing or damaged")


def _decompressed(file: IO[bytes]) -> io.BufferedReader:
    """What a file holds, by its first bytes; the buffer makes small steps back cheap."""
    start = file.read(6)
    file.seek(0)
    source: Any = file
    for magic, opener in _COMPRESSED.items():
        if start.startswith(magic):
            source = opener(file)
    return io.BufferedReader(source, CHUNK)


def _inside(archive: Path, name: str, member: str | None = None) -> PurePosixPath:
    """A member's path below the folder, or that of what it links to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _refused(archive, member or name, "would leave the folder")
    return path


def _make(archive: Path, name: str, path: Path, content: IO[bytes] | None) -> None:
    """A folder, or a file with this content."""
    with _writing(archive, name):
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not written into: the file may be the second name of one elsewhere.
        path.unlink(missing_ok=True)
        with open(path, "xb") as file:
            while chunk := content.read(CHUNK):
                file.write(chunk)


def _make_links(archive: Path, folder: Path, links: dict[PurePosixPath, PurePosixPath]) -> None:
    """Second names for files; what a link aims at may be a link itself, or come after it."""
    while links:
        ready = [
            path for path, aim in links.items() if aim not in links and (folder / aim).is_file()
        ]
        if not ready:
            path, aim = next(iter(links.items()))
            raise _refused(archive, str(path), f"is a link to {aim}, which is no file in it")
        for path in ready:
            with _writing(archive, str(path)):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(folder / links.pop(path), folder / path)


@contextlib.contextmanager
def _writing(archive: Path, name: str) -> Iterator[None]:
    """A name that is too long or stands for a file and a folder is the archive's fault."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in _FULL:
            raise
        raise _refused(archive, name, f"cannot be written here ({error.strerror})") from error


def _refused(archive: Path, member: str, why: str) -> UserError:
    return UserError(f"{archive}: refused, member {member} {why}; get it again, or pack it anew")
