from dataclasses import replace
from pathlib import Path

import pytest
from runs_tree import PLANS, made

from pipeline.config import ModelConfig, TrainConfig
from pipeline.reporting.effects import CRF, Change, effects, single_changes
from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import Variant


def changes(variants: list[Variant]) -> list[Change]:
    return single_changes(study_of(variants))


def test_every_single_change_is_found_and_no_other(variants: list[Variant]) -> None:
    found = {(c.setting, c.before.name, c.after.name) for c in changes(variants)}
    assert found == {
        ("Output stride", "v3-os16", "v3-os8"),
        ("Backbone", "v3-os16", "v3-resnet50"),
        ("ASPP", "v3-noatrous", "v3-os16"),
        ("Decoder", "v3-os16", "v3plus-os16"),
    }


def test_a_change_states_what_it_bought_and_cost(variants: list[Variant]) -> None:
    change = next(c for c in changes(variants) if c.setting == "Output stride")
    before, after = change.before.evaluation, change.after.evaluation
    assert (change.value_before, change.value_after) == ("16", "8")
    assert change.miou.points == after.modes["single"].miou - before.modes["single"].miou
    assert change.miou_crf == after.modes["single_crf"].miou - before.modes["single_crf"].miou
    assert change.gmacs == pytest.approx(21.96 / 6.41)
    assert change.milliseconds == pytest.approx(96.2 / 31.7)
    assert change.miou.interval is not None and change.miou.spread is None
    assert change.besides == []


def test_a_decoder_s_own_width_is_no_other_difference(
    variants: list[Variant], tmp_path: Path
) -> None:
    wide = ModelConfig(decoder=True, low_level_channels=24)
    pair = [variants[0], made(tmp_path, replace(PLANS[3], model=wide))]
    assert [c.besides for c in changes(pair)] == [[]]


def test_differences_besides_are_owned_up_to(variants: list[Variant], tmp_path: Path) -> None:
    longer = TrainConfig(iterations=1200, crop_size=97)
    (change,) = changes([variants[0], made(tmp_path, replace(PLANS[1], train=longer))])
    assert len(change.besides) == 1
    assert change.besides[0].startswith("train.iterations: 600 ")


def test_any_other_key_that_alone_differs_is_a_change_too(
    variants: list[Variant], tmp_path: Path
) -> None:
    longer = TrainConfig(iterations=1200, crop_size=97)
    (change,) = changes([variants[0], made(tmp_path, replace(PLANS[0], name="x", train=longer))])
    assert (change.setting, change.value_before, change.value_after) == (
        "train.iterations", "600", "1200",
    )  # fmt: skip
    assert change.besides == []


def test_runs_that_share_no_seed_are_no_change(variants: list[Variant], tmp_path: Path) -> None:
    other = made(tmp_path, replace(PLANS[1], name="other", seed=2))
    assert changes([variants[0], other]) == []


def test_rates_of_the_paper_spelt_out_are_no_change(
    variants: list[Variant], tmp_path: Path
) -> None:
    small = made(tmp_path, replace(PLANS[0], name="small", model=ModelConfig(rates=[1, 2, 4])))
    assert [c.setting for c in changes([variants[0], small])] == ["ASPP"]
    spelt = made(tmp_path, replace(PLANS[0], name="spelt", model=ModelConfig(rates=[6, 12, 18])))
    assert "ASPP" not in {c.setting for c in changes([variants[0], spelt])}


def test_an_effect_is_the_mean_over_its_pairs_and_over_seeds(
    variants: list[Variant], tmp_path: Path
) -> None:
    both = ModelConfig(decoder=True, output_stride=8)
    twice = [*variants, made(tmp_path, replace(PLANS[3], name="v3plus-os8", model=both))]
    found = {(e.setting, e.said): e for e in effects(study_of(twice))}
    stride = found["Output stride", "16 → 8"]
    by_name = {variant.name: variant.miou for variant in twice}
    pairs = [
        by_name["v3-os8"] - by_name["v3-os16"],
        by_name["v3plus-os8"] - by_name["v3plus-os16"],
    ]
    assert sorted(c.miou.points for c in stride.changes) == pytest.approx(sorted(pairs))
    assert stride.miou.points == pytest.approx(sum(pairs) / 2)
    assert stride.miou.interval is not None and stride.miou.interval.holds(stride.miou.points)
    assert stride.gmacs == pytest.approx((21.96 / 6.41 * 26.4 / 26.4) ** 0.5)


def test_pairs_that_differ_besides_do_not_count_beside_clean_ones(
    variants: list[Variant], tmp_path: Path
) -> None:
    longer = TrainConfig(iterations=1200, crop_size=97)
    other = made(tmp_path, replace(PLANS[1], name="longer", train=longer))
    found = {effect.setting: effect for effect in effects(study_of([*variants[:2], other]))}
    assert [c.after.name for c in found["Output stride"].changes] == ["v3-os8"]
    assert found["Output stride"].besides == []


def test_a_change_has_one_direction_whatever_a_pair_costs(
    variants: list[Variant], tmp_path: Path
) -> None:
    # At stride 8 the large backbone is the cheaper one of its pair, and differs besides.
    longer = TrainConfig(iterations=1200, crop_size=97)
    large = ModelConfig(backbone="resnet50", output_stride=8)
    plans = [
        replace(PLANS[1], name="small", gmacs=30.0, train=longer),
        replace(PLANS[1], name="large", model=large, gmacs=20.0),
    ]
    found = [
        (effect.said, [change.after.name for change in effect.changes])
        for effect in effects(
            study_of([variants[0], variants[4], *(made(tmp_path, plan) for plan in plans)])
        )
        if effect.setting == "Backbone"
    ]
    assert found == [(f"{ModelConfig().backbone} → resnet50", ["v3-resnet50"])]


def test_effects_of_a_setting_are_listed_by_what_they_bought(
    variants: list[Variant], tmp_path: Path
) -> None:
    third = made(tmp_path, replace(PLANS[1], name="os32", model=ModelConfig(output_stride=32)))
    strides = [e for e in effects(study_of([*variants, third])) if e.setting == "Output stride"]
    points = [effect.miou.points for effect in strides]
    assert len(points) == 3 and points == sorted(points, reverse=True)


def test_the_crf_is_an_effect_on_every_network(seeds: Study) -> None:
    last = effects(seeds)[-1]
    assert (last.setting, last.said, len(last.changes)) == (CRF, "without → with", 3)
    gains = {change.before.name: change.miou for change in last.changes}
    runs = [run.crf_gain for run in seeds.groups[0].runs]
    assert gains["v3-os16"].points == pytest.approx(sum(filter(None, runs)) / 3)
    assert gains["v3-os16"].spread is not None and gains["decoder"].spread is None


def test_an_effect_of_seeds_has_a_spread_and_a_large_one_no_doubt(seeds: Study) -> None:
    found = {effect.setting: effect for effect in effects(seeds)}
    assert found["Output stride"].miou.spread is not None
    assert found["Output stride"].miou.doubts == []
    # The decoder is one run beside three: their spread stands in for its own.
    assert found["Decoder"].miou.spread is not None
    assert "smaller than the spread over seeds" in found["Decoder"].miou.doubts
