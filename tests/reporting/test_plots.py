import re
from dataclasses import replace

import numpy as np
import pytest
from runs_tree import PLANS

from pipeline.reporting import plots
from pipeline.reporting.effects import effects
from pipeline.reporting.groups import Study, miou_in, study_of
from pipeline.reporting.load import Variant


def test_every_evaluated_variant_is_a_point_with_its_name(study: Study) -> None:
    figure = plots.cost_plot(study, ("gmacs", "ms_per_image"))
    assert figure is not None and len(figure.axes) == 2
    points = {c.get_label(): c.get_offsets() for c in figure.axes[0].collections}
    for plan, group in zip(PLANS, study.groups, strict=False):
        ((x, y),) = np.asarray(points[plan.name])
        assert (x, y) == (plan.gmacs, group.miou)
    assert {text.get_text() for text in figure.axes[0].texts} == {plan.name for plan in PLANS}


def test_curves_are_the_histories(study: Study) -> None:
    figure = plots.curves_plot(study, ("val_miou",))
    assert figure is not None
    drawn = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    history = [[row.iteration, row.val_miou] for row in study.groups[0].first.history]
    assert np.asarray(drawn["v3-os16"]).tolist() == history


def test_svg_takes_its_ink_from_the_page_and_is_the_same_each_time(
    study: Study,
) -> None:
    one, other = (plots.cost_plot(study, ("gmacs",)) for _ in range(2))
    assert one is not None and other is not None
    text = plots.svg(one, "a")
    assert text.startswith("<svg") and "currentColor" in text and plots.INK not in text
    assert text == plots.svg(other, "a")


def test_ids_inside_are_the_figures_own(study: Study) -> None:
    figure = plots.cost_plot(study, ("gmacs",))
    assert figure is not None
    text = plots.svg(figure, "a")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 0
    assert all(value.startswith("a-") for value in ids)
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    assert used and set(used) <= set(ids)


def test_the_borders_have_a_line_a_variant_and_a_dotted_one_with_the_crf(
    study: Study,
) -> None:
    figure = plots.borders_plot(study, ("miou", "gain"))
    assert figure is not None
    mious, gains = figure.axes
    named = {str(line.get_label()): line for line in gains.lines}
    for plan, (solid, dotted) in zip(
        PLANS, zip(mious.lines[::2], mious.lines[1::2], strict=True), strict=True
    ):
        assert (solid.get_label(), solid.get_color()) == (plan.name, dotted.get_color())
        assert list(np.asarray(solid.get_xdata())) == list(range(1, 41))
        before, after = np.asarray(solid.get_ydata()), np.asarray(dotted.get_ydata())
        np.testing.assert_array_equal(named[plan.name].get_ydata(), after - before)
    # The widest band of so small a scene is nearly the scene.
    whole = study.groups[0].miou
    assert np.asarray(mious.lines[0].get_ydata())[-1] == pytest.approx(whole, abs=0.5)


def test_a_legend_of_long_names_lies_on_the_figure(variants: list[Variant]) -> None:
    long = [
        replace(v, name=f"{v.name}-{'much_' * number}longer") for number, v in enumerate(variants)
    ]
    for what in (("miou", "gain"), ("miou",)):
        figure = plots.borders_plot(study_of(long), what)
        assert figure is not None
        figure.draw_without_rendering()
        (legend,), whole = figure.legends, figure.bbox
        drawn = legend.get_window_extent()
        assert drawn.x0 >= whole.x0 and drawn.x1 <= whole.x1 and drawn.y0 >= whole.y0


def test_a_single_point_is_nothing_to_draw(study: Study) -> None:
    first = study.groups[0].first
    assert plots.cost_plot(study_of([first]), ("gmacs",)) is None
    short = replace(first, history=first.history[:1])
    assert plots.curves_plot(study_of([short]), ("val_miou", "train_loss")) is None
    lossless = replace(first, history=[replace(row, train_loss=None) for row in first.history])
    figure = plots.curves_plot(study_of([lossless]), ("val_miou", "train_loss"))
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["mIoU on val, %"]


def test_seeds_are_one_line_inside_their_band(seeds: Study) -> None:
    figure = plots.curves_plot(seeds, ("val_miou",))
    assert figure is not None
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    assert set(lines) == {"v3-os16", "v3-os8", "decoder"}
    group = seeds.groups[0]
    runs = [[row.val_miou or 0.0 for row in variant.history] for variant in group.variants]
    np.testing.assert_allclose(lines["v3-os16"], np.mean(runs, axis=0))
    assert len(figure.axes[0].collections) == 2  # bands, of the two that have several seeds


def test_a_point_of_several_seeds_has_its_spread(seeds: Study) -> None:
    figure = plots.cost_plot(seeds, ("gmacs",))
    assert figure is not None
    group = seeds.groups[0]
    spread = group.spread(miou_in("single"))
    assert spread is not None
    ends = [group.miou - spread, group.miou + spread]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert pytest.approx(ends) in drawn
    assert {text.get_text() for text in figure.axes[0].texts} == {"v3-os16", "v3-os8", "decoder"}


def test_every_effect_is_drawn_at_its_points(seeds: Study) -> None:
    bought = effects(seeds)
    figure = plots.effects_plot(bought)
    assert figure is not None
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == [f"{effect.setting}: {effect.said}" for effect in bought]
    points = [np.asarray(c.get_offsets()).tolist() for c in figure.axes[0].collections]
    for place, effect in enumerate(bought):
        assert [[effect.miou.points, place]] in points
    assert plots.effects_plot([e for e in bought if e.setting == "CRF"]) is None


def test_nothing_to_draw_is_no_figure() -> None:
    nobody = study_of([Variant("a")])
    assert plots.borders_plot(nobody, ("miou",)) is None
    assert plots.cost_plot(nobody, ("gmacs",)) is None
    assert plots.curves_plot(nobody, ("val_miou",)) is None


def test_many_variants_stay_apart() -> None:
    looks = [tuple(map(str, plots.look(index).values())) for index in range(24)]
    assert len(set(looks)) == 24
