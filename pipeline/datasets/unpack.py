"""Unpack tar and zip archives without letting them write anywhere else."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from pipeline.errors import UserError

_DAMAGED = (
    tarfile.ReadError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # zipfile: a password or a compression that is not known
)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder.

    Args:
        archive: a zip file (by its suffix), or a tar file of any compression.
        folder: where its members go; may hold files already.

    Raises:
        UserError: the archive is damaged, or a member would leave the folder.
    """
    text = TextColumn("{task.description}")
    try:
        with Progress(text, BarColumn(), DownloadColumn()) as bars:
            if archive.suffix.lower() == ".zip":
                _unpack_zip(archive, folder, bars)
            else:
                _unpack_tar(archive, folder, bars)
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: refused, a member would leave the folder: {error}") from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{archive}: cannot be unpacked ({reason}); get it again") from error


def _unpack_tar(archive: Path, folder: Path, bars: Progress) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError("Python 3.11.4 or newer is needed to unpack tar files safely; update it")
    with (
        bars.open(archive, "rb", description=f"unpack {archive.name}") as file,
        tarfile.open(fileobj=file, mode="r:*") as tar,
    ):
        for member in tar:
            if PurePosixPath(member.name).is_absolute():
                raise tarfile.AbsolutePathError(member)
            tar.extract(member, folder, filter="data")
        # The padding at a tar's end is never read; the bar shall be full all the same.
        bars.update(bars.task_ids[-1], completed=archive.stat().st_size)


def _unpack_zip(archive: Path, folder: Path, bars: Progress) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        task = bars.add_task(f"unpack {archive.name}", total=sum(m.file_size for m in members))
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{archive}: refused, member {member.filename} would leave the folder"
                )
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UserError(f"{archive}: refused, member {member.filename} is a link")
            zipped.extract(member, folder)
            bars.advance(task, member.file_size)
