import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure
from PIL import Image

from pipeline.datasets import charts
from pipeline.datasets.charts import ALARM, draw_classes, draw_sizes
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    raw = tiny.write_raw(tmp_path / "raw")
    return prepare(tiny.write_manifest(tmp_path), raw, tmp_path / "out")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, to look into."""
    drawn: list[Any] = []
    save = charts._save

    def keep(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(charts, "_save", keep)
    return drawn


def change(data: Prepared, split: str, **values: Any) -> None:
    """Put other statistics of a split in the place of the true ones."""
    path = data.folder / "statistics.json"
    statistics = json.loads(path.read_text())
    statistics["splits"][split] |= values
    path.write_text(json.dumps(statistics))


def test_bars_have_the_classes_colours_and_shares(
    data: Prepared, figures: list[Any], tmp_path: Path
) -> None:
    frequency = {"background": 0.9, "square": 0.07, "stripe": 0.03}
    change(data, "train", frequency=frequency, void=0.5)
    draw_classes(data, tmp_path / "classes.png")
    pixels, images = figures[0].axes
    assert [bar.get_width() for bar in pixels.patches] == pytest.approx([90, 7, 3, 50])
    for axes in (pixels, images):
        colours = [np.array(bar.get_facecolor()[:3]) * 255 for bar in axes.patches]
        np.testing.assert_allclose(colours[:3], data.palette, atol=0.5)
    assert pixels.patches[3].get_hatch() == "////"
    assert [label.get_text() for label in pixels.get_yticklabels()] == [
        "0 background",
        "1 square",
        "2 stripe",
        "255 void",
    ]


def test_other_splits_are_marked_where_they_have_the_class(
    data: Prepared, figures: list[Any], tmp_path: Path
) -> None:
    frequency = {"background": 0.8, "square": 0.2, "stripe": 0.0}
    change(data, "val", frequency=frequency, void=0.1)
    draw_classes(data, tmp_path / "classes.png")
    marks = figures[0].axes[0].lines[0]
    assert marks.get_label() == "val"
    np.testing.assert_allclose(marks.get_xydata(), [(80, 0), (20, 1), (10, 3)])


def test_a_class_that_the_learned_split_never_shows_is_said_in_red(
    data: Prepared, figures: list[Any], tmp_path: Path
) -> None:
    change(data, "train", images_with_class={"background": 4, "square": 3, "stripe": 0})
    draw_classes(data, tmp_path / "a.png")
    draw_classes(data, tmp_path / "b.png", split="val")
    texts = [
        [(text.get_text(), text.get_color() == ALARM) for text in figure.axes[1].texts]
        for figure in figures
    ]
    assert texts[0] == [("4", False), ("3", False), ("none in train", True)]
    assert texts[1] == [("2", False), ("2", False), ("2", False)]


def test_sizes_are_counted_beside_the_crop(
    data: Prepared, figures: list[Any], tmp_path: Path
) -> None:
    change(data, "train", sizes={"12x10": 3, "20x40": 1})
    draw_sizes(data, 33, tmp_path / "sizes.png")
    places, sides = figures[0].axes
    np.testing.assert_array_equal(places.collections[0].get_offsets(), [(12, 10), (20, 40)])
    assert places.patches[0].get_bbox().bounds == (0, 0, 33, 33)
    heights = [bar.get_height() for bar in sides.patches]
    assert sorted(height for height in heights if height) == [1, 2, 3]
    assert [text.get_text() for text in sides.get_legend().get_texts()] == [
        "train: 4 images",
        "val: 2 images",
    ]


def test_charts_are_the_same_again_to_the_last_byte(data: Prepared, tmp_path: Path) -> None:
    for name in "ab":
        draw_classes(data, tmp_path / f"{name}_classes.png")
        draw_sizes(data, 33, tmp_path / f"{name}_sizes.png")
    for kind in ("classes", "sizes"):
        first, again = ((tmp_path / f"{name}_{kind}.png").read_bytes() for name in "ab")
        assert first == again
        with Image.open(tmp_path / f"a_{kind}.png") as picture:
            assert picture.width > 1000


def test_many_classes_and_splits_have_room(data: Prepared, tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(60))
    one = {
        "images": 9,
        "sizes": {"30x30": 9},
        "void": 0.0,
        "frequency": dict.fromkeys(names, 1 / 60),
        "images_with_class": dict.fromkeys(names, 4),
    }
    splits = {f"split{number}": one for number in range(7)}
    path = data.folder / "statistics.json"
    path.write_text(json.dumps({"splits": splits}))
    many = dataclasses.replace(data, classes=names, palette=tuple((n, n, n) for n in range(60)))
    draw_classes(many, tmp_path / "classes.png", split="split3")
    draw_sizes(many, 33, tmp_path / "sizes.png")
    with Image.open(tmp_path / "classes.png") as picture:
        assert picture.height > 60 * 30
