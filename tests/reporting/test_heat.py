from pathlib import Path

import numpy as np
from PIL import Image
from runs_tree import CLASSES, PLANS

from pipeline.reporting import heat, plots
from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import Variant


def test_a_dollar_in_a_class_is_a_dollar(tmp_path: Path) -> None:
    figure = heat.confusion_plot(np.array([[3, 1], [0, 2]]), ["a $x_", "$b$"])
    plots.save(figure, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 200


def test_the_class_figure_has_every_class_and_variant(study: Study) -> None:
    figure = heat.class_plot(study)
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == CLASSES
    assert len(figure.axes[0].texts) == len(CLASSES) * len(PLANS)


def test_nothing_evaluated_is_no_figure() -> None:
    assert heat.class_plot(study_of([Variant("a")])) is None
