"""The processor's cores that this process may use: fewer than the machine has, in a container."""

import os


def own_cores() -> list[int]:
    """Their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_count() -> int:
    """How many they are."""
    return len(own_cores())
