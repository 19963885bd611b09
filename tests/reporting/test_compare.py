import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs_tree import NAMES, PLANS, Plan, draw_scenes, plant, write_run

from pipeline.config import ModelConfig, TrainConfig
from pipeline.reporting.compare import (
    best_index,
    comparable,
    cost_ratio,
    evaluation_of,
    headline,
    largest_confusions,
    pareto_front,
    row_shares,
    seed_spread,
    single_changes,
)
from pipeline.reporting.load import Variant, load_variant, load_variants


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Variant]:
    return load_variants(NAMES, plant(tmp_path_factory.mktemp("tree")).runs)


def made(folder: Path, plan: Plan) -> Variant:
    write_run(folder / plan.name, plan, draw_scenes())
    return load_variant(plan.name, folder / plan.name)


def test_the_best_variant_leads_by_its_difference_to_the_next(variants: list[Variant]) -> None:
    found = headline(variants)
    ranked = sorted((v for v in variants if v.evaluation), key=lambda v: -v.miou)
    assert found is not None and found.next is not None
    assert (found.best, found.next) == (ranked[0], ranked[1])
    assert found.lead == ranked[0].miou - ranked[1].miou
    assert found.gmacs == evaluation_of(ranked[0]).cost.gmacs / evaluation_of(ranked[1]).cost.gmacs  # type: ignore[operator]
    variant, mode = found.highest
    top = max(s.miou for v in ranked for s in evaluation_of(v).modes.values())
    assert evaluation_of(variant).modes[mode].miou == top
    gains = [evaluation_of(v).crf_gain for v in ranked]
    assert found.crf_gains == (min(filter(None.__ne__, gains)), max(filter(None.__ne__, gains)))  # type: ignore[type-var]


def test_nothing_evaluated_has_no_headline() -> None:
    assert headline([Variant("a")]) is None


def test_every_single_change_is_found_and_no_other(variants: list[Variant]) -> None:
    found = {(c.setting, c.before.name, c.after.name) for c in single_changes(variants)}
    assert found == {
        ("Output stride", "v3-os16", "v3-os8"),
        ("Backbone", "v3-os16", "v3-resnet50"),
        ("ASPP", "v3-noatrous", "v3-os16"),
        ("Decoder", "v3-os16", "v3plus-os16"),
    }


def test_a_change_states_what_it_bought_and_cost(variants: list[Variant]) -> None:
    change = next(c for c in single_changes(variants) if c.setting == "Output stride")
    before, after = (evaluation_of(v) for v in (change.before, change.after))
    assert (change.value_before, change.value_after) == ("16", "8")
    assert change.miou == after.modes["single"].miou - before.modes["single"].miou
    assert change.miou_crf == after.modes["single_crf"].miou - before.modes["single_crf"].miou
    assert change.gmacs == pytest.approx(21.96 / 6.41)
    assert change.milliseconds == pytest.approx(96.2 / 31.7)
    assert change.besides == []


def test_a_decoder_s_own_width_is_no_other_difference(
    variants: list[Variant], tmp_path: Path
) -> None:
    wide = ModelConfig(decoder=True, low_level_channels=24)
    pair = [variants[0], made(tmp_path, replace(PLANS[3], model=wide))]
    assert [c.besides for c in single_changes(pair)] == [[]]


def test_differences_besides_are_owned_up_to(variants: list[Variant], tmp_path: Path) -> None:
    longer = TrainConfig(iterations=1200, crop_size=97)
    pair = [variants[0], made(tmp_path, replace(PLANS[1], train=longer))]
    (change,) = single_changes(pair)
    assert len(change.besides) == 1
    assert change.besides[0].startswith("train.iterations: 600 ")


def test_another_seed_is_a_second_change_and_a_spread_of_its_own(
    variants: list[Variant], tmp_path: Path
) -> None:
    again = made(tmp_path, replace(PLANS[0], name="again", seed=1))
    other = made(tmp_path, replace(PLANS[1], name="other", seed=2))
    assert single_changes([variants[0], other]) == []
    assert seed_spread(variants) is None
    spread = seed_spread([variants[0], again])
    assert spread == (abs(again.miou - variants[0].miou), ["v3-os16", "again"])


def test_rates_of_the_paper_spelt_out_are_no_change(
    variants: list[Variant], tmp_path: Path
) -> None:
    spelt = made(tmp_path, replace(PLANS[0], name="spelt", model=ModelConfig(rates=[6, 12, 18])))
    assert single_changes([variants[0], spelt]) == []
    small = made(tmp_path, replace(PLANS[0], name="small", model=ModelConfig(rates=[1, 2, 4])))
    assert [c.setting for c in single_changes([variants[0], small])] == ["ASPP"]


def test_other_data_is_not_compared(variants: list[Variant], tmp_path: Path) -> None:
    write_run(tmp_path / "away", replace(PLANS[1], name="away"), draw_scenes(1), dataset="voc")
    away = load_variant("away", tmp_path / "away")
    assert away not in comparable([*variants, away])
    found = headline([*variants, away])
    assert found is not None and found.elsewhere == [away]


def test_times_of_different_devices_have_no_ratio(variants: list[Variant]) -> None:
    one, other = variants[0], variants[1]
    evaluation = evaluation_of(other)
    moved = replace(
        other,
        evaluation=replace(evaluation, cost=replace(evaluation.cost, device="H200")),
    )
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


def test_the_best_are_all_that_tie_and_one_figure_has_no_best() -> None:
    assert best_index([1.0, 3.0, None, 3.0]) == {1, 3}
    assert best_index([1.0, 3.0, None], highest=False) == {0}
    assert best_index([None, 3.0]) == set()


def test_confusions_are_shares_of_the_true_class() -> None:
    matrix = np.array([[6, 2, 2], [0, 0, 0], [1, 0, 9]])
    shares = row_shares(matrix)
    assert shares[0].tolist() == [60, 20, 20]
    assert all(math.isnan(value) for value in shares[1])
    found = largest_confusions(matrix, ["a", "b", "c"], count=2)
    assert found == [("a", "b", 20.0), ("a", "c", 20.0)]
