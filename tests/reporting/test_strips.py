import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs_tree import PLANS, Tree

from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.reporting import strips as module
from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import load_variants
from pipeline.reporting.strips import SIDE, data_uri, sheet, strips


@pytest.fixture(scope="module")
def data(tree: Tree) -> Prepared:
    return load_prepared(tree.prepared / "shapes")


def test_each_picture_has_every_variant_before_and_after_the_crf(
    study: Study, data: Prepared
) -> None:
    found = strips(study, data)
    assert found.looked_at == 4 and found.shown == [plan.name for plan in PLANS]
    assert {strip.id for strip in found.strips} == set(data.ids("test"))
    disagreements = [strip.disagreement for strip in found.strips]
    assert disagreements == sorted(disagreements, reverse=True)
    for strip in found.strips:
        assert [guess.variant for guess in strip.guesses] == found.shown
        above, below = strip.rows()
        assert [caption for caption, _ in above] == ["image", *found.shown]
        assert len(above) == len(below)
        assert all(data for row in (above, below) for _, data in row)
        assert strip.shows == {0, 1, 2, 3}


def test_a_missing_label_map_leaves_its_place_empty(tree: Tree, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(tree.runs, tmp_path / "runs"))
    shutil.rmtree(runs / "v3-os8/evaluation/labels/single_crf")
    found = strips(
        study_of(load_variants(["v3-os16", "v3-os8"], runs)),
        load_prepared(tree.prepared / "shapes"),
    )
    first = found.strips[0]
    assert first.guesses[0].after is not None
    assert first.guesses[1].before is not None and first.guesses[1].after is None
    assert sheet(first).width > 3 * first.width


def test_pictures_are_of_a_bounded_size(study: Study, data: Prepared) -> None:
    first = strips(study, data).strips[0]
    assert max(first.width, first.height) == SIDE
    for _, picture in first.rows()[0]:
        assert picture is not None
        assert Image.open(io.BytesIO(picture)).size == (first.width, first.height)


def test_many_variants_have_fewer_strips_of_the_best_of_them(
    study: Study, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_GUESSES", 2)
    monkeypatch.setattr(module, "MOST_PICTURES", 18)
    found = strips(study, data)
    assert found.shown == ["v3-os8", "v3-resnet50"]
    assert len(found.strips) == 3


def test_without_the_data_there_are_no_pictures(study: Study) -> None:
    assert strips(study, None).strips == []


def test_the_truth_is_drawn_in_the_classes_colours(study: Study, data: Prepared) -> None:
    strip = strips(study, data).strips[0]
    truth, image = (np.asarray(Image.open(io.BytesIO(b)), int) for b in (strip.truth, strip.image))
    assert abs(truth - image).mean() > 5


def test_an_address_carries_its_picture() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    head, _, body = data_uri(buffer.getvalue(), "image/png").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == buffer.getvalue()
