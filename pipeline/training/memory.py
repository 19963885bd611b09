"""Memory that a training on processors has once is kept for its next step."""

import ctypes
import sys

#: What glibc's `mallopt` calls them (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for this process.

    Every step asks for the same maps again. By itself glibc returns large ones to the kernel, which
    clears them before it gives them anew: a tenth of a step. Other C libraries stay as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
