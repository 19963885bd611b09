from dataclasses import replace
from math import hypot
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from runs_tree import CLASSES, PLANS, draw_scenes, made, write_run

from pipeline.config import TrainConfig
from pipeline.evaluation.bootstrap import Interval, difference_interval, miou_interval
from pipeline.reporting.groups import (
    Difference,
    Study,
    crf_gain,
    difference,
    miou_in,
    side_by_side,
    study_of,
)
from pipeline.reporting.load import Variant, load_variant


def test_variants_that_differ_in_the_seed_are_one_group(seeds: Study) -> None:
    names = {group.name: [variant.name for variant in group.variants] for group in seeds.groups}
    assert names == {
        "v3-os16": ["v3-os16-s0", "v3-os16-s1", "v3-os16-s2"],
        "v3-os8": ["v3-os8-s0", "v3-os8-s1", "v3-os8-s2"],
        "decoder": ["decoder"],
    }
    assert seeds.compared == seeds.groups
    assert [group.name for group in seeds.repeated] == ["v3-os16", "v3-os8"]


def test_a_variant_that_differs_in_more_is_another(tmp_path: Path) -> None:
    longer = TrainConfig(iterations=1200, crop_size=97)
    plans = [
        replace(PLANS[0], name="a"),
        replace(PLANS[0], name="b", seed=1, train=longer),
        # Neither is a second run with the same seed a spread over seeds.
        replace(PLANS[0], name="c"),
    ]
    groups = study_of([made(tmp_path, plan) for plan in plans]).groups
    assert [group.name for group in groups] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (("x-s0", "x-s1"), "x"),
        (("x", "x-seed1"), "x"),
        (("x_seed-0_y", "x_seed-1_y"), "x_y"),
        (("one", "another"), "one"),
    ],
)
def test_a_group_has_its_variants_name_without_the_seed(
    names: tuple[str, str], called: str, tmp_path: Path
) -> None:
    plans = [replace(PLANS[0], name=name, seed=seed) for seed, name in enumerate(names)]
    (group,) = study_of([made(tmp_path, plan) for plan in plans]).groups
    assert (group.name, group.seeds) == (called, [0, 1])


def test_a_group_does_not_take_the_name_of_another(tmp_path: Path) -> None:
    plans = [replace(PLANS[0], name=f"x-s{seed}", seed=seed) for seed in (0, 1)]
    groups = study_of([*(made(tmp_path, plan) for plan in plans), Variant("x")]).groups
    assert [group.name for group in groups] == ["x-s0", "x"]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("v3_table2-resnet50", "v3_table2-resnet101"), ("resnet50", "resnet101")),
        (("v3-os16", "v3plus-os16"), ("v3-os16", "v3plus-os16")),
        (("a-", "a-b"), ("a-", "a-b")),
        (("v3-os16",), ("v3-os16",)),
    ],
)
def test_drawings_leave_out_what_all_names_begin_with(
    names: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    assert [group.label for group in study_of([Variant(name) for name in names]).groups] == [
        *labels
    ]


def test_figures_of_a_group_are_mean_and_deviation_over_its_runs(seeds: Study) -> None:
    group = seeds.groups[0]
    mious = [variant.miou for variant in group.variants]
    assert group.miou == pytest.approx(mean(mious))
    assert group.spread(miou_in("single")) == pytest.approx(stdev(mious))
    gains = [run.crf_gain for run in group.runs if run.crf_gain is not None]
    assert group.mean(crf_gain) == pytest.approx(mean(gains))
    ious = [run.modes["single"].iou["ring"] for run in group.runs]
    assert group.iou("single", "ring") == pytest.approx(mean(filter(None, ious)))
    assert group.iou("single", "ghost") is None
    assert group.confusion().sum() == sum(run.confusion().sum() for run in group.runs)
    assert seeds.groups[2].spread(miou_in("single")) is None


def test_runs_side_by_side_have_the_mean_of_their_miou(seeds: Study) -> None:
    counts = side_by_side(seeds.groups, "single")
    # Three runs each, the single one three times: each group weighs the same.
    assert counts.shape == (4, 3, 9 * len(CLASSES))
    interval = miou_interval(counts, resamples=400)
    assert interval is not None
    assert interval.holds(mean(group.miou for group in seeds.groups))
    one = side_by_side([seeds.groups[2]], "single")
    assert np.array_equal(one, seeds.groups[2].evaluation.tally.per_image["single"])


def test_a_difference_is_of_the_means_with_both_trusts(seeds: Study) -> None:
    before, after = seeds.groups[:2]
    found = difference(before, after)
    assert found is not None
    assert found.points == pytest.approx(after.miou - before.miou)
    spreads = [group.spread(miou_in("single")) for group in (before, after)]
    assert found.spread == pytest.approx(hypot(*filter(None, spreads)))
    assert found.interval is not None and found.interval.holds(found.points)
    assert found.doubts == []
    assert difference(before, after, "elsewhere") is None


def test_single_runs_differ_as_their_evaluations_do(tmp_path: Path) -> None:
    before, after = study_of([made(tmp_path, plan) for plan in PLANS[:2]]).groups
    found = difference(before, after)
    counts = [group.evaluation.tally.per_image["single"] for group in (before, after)]
    assert found is not None and found.interval == difference_interval(counts[1], counts[0])
    assert found.spread is None


def test_a_single_run_borrows_the_spread_of_the_others(seeds: Study) -> None:
    squares = [group.spread(miou_in("single")) or 0.0 for group in seeds.repeated]
    pooled = mean(spread**2 for spread in squares) ** 0.5
    assert seeds.spread == pytest.approx(pooled)
    found = difference(seeds.groups[0], seeds.groups[2])
    assert found is not None and found.spread == pytest.approx(hypot(squares[0], pooled))


@pytest.mark.parametrize(
    ("found", "doubts"),
    [
        (Difference(1.0, Interval(0.5, 1.5), 0.4), 0),
        (Difference(1.0, Interval(0.5, 1.5), 1.4), 1),
        (Difference(-1.0, Interval(-2.5, 0.5), 1.4), 2),
        (Difference(0.0, Interval(-2.5, 0.5), 1.4), 0),
        (Difference(1.0), 0),
    ],
)
def test_a_difference_below_its_spread_or_interval_is_in_doubt(
    found: Difference, doubts: int
) -> None:
    assert len(found.doubts) == doubts


def test_other_data_is_not_compared(variants: list[Variant], tmp_path: Path) -> None:
    write_run(tmp_path / "away", replace(PLANS[1], name="away"), draw_scenes(1), dataset="voc")
    study = study_of([*variants, load_variant("away", tmp_path / "away")])
    assert [group.name for group in study.compared] == [plan.name for plan in PLANS]
    assert [variant.name for variant in study.elsewhere] == ["away"]
