"""How a wrong value is refused: the key, the value and what is allowed."""

from collections.abc import Sequence

from pipeline.errors import UserError, nearest


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not among the known ones."""
    if value not in known:
        raise UserError(f"{key}={value}: {nearest(value, known)}")


def at_least(key: str, value: int, least: int) -> None:
    """Refuse a number below `least`."""
    if value < least:
        raise UserError(f"{key}={value}: must be at least {least}")


def above_zero(key: str, value: float) -> None:
    """Refuse zero and negative numbers."""
    if value <= 0:
        raise UserError(f"{key}={value}: must be above 0")
