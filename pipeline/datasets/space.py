"""Is there room on the disk: asked before the work, not found out in the middle of it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from rich import filesize

from pipeline.errors import UserError


def require_space(needs: Iterable[tuple[Path, int]], what: str) -> None:
    """Refuse what cannot fit.

    Args:
        needs: existing folders, and the bytes that each is to take in; those on one disk are added.
        what: what needs the room, for the message.

    Raises:
        UserError: a disk has less room than that.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs:
        disk = folder.stat().st_dev
        first, before = disks.get(disk, (folder, 0))
        disks[disk] = first, before + size
    for folder, size in disks.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            raise UserError(
                f"{folder}: {what} needs {filesize.decimal(size)}, free are "
                f"{filesize.decimal(free)}; make room and run the same command again"
            )
