from collections.abc import Callable, Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.search.grid import (
    Point,
    Trial,
    around,
    best,
    coarse_to_fine,
)

#: v2's ranges.
AXES = ([3.0, 4.0, 5.0, 6.0], [float(x) for x in range(30, 101, 10)], [3.0, 4.0, 5.0, 6.0])


def hill(top: Point) -> Callable[[Sequence[Point]], list[float]]:
    """A surface of one summit, as steep along every axis, in units of its steps."""

    def score(points: Sequence[Point]) -> list[float]:
        steps = Point(1, 10, 1)
        return [
            60 - sum(((x - y) / step) ** 2 for x, y, step in zip(point, top, steps, strict=True))
            for point in points
        ]

    return score


def test_the_first_round_is_the_whole_grid() -> None:
    trials = coarse_to_fine(AXES, 1, hill(Point(4, 50, 4)))
    assert [trial.point for trial in trials] == [Point(*values) for values in product(*AXES)]
    assert best(trials) == Trial(1, Point(4, 50, 4), 60)


def test_each_further_round_halves_the_step_around_the_best() -> None:
    trials = coarse_to_fine(AXES, 3, hill(Point(4.2, 77, 4.8)))
    second = {trial.point for trial in trials if trial.round == 2}
    third = {trial.point for trial in trials if trial.round == 3}
    assert second == {Point(*p) for p in product((3.5, 4, 4.5), (75, 80, 85), (4.5, 5, 5.5))}
    assert third == {Point(*p) for p in product((3.75, 4, 4.25), (72.5, 75, 77.5), (4.75, 5, 5.25))}
    assert best(trials).point == Point(4.25, 77.5, 4.75)


@given(w1=st.floats(3, 6), alpha=st.floats(30, 100), beta=st.floats(3, 6), rounds=st.integers(1, 4))
def test_a_summit_within_the_ranges_is_found_to_half_the_last_step(
    w1: float, alpha: float, beta: float, rounds: int
) -> None:
    trials = coarse_to_fine(AXES, rounds, hill(Point(w1, alpha, beta)))
    found, step = best(trials).point, 0.5**rounds + 1e-9
    assert abs(found.w1 - w1) <= step
    assert abs(found.sigma_alpha - alpha) <= 10 * step
    assert abs(found.sigma_beta - beta) <= step
    assert len(trials) <= 4 * 8 * 4 + (rounds - 1) * 27


def test_no_round_leaves_the_ranges() -> None:
    trials = coarse_to_fine(AXES, 4, hill(Point(0, 500, 9)))
    assert best(trials).point == Point(3, 100, 6)
    reached = zip(*(trial.point for trial in trials), strict=True)
    for axis, values in zip(AXES, reached, strict=True):
        assert (min(values), max(values)) == (axis[0], axis[-1])


def test_an_axis_of_one_value_is_kept() -> None:
    trials = coarse_to_fine(([4.0], AXES[1], [5.0]), 3, hill(Point(4, 61, 5)))
    assert {(trial.point.w1, trial.point.sigma_beta) for trial in trials} == {(4, 5)}
    assert len(trials) <= 8 + 3 + 3


def test_of_a_grid_scored_roughly_only_the_best_are_scored_in_full() -> None:
    rough, full = hill(Point(4.13, 61.7, 4.31)), hill(Point(4, 70, 5))
    trials = coarse_to_fine(AXES, 2, full, rough)
    grid = [trial for trial in trials if trial.rough]
    again = [trial for trial in trials if trial.round == 1 and not trial.rough]
    assert [trial.point for trial in grid] == [Point(*values) for values in product(*AXES)]
    assert len(again) == len(grid) / 8
    taken = {trial.point for trial in again}
    assert taken == {t.point for t in sorted(grid, key=lambda t: t.miou)[-len(again) :]}
    # What is wrong in the rough figures is put right by the full ones.
    assert best(again).point == best(trials).point == Point(4, 70, 5)
    assert not any(trial.rough for trial in trials if trial.round == 2)


def test_a_small_grid_is_scored_in_full_at_once() -> None:
    trials = coarse_to_fine(
        ([4.0], AXES[1], [5.0]), 1, hill(Point(4, 61, 5)), hill(Point(4, 30, 5))
    )
    assert len(trials) == 8
    assert not any(trial.rough for trial in trials)


def test_of_equals_the_first_counts() -> None:
    trials = coarse_to_fine(AXES, 1, lambda points: [50.0] * len(points))
    assert best(trials).point == Point(3, 30, 3)


@pytest.mark.parametrize(
    ("levels", "centre", "found"),
    [
        ([3, 4, 6], 4, [3.5, 4, 5]),
        ([3, 4, 6], 3, [3, 3.5]),
        ([3, 4, 6], 6, [5, 6]),
        ([3], 3, [3]),
    ],
)
def test_uneven_steps_are_halved_on_either_side(
    levels: list[float], centre: float, found: list[float]
) -> None:
    assert around(levels, centre) == found
