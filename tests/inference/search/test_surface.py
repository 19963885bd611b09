from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.inference.search.grid import Point, Trial, best
from pipeline.inference.search.surface import draw_surface


def trials(axes: tuple[list[float], ...], given: Point) -> list[Trial]:
    """A first round over a slope, one finer trial, and the given settings."""
    grid = [Trial(1, Point(*values), 60 + sum(values) / 100) for values in product(*axes)]
    top = best(grid).point
    return [Trial(0, given, 60.0), *grid, Trial(2, top._replace(w1=top.w1 - 0.25), 63.0)]


@pytest.mark.parametrize(
    ("axes", "given"),
    [
        (([4.0], [30.0], [3.0]), Point(4, 30, 3)),
        # Outside the grid, and more cells than have room for their figure.
        (([3.0], [float(x) for x in range(30, 130, 5)], [3.0, 4.0, 5.0, 6.0, 7.0]), Point(9, 4, 1)),
    ],
)
def test_any_grid_is_drawn_with_what_was_found(
    axes: tuple[list[float], ...], given: Point, tmp_path: Path
) -> None:
    scored, path = trials(axes, given), tmp_path / "surface.png"
    draw_surface(scored, scored[-1], 59.0, "CRF search", path)
    assert marked(path).sum() > 100


def test_the_found_settings_have_a_mark_of_their_own_and_the_same_search_the_same_file(
    tmp_path: Path,
) -> None:
    scored = trials(([3.0, 4.0], [30.0, 40.0, 60.0], [3.0, 4.0]), Point(4, 40, 3))
    for name, found in (("a", scored[-1]), ("b", scored[-1]), ("c", scored[1])):
        draw_surface(scored, found, 59.0, "CRF search", tmp_path / f"{name}.png")
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    assert a.read_bytes() == b.read_bytes()
    assert (marked(a) != marked(c)).sum() > 100


def marked(path: Path) -> npt.NDArray[np.bool_]:
    """Where the picture has the colour of the marks."""
    same = np.asarray(Image.open(path)) == (0xD5, 0x5E, 0x00, 0xFF)
    return np.asarray(same.all(axis=2))
