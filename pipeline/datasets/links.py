"""Give a file a second name, so that it takes no room twice."""

import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file, or a copy of it (with its time) where none is possible.

    Args:
        source: a file; of a symbolic link, the file behind it.
        target: replaced if it is a file already.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, another owner's file, a file system without links
        shutil.copy2(source, target)


def can_link(source: Path, folder: Path) -> bool:
    """Whether a file can get a second name in a folder; tried, because no rule tells."""
    probe = folder / ".link.partial"
    try:
        os.link(source.resolve(), probe)
    except OSError:
        return False
    probe.unlink()
    return True
