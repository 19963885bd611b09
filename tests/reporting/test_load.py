import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs_tree import NAMES, Tree, plant

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.errors import UserError
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.evaluation.figures import Cost, Figures
from pipeline.reporting.load import MODES, load_data_set, load_variant, load_variants


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return plant(tmp_path_factory.mktemp("tree"))


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
        assert variant.evaluation.confusions[mode].sum() > 0
    assert variant.evaluation.cost.gmacs == written["cost"]["gmacs"]
    assert variant.config.model.output_stride == 8
    assert variant.architecture == "DeepLabv3"
    assert variant.state == "evaluated"
    assert len(variant.history) == 10


def test_the_crf_gain_of_a_class_is_none_where_it_is_absent(tree: Tree) -> None:
    evaluation = load_variant("v3-os16", tree.runs / "v3-os16").evaluation
    assert evaluation is not None
    before, after = (evaluation.modes[mode].iou["ring"] for mode in ("single", "single_crf"))
    assert before is not None and after is not None
    assert evaluation.crf_gain_of("ring") == after - before
    assert evaluation.crf_gain_of("ghost") is None


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


def test_what_the_evaluation_writes_is_understood(folder: Path) -> None:
    counts = np.array([[50, 2, 0], [3, 40, 0], [0, 0, 0]], dtype=np.int64)
    matrices = {mode: ConfusionMatrix(3, counts) for mode in MODES}
    Figures(
        dataset="tiny",
        split="val",
        images=2,
        void=255,
        classes=["sky", "tree, with leaves", "tram"],
        palette=[[0, 0, 0], [0, 99, 0], [99, 0, 0]],
        matrices=matrices,
        cost=Cost(params_m=1.5, gmacs=2.5, peak_mib=4.5, ms_per_image=3.5, size=129, device="cpu"),
        evaluate=EvaluateConfig(),
        crf=CrfConfig(),
    ).write(folder / "evaluation")
    evaluation = load_variant("v3-os8", folder).evaluation
    assert evaluation is not None and evaluation.crf_gain == 0
    assert evaluation.cost.peak_mib == 4.5
    assert evaluation.modes["ms_flip"].miou == matrices["ms_flip"].miou()
    assert evaluation.modes["single"].iou["tram"] is None
    assert evaluation.confusions["single"].tolist() == counts.tolist()


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
        ("evaluation/confusion_single.csv", "a,b\n1,2\n"),
        ("evaluation/confusion_single.csv", "a,b\n1,x\n"),
        ("history.csv", "step\n1\n"),
        ("config.yaml", "model: {backbone: vgg99}"),
        ("config.yaml", "just words"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UserError) as error:
        load_variant("v3-os8", folder)
    assert str(folder / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_data_set_is_read_where_it_is(tree: Tree) -> None:
    data = load_data_set("shapes", tree.prepared)
    assert data is not None and data.splits == {"train": 40, "val": 8, "test": 4}
    assert load_data_set("elsewhere", tree.prepared) is None
