import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.reporting.compare import (
    best_index,
    best_run,
    cost_ratio,
    headline,
    largest_confusions,
    pareto_front,
    row_shares,
)
from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import Variant


def test_the_best_variant_leads_by_its_difference_to_the_next(study: Study) -> None:
    found = headline(study)
    ranked = sorted(study.compared, key=lambda group: -group.miou)
    assert found is not None and found.next is not None and found.lead is not None
    assert (found.best, found.next) == (ranked[0], ranked[1])
    assert found.lead.points == ranked[0].miou - ranked[1].miou
    assert found.gmacs == ranked[0].cost.gmacs / ranked[1].cost.gmacs  # type: ignore[operator]
    group, mode = found.highest
    top = max(s.miou for g in ranked for s in g.evaluation.modes.values())
    assert group.evaluation.modes[mode].miou == top
    gains = [g.evaluation.crf_gain for g in ranked]
    assert found.crf_gains == (min(filter(None.__ne__, gains)), max(filter(None.__ne__, gains)))  # type: ignore[type-var]


def test_seeds_are_ranked_by_their_mean(seeds: Study) -> None:
    found = headline(seeds)
    assert found is not None
    assert (found.best.name, len(found.best.runs)) == ("v3-os8", 3)


def test_the_run_to_take_home_is_the_best_of_the_best_setting(study: Study, seeds: Study) -> None:
    best, reason = best_run(study)
    others = sorted(study.compared, key=lambda group: -group.miou)
    assert best is others[0].first
    figures = tuple(f"{group.miou:.2f}" for group in others[:2])
    assert reason.startswith(f"{best.name}: best of {len(others)} evaluated settings, mIoU")
    assert reason.endswith(f"mIoU {figures[0]} %; {others[1].name} has {figures[1]}")
    best, reason = best_run(seeds)
    assert best.name.startswith("v3-os8-s")
    assert best.miou == max(v.miou for v in seeds.variants if v.name.startswith("v3-os8-s"))
    assert f"over 3 seeds, its own {best.miou:.2f}; " in reason


def test_what_cannot_be_compared_has_no_best(study: Study) -> None:
    with pytest.raises(UserError, match="no variant is evaluated"):
        best_run(study_of([Variant("a")]))
    evaluation = replace(study.compared[0].evaluation, dataset="cityscapes")
    away = replace(study.variants[0], name="away", evaluation=evaluation)
    with pytest.raises(UserError, match=r"on different data \(cityscapes test.*; shapes test"):
        best_run(study_of([*study.variants, away]))


def test_nothing_evaluated_has_no_headline() -> None:
    assert headline(study_of([Variant("a")])) is None


def test_times_of_different_devices_have_no_ratio(study: Study) -> None:
    one, other = study.compared[:2]
    evaluation = replace(other.evaluation, cost=replace(other.evaluation.cost, device="H200"))
    moved = replace(other, variants=(replace(other.first, evaluation=evaluation),))
    assert cost_ratio(one, moved, "ms_per_image") is None
    assert cost_ratio(one, moved, "gmacs") == pytest.approx(21.96 / 6.41)


points = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=12)


@given(points)
def test_nobody_beats_the_pareto_front_and_everybody_else_is_beaten(
    points: list[tuple[int, int]],
) -> None:
    front = pareto_front(points)

    def beaten(index: int) -> bool:
        cost, score = points[index]
        return any(
            c <= cost and s >= score and ((c, s) != (cost, score) or other < index)
            for other, (c, s) in enumerate(points)
        )

    assert sorted(front) == [index for index in range(len(points)) if not beaten(index)]
    assert front == sorted(front, key=lambda index: points[index][0])


def test_the_best_are_all_that_tie_and_equals_have_no_best() -> None:
    assert best_index([1.0, 3.0, None, 3.0]) == {1, 3}
    assert best_index([1.0, 3.0, None], highest=False) == {0}
    assert best_index([None, 3.0]) == best_index([3.0, 3.0]) == set()


def test_confusions_are_shares_of_the_true_class() -> None:
    matrix = np.array([[6, 2, 2], [0, 0, 0], [1, 0, 9]])
    shares = row_shares(matrix)
    assert shares[0].tolist() == [60, 20, 20]
    assert all(math.isnan(value) for value in shares[1])
    found = largest_confusions(matrix, ["a", "b", "c"], count=2)
    assert found == [("a", "b", 20.0), ("a", "c", 20.0)]
