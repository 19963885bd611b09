"""How a user's mistake ends: one clear line, exit code 1, no traceback."""

import difflib
import sys
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the message names the file or key, and the remedy."""


def warn(text: str) -> None:
    """Say a line on stderr; the work goes on."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what was meant: the nearest of the known words, then all of them.

    Args:
        word: what the user wrote.
        known: what would have been valid.
    """
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(choices)}"
