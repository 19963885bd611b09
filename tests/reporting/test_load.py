import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs_tree import NAMES, Tree, write_search

from pipeline.errors import UserError
from pipeline.evaluation.bootstrap import miou_interval
from pipeline.evaluation.tally import read_counts
from pipeline.reporting.load import MODES, load_data, load_variant, load_variants


@pytest.fixture
def folder(tree: Tree, tmp_path: Path) -> Path:
    """A copy of one run's folder, to be damaged."""
    return Path(shutil.copytree(tree.runs / "v3-os8", tmp_path / "v3-os8"))


def test_figures_are_read_unrounded(tree: Tree) -> None:
    variant = load_variant("v3-os8", tree.runs / "v3-os8")
    written = json.loads((tree.runs / "v3-os8/evaluation/figures.json").read_text())
    assert variant.evaluation is not None and variant.config is not None
    for mode in MODES:
        assert variant.evaluation.modes[mode].miou == written["modes"][mode]["miou"]
        assert variant.evaluation.confusion(mode).sum() > 0
    assert variant.evaluation.cost.gmacs == written["cost"]["gmacs"]
    assert variant.config.model.output_stride == 8
    assert variant.architecture == "DeepLabv3"
    assert variant.state == "evaluated"
    assert len(variant.history) == 10


def test_variants_keep_their_order_and_a_missing_one_is_not_run(tree: Tree) -> None:
    variants = load_variants(NAMES, tree.runs)
    assert [variant.name for variant in variants] == NAMES
    assert variants[-1].state == "not run"
    assert variants[-1].evaluation is None and variants[-1].config is None


def test_no_variant_is_refused(tree: Tree) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: variants is empty"):
        load_variants([], tree.runs)


def test_figures_without_metrics_are_of_an_earlier_network(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    assert load_variant("v3-os8", folder).state == "not evaluated"


def test_what_the_evaluation_counted_comes_with_it(folder: Path) -> None:
    evaluation = load_variant("v3-os8", folder).evaluation
    assert evaluation is not None
    ids, tally = read_counts(folder / "evaluation" / "counts.npz")
    assert evaluation.ids == ids == ["scene_0", "scene_1", "scene_2", "scene_3"]
    assert evaluation.tally == tally and evaluation.images == 4
    assert np.array_equal(evaluation.confusion("ms_flip"), tally.matrices["ms_flip"].counts)
    assert evaluation.modes["ms_flip"].miou == tally.matrices["ms_flip"].miou()
    assert evaluation.modes["single"].fw_iou == tally.matrices["single"].frequency_weighted_iou()
    images = tally.per_image
    assert evaluation.modes["single"].interval == miou_interval(images["single"])
    assert evaluation.seconds == {"network": 12.3, "crf": 81.0}
    assert evaluation.held_apart == 0


def test_any_key_of_the_run_record_may_be_missing(folder: Path) -> None:
    (folder / "run.json").write_text("{}")
    assert load_variant("v3-os8", folder).run == {}


def test_empty_cells_of_the_history_are_none(folder: Path) -> None:
    (folder / "history.csv").write_text(
        "iteration,learning_rate,train_loss,val_miou,val_pixel_accuracy\n5,0.1,,nan,\n"
    )
    row = load_variant("v3-os8", folder).history[0]
    assert (row.iteration, row.train_loss, row.val_miou) == (5, None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "{"),
        ("evaluation/figures.json", "[]"),
        ("evaluation/figures.json", "{}"),
        ("evaluation/counts.npz", "a,b\n1,2\n"),
        ("history.csv", "step\n1\n"),
        ("config.yaml", "model: {backbone: vgg99}"),
        ("config.yaml", "just words"),
        ("crf/search.json", "{}"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    with pytest.raises(UserError) as error:
        load_variant("v3-os8", folder)
    assert str(folder / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_data_set_is_read_where_it_is(tree: Tree) -> None:
    data = load_data("shapes", tree.prepared)
    assert data is not None and len(data.splits["test"]) == 4
    assert load_data("elsewhere", tree.prepared) is None


def test_a_search_of_the_crf_comes_with_its_picture(folder: Path) -> None:
    assert load_variant("v3-os8", folder).search is None
    write_search(folder / "crf")
    search = load_variant("v3-os8", folder).search
    assert search is not None and search.surface == folder / "crf" / "surface.png"
    assert (search.given["w1"], search.found["w1"], search.at_the_edge) == (4.0, 2.0, ["w1"])
    (folder / "crf" / "surface.png").unlink()
    search = load_variant("v3-os8", folder).search
    assert search is not None and search.surface is None
