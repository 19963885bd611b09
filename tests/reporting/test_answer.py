import json
import shutil
from dataclasses import replace
from pathlib import Path

from runs_tree import PLANS, Tree, draw_scenes, write_data_set, write_run

from pipeline.reporting import answer as module
from pipeline.reporting.answer import Sentence, answer
from pipeline.reporting.compare import Headline, headline
from pipeline.reporting.effects import effects
from pipeline.reporting.groups import Study, miou_in, study_of
from pipeline.reporting.load import Variant, load_data, load_variants
from pipeline.reporting.words import number, signed_span


def sentences(variants: list[Variant]) -> list[Sentence]:
    study = study_of(variants)
    return answer(study, effects(study))


def text(variants: list[Variant]) -> list[str]:
    return ["".join(part for part, _ in sentence) for sentence in sentences(variants)]


def found_in(variants: list[Variant]) -> Headline:
    found = headline(study_of(variants))
    assert found is not None
    return found


def remarks(variants: list[Variant], prepared: Path | None = None) -> list[str]:
    return module.remarks(study_of(variants), load_data("shapes", prepared) if prepared else None)


def test_the_first_sentence_names_the_best_the_next_and_the_cost(variants: list[Variant]) -> None:
    best, after = sorted((v for v in variants if v.evaluation), key=lambda v: -v.miou)[:2]
    first = text(variants)[0].replace("\u00a0", " ")
    assert first.startswith(f"{best.name} has the highest mIoU on the test split of shapes")
    assert f"{number(best.miou)} %" in first
    assert f"{number(best.miou - after.miou)} points above {after.name}" in first
    assert "(60.90 against 21.96)" in first and "(213.00 against 96.20 ms)" in first


def pair(root: Path, worse: float, better: float, count: int = 6) -> list[Variant]:
    """Two variants with so many pixels wrong, and a CRF that does nothing for the worse."""
    scenes = draw_scenes(count)
    plans = [
        replace(PLANS[0], name="worse", wrong=(worse, worse)),
        replace(PLANS[1], name="better", seed=1, wrong=(better, better - 0.001)),
    ]
    for plan in plans:
        write_run(root / plan.name, plan, scenes)
    return load_variants(["worse", "better"], root)


def test_a_lead_smaller_than_its_uncertainty_is_called_so(tmp_path: Path) -> None:
    # Equally good: the two differ in where they are wrong.
    variants = pair(tmp_path, 0.2, 0.2, count=12)
    lead = found_in(variants).lead
    assert lead is not None and lead.interval is not None
    assert lead.points and lead.interval.low < 0 < lead.points < lead.interval.high
    first = sentences(variants)[0]
    assert ("smaller than its uncertainty over images", True) in first
    within = f" (95\u00a0% confidence: {signed_span(lead.interval)})"
    assert within in "".join(part for part, _ in first)


def test_a_lead_larger_than_its_uncertainty_has_its_interval_only(tmp_path: Path) -> None:
    variants = pair(tmp_path, 0.4, 0.1)
    lead = found_in(variants).lead
    assert lead is not None and lead.interval is not None
    assert lead.interval.low > 0
    assert "uncertainty" not in text(variants)[0]
    within = f"above worse (95\u00a0% confidence: {signed_span(lead.interval)})"
    assert within in text(variants)[0]


def test_seeds_are_said_as_a_mean_with_its_spread(seeds: Study) -> None:
    first, found = text(seeds.variants)[0].replace("\u00a0", " "), found_in(seeds.variants)
    spread = found.best.spread(miou_in("single"))
    assert found.best.name == "v3-os8" and spread is not None
    assert f"{number(found.best.miou)} ± {number(spread)} %" in first
    assert "the mean of 3 seeds" in first and "; spread over seeds: " in first


def test_the_spread_over_seeds_is_said_with_what_it_comes_from(seeds: Study) -> None:
    assert (
        f"spread by ±{number(seeds.spread)} points (standard deviation, pooled over 2 repeated"
        in text(seeds.variants)[-1]
    )


