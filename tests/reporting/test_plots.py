import re
from dataclasses import replace

import numpy as np
import pytest
from runs_tree import NAMES, PLANS, plant

from pipeline.reporting import plots
from pipeline.reporting.compare import evaluation_of
from pipeline.reporting.load import Variant, load_variants


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Variant]:
    return load_variants(NAMES, plant(tmp_path_factory.mktemp("tree")).runs)


def test_every_evaluated_variant_is_a_point_with_its_name(variants: list[Variant]) -> None:
    figure = plots.cost_plot(variants, ("gmacs", "ms_per_image"))
    assert figure is not None and len(figure.axes) == 2
    points = {c.get_label(): c.get_offsets() for c in figure.axes[0].collections}
    for plan, variant in zip(PLANS, variants, strict=False):
        ((x, y),) = np.asarray(points[plan.name])
        assert (x, y) == (plan.gmacs, variant.miou)
    assert {text.get_text() for text in figure.axes[0].texts} == {plan.name for plan in PLANS}


def test_curves_are_the_histories(variants: list[Variant]) -> None:
    figure = plots.curves_plot(variants, ("val_miou",))
    assert figure is not None
    drawn = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    history = [[row.iteration, row.val_miou] for row in variants[0].history]
    assert np.asarray(drawn["v3-os16"]).tolist() == history


def test_svg_takes_its_ink_from_the_page_and_is_the_same_each_time(
    variants: list[Variant],
) -> None:
    one, other = (plots.cost_plot(variants, ("gmacs",)) for _ in range(2))
    assert one is not None and other is not None
    text = plots.svg(one, "a")
    assert text.startswith("<svg") and "currentColor" in text and plots.INK not in text
    assert text == plots.svg(other, "a")


def test_ids_inside_are_the_figures_own(variants: list[Variant]) -> None:
    figure = plots.cost_plot(variants, ("gmacs",))
    assert figure is not None
    text = plots.svg(figure, "a")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 0
    assert all(value.startswith("a-") for value in ids)
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    assert used and set(used) <= set(ids)


def test_the_borders_have_a_line_a_variant_and_a_dotted_one_with_the_crf(
    variants: list[Variant],
) -> None:
    figure = plots.borders_plot(variants, ("miou", "gain"))
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
    whole = evaluation_of(variants[0]).modes["single"].miou
    assert np.asarray(mious.lines[0].get_ydata())[-1] == pytest.approx(whole, abs=0.5)


def test_a_single_point_is_nothing_to_draw(variants: list[Variant]) -> None:
    assert plots.cost_plot(variants[:1], ("gmacs",)) is None
    short = replace(variants[0], history=variants[0].history[:1])
    assert plots.curves_plot([short], ("val_miou", "train_loss")) is None
    lossless = replace(
        short, history=[replace(row, train_loss=None) for row in variants[0].history]
    )
    figure = plots.curves_plot([lossless], ("val_miou", "train_loss"))
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["mIoU on val, %"]


def test_nothing_to_draw_is_no_figure() -> None:
    nobody = [Variant("a")]
    assert plots.borders_plot(nobody, ("miou",)) is None
    assert plots.cost_plot(nobody, ("gmacs",)) is None
    assert plots.curves_plot(nobody, ("val_miou",)) is None


def test_many_variants_stay_apart() -> None:
    looks = [tuple(map(str, plots.look(index).values())) for index in range(24)]
    assert len(set(looks)) == 24
