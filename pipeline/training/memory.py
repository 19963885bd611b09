"""What a training on processors has freed: kept for its next step where asking again is slow."""

import ctypes
import sys
from pathlib import Path

#: What glibc's `mallopt` calls them (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Bytes.
SMALL, LARGE = 1 << 24, 1 << 30

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for this process.

    Every step asks for the same maps again. By itself glibc returns large ones to the kernel, which
    clears them before it gives them anew, page by page: a tenth of a step. In pages of 2 MiB that
    costs nothing to speak of, and what is kept lies in pieces that larger maps do not fit in: there
    only blocks below 16 MiB are kept. Other C libraries stay as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, SMALL if has_large_pages() else LARGE)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def has_large_pages() -> bool:
    """Whether Linux gives pages of 2 MiB to who asks for them, as torch does (`pipeline.entry`)."""
    try:
        return "[never]" not in PAGES.read_text(encoding="ascii")
    except OSError:
        return False
