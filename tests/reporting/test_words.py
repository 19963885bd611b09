import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.bootstrap import Interval
from pipeline.reporting.words import (
    DASH,
    NBSP,
    Markdown,
    duration,
    listing,
    markdown,
    number,
    plus_minus,
    signed,
    signed_span,
    span,
    times,
    written,
)


@pytest.mark.parametrize(
    ("value", "text"), [(62.345, "62.34"), (1234.5, "1,234.50"), (None, DASH), (math.nan, DASH)]
)
def test_figures_have_two_digits_and_missing_ones_a_dash(value: float | None, text: str) -> None:
    assert number(value) == text


def test_differences_carry_their_sign_and_nothing_has_none() -> None:
    assert signed(1.2) == "+1.20"
    assert signed(-1.2) == "\N{MINUS SIGN}1.20"
    assert signed(-0.001) == signed(0.0) == "0.00"
    assert signed(None) == DASH


def test_a_spread_follows_its_figure() -> None:
    assert plus_minus(62.1, 0.349).replace(NBSP, " ") == "62.10 ± 0.35"
    assert plus_minus(62.1, None) == "62.10"
    assert plus_minus(None, None) == DASH


def test_where_a_figure_lies_is_low_to_high() -> None:
    assert span(Interval(61.24, 63.06)) == f"61.2{DASH}63.1"
    assert signed_span(Interval(-0.2, 0.61)) == "\N{MINUS SIGN}0.20 to +0.61"
    assert signed_span(Interval(-0.2, 0.61), 1) == "\N{MINUS SIGN}0.2 to +0.6"
    assert span(None) == signed_span(None) == ""


def test_ratios_lose_digits_as_they_grow() -> None:
    assert times(3.4).endswith("3.40")
    assert times(34.4).endswith("34")
    assert times(None) == DASH


def test_durations_name_their_two_largest_units() -> None:
    assert duration(12) == "12 s"
    assert duration(372.4) == "6 min 12 s"
    assert duration(7500) == "2 h 5 min"
    assert duration(None) == DASH


def test_lists_end_with_and() -> None:
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_settings_are_written_as_in_params_yaml() -> None:
    values = (None, True, [0.5, 1.0], 513, "runs/coco", {"é": 1})
    assert [written(value) for value in values] == [
        "null",
        "true",
        "[0.5, 1.0]",
        "513",
        "runs/coco",
        '{"é": 1}',
    ]


def test_markdown_text_is_literal_unless_it_says_otherwise() -> None:
    assert markdown("a|b <i>*x*</i>\n_") == r"a\|b &lt;i&gt;\*x\*&lt;/i&gt; \_"
    assert markdown(Markdown("**a**")) == "**a**"


@given(st.text())
def test_no_text_breaks_out_of_a_markdown_cell(text: str) -> None:
    cell = markdown(text)
    assert "<" not in cell and "\n" not in cell
    assert cell.replace("\\\\", "").replace("\\|", "").count("|") == 0