def test_a_lead_below_the_spread_over_seeds_is_called_so(seeds: Study) -> None:
    pair = [v for v in seeds.variants if v.name.startswith("v3-os16") or v.name == "decoder"]
    assert any(
        part == ("smaller than the spread over seeds", True)
        or (part[1] and part[0].startswith("smaller than the spread over seeds and"))
        for part in sentences(pair)[0]
    )


def test_the_change_that_counts_most_is_said_with_its_cost(variants: list[Variant]) -> None:
    said = next(s for s in text(variants) if s.startswith("Of single"))
    assert said.startswith("Of single changes Backbone ") and " counts most: +" in said
    assert said.endswith("times the GMACs.")


def test_a_gain_of_the_crf_that_may_be_chance_is_called_so(tmp_path: Path) -> None:
    variants = pair(tmp_path, 0.2, 0.1)
    gains = found_in(variants).crf_gains
    # Exactly nothing is no matter of chance; a trace that some images lack is.
    assert gains is not None and gains[1] > 0
    (said,) = (sentence for sentence in text(variants) if sentence.startswith("The CRF"))
    assert said.endswith("; for better that may be chance.")
    alone = text([variant for variant in variants if variant.name == "better"])
    doubt = ", which may be chance: it is smaller than its uncertainty over images."
    assert any(said.endswith(doubt) for said in alone)


def test_figures_on_other_images_are_not_compared(tmp_path: Path) -> None:
    scenes = draw_scenes(4)
    write_run(tmp_path / "all", replace(PLANS[0], name="all"), scenes)
    fewer = {id: scene for id, scene in scenes.items() if id != "scene_0"}
    write_run(tmp_path / "apart", replace(PLANS[1], name="apart"), fewer)
    assert remarks(load_variants(["all", "apart"], tmp_path)) == [
        "apart was evaluated on 3 images of the test split of shapes: other images or other "
        "classes, so it is not compared."
    ]


def test_one_seed_is_said_to_have_no_spread(variants: list[Variant]) -> None:
    assert "(seed 0), so the differences have no spread" in text(variants)[-1]


def test_who_is_off_the_pareto_front_is_said(variants: list[Variant]) -> None:
    front = next(s for s in text(variants) if "Pareto" in s)
    assert "for v3plus-os16 there is a variant" in front


def test_one_variant_alone_has_nobody_to_beat(tree: Tree) -> None:
    (first, *_) = text(load_variants(["v3-os8"], tree.runs))
    assert first.startswith("v3-os8 was evaluated alone: its mIoU on the test split of shapes is ")
    assert first.endswith(" with 95\u00a0% confidence).")


def test_without_figures_it_says_so() -> None:
    assert text([Variant("a")]) == ["No variant has been evaluated yet."]


def test_what_is_missing_is_remarked(tree: Tree, variants: list[Variant]) -> None:
    lines = remarks(variants, tree.prepared)
    assert lines == ["Without figures: missing (not run). Run dvc repro to complete them."]


def test_changed_data_is_remarked(tree: Tree, tmp_path: Path) -> None:
    write_data_set(tmp_path / "new", digest="other")
    runs = Path(shutil.copytree(tree.runs, tmp_path / "runs"))
    variants = load_variants(["v3-os8", "v3-os16"], runs)
    assert remarks(variants, tmp_path / "new") == [
        "The prepared data has changed since the variants were trained."
    ]
    record = runs / "v3-os8" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"data_digest": "older"}))
    variants = load_variants(["v3-os8", "v3-os16"], runs)
    assert remarks(variants, tree.prepared) == [
        "The variants were not all trained on the same state of the data."
    ]


def test_other_devices_are_remarked(tree: Tree, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(tree.runs, tmp_path / "runs"))
    path = runs / "v3-os8" / "evaluation" / "figures.json"
    figures = json.loads(path.read_text())
    figures["cost"]["device"] = "another"
    path.write_text(json.dumps(figures))
    lines = remarks(load_variants(["v3-os8", "v3-os16"], runs))
    assert lines == ["Times were taken on different devices, so they are not set in ratio."]
