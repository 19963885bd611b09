"""How the C library keeps what this process has freed: as its work asks for memory again.

Nothing here changes a result. Other C libraries than glibc stay as they are.
"""

import ctypes
import sys
from pathlib import Path

#: What glibc's `mallopt` calls them (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
#: Bytes.
MAP, SMALL, LARGE = 1 << 22, 1 << 24, 1 << 30

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def keep_freed_memory() -> None:
    """Keep what a training on processors has freed for its next step.

    Every step asks for the same maps again. By itself glibc returns large ones to the kernel, which
    clears them before it gives them anew, page by page: a tenth of a step. In pages of 2 MiB that
    costs nothing to speak of, and what is kept lies in pieces that larger maps do not fit in: there
    only blocks below 16 MiB are kept.
    """
    _tell(M_MMAP_THRESHOLD, SMALL if has_large_pages() else LARGE)
    _tell(M_TRIM_THRESHOLD, (1 << 31) - 1)


def share_freed_memory() -> None:
    """Have threads that start from now on take what others have freed.

    By itself glibc gives each thread a heap of its own, and what one frees is not there for the
    others: images side by side, each of another size, leave many holes in each heap. Maps of 4 MiB
    and more have no place there either, and go back to the kernel, where it gives large pages.
    """
    _tell(M_ARENA_MAX, 1)
    if has_large_pages():
        _tell(M_MMAP_THRESHOLD, MAP)


def _tell(what: int, value: int) -> None:
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(what, value)


def has_large_pages() -> bool:
    """Whether Linux gives pages of 2 MiB to who asks for them, as torch does (`pipeline.entry`)."""
    try:
        return "[never]" not in PAGES.read_text(encoding="ascii")
    except OSError:
        return False
