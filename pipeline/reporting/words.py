"""Numbers as a reader sees them; one place, so that page and Markdown agree."""

import json
import math
import re

from pipeline.evaluation.bootstrap import Interval

#: What stands where there is no figure: an absent class, a variant that was not run.
DASH = "–"  # noqa: RUF001
MINUS = "−"  # noqa: RUF001
#: Keeps a figure and its unit on one line.
NBSP = "\u00a0"


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""


def number(value: float | None, digits: int = 2) -> str:
    """A figure with so many digits, thousands apart; a dash if there is none."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign; one that rounds to nothing has none."""
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def plus_minus(value: float | None, spread: float | None, digits: int = 2) -> str:
    """A figure and its spread, such as 62.10 ± 0.35; the figure alone where it has none."""
    if spread is None:
        return number(value, digits)
    return f"{number(value, digits)}{NBSP}±{NBSP}{number(spread, digits)}"


def span(interval: Interval | None) -> str:
    """Where a figure lies, low and high with a dash between; nothing where it is not known."""
    if interval is None:
        return ""
    return f"{number(interval.low, 1)}{DASH}{number(interval.high, 1)}"


def signed_span(interval: Interval | None, digits: int = 2) -> str:
    """Where a difference lies, such as "-0.20 to +0.61"; nothing where it is not known."""
    if interval is None:
        return ""
    return f"{signed(interval.low, digits)} to {signed(interval.high, digits)}"


def times(ratio: float | None) -> str:
    """A ratio of costs, such as x3.40."""
    if ratio is None:
        return DASH
    return f"×{ratio:.2f}" if ratio < 10 else f"×{ratio:.0f}"  # noqa: RUF001


def duration(seconds: float | None) -> str:
    """Seconds as hours, minutes and seconds, the two largest of them."""
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def written(value: object) -> str:
    """A setting as one writes it in params.yaml or on the command line: null, true, [1.0]."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def listing(words: list[str]) -> str:
    """Words as "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def markdown(value: object) -> str:
    """A value as literal Markdown text, safe inside a table's cell as well."""
    if isinstance(value, Markdown):
        return value
    text = re.sub(r"([\\`*_{}\[\]|#~$])", r"\\\1", str(value))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\s]+", " ", text)
