import base64
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from runs_tree import NAMES, PLANS, Tree, plant

from pipeline.reporting.load import load_variants
from pipeline.reporting.strips import SIDE, data_uri, strips


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return plant(tmp_path_factory.mktemp("tree"))


def test_each_picture_has_every_variant_before_and_after_the_crf(tree: Tree) -> None:
    found = strips(load_variants(NAMES, tree.runs))
    assert [strip.id for strip in found] == ["scene_0", "scene_1"]
    for strip in found:
        assert [guess.variant for guess in strip.guesses] == [plan.name for plan in PLANS]
        above, below = strip.rows()
        assert [caption for caption, _ in above] == ["image", *(plan.name for plan in PLANS)]
        assert len(above) == len(below)
        assert all(data for row in (above, below) for _, data in row)


def test_a_missing_overlay_leaves_its_place_empty(tree: Tree, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(tree.runs, tmp_path / "runs"))
    (runs / "v3-os8/evaluation/pictures/scene_0/single_crf.png").unlink()
    shutil.rmtree(runs / "v3-os16/evaluation/pictures/scene_0")
    (first, *_) = strips(load_variants(["v3-os16", "v3-os8"], runs))
    assert first.guesses[0].before is None
    assert first.guesses[1].before is not None and first.guesses[1].after is None


def test_large_pictures_are_made_small(tree: Tree, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(tree.runs, tmp_path / "runs"))
    path = runs / "v3-os8/evaluation/pictures/scene_0/image.png"
    Image.new("RGB", (2048, 1024)).save(path)
    (first, *_) = strips(load_variants(["v3-os8"], runs))
    assert (first.width, first.height) == (SIDE, SIDE // 2)


def test_an_address_carries_its_picture() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    head, _, body = data_uri(buffer.getvalue(), "image/png").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == buffer.getvalue()
