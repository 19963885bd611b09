import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import Config, CrfConfig, EvaluateConfig, ModelConfig, TrainerConfig
from pipeline.datasets.images import read_label
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.confusion import read_csv
from pipeline.evaluation.figures import MODES
from pipeline.inference.evaluate import evaluate_run
from pipeline.inference.infer import infer_run
from pipeline.inference.search.tune import tune_run
from pipeline.models.checkpoint import save_network
from pipeline.models.network import build_model

CONFIG = Config(
    evaluate=EvaluateConfig(split="test", scales=[0.5, 1.0], cost_size=33, pictures=2),
    crf=CrfConfig(sigma_alpha=10, sigma_beta=10, iterations=2),
    trainer=TrainerConfig(accelerator="cpu", workers=1, progress_bar=False),
)


@pytest.fixture
def run_folder(shapes: Prepared, tmp_path: Path) -> Path:
    """A run's folder as the stages before leave it, with a small network of random weights."""
    torch.manual_seed(0)
    model = ModelConfig(aspp="no_atrous", aspp_channels=8)
    network = build_model(model, len(shapes.classes))
    folder = tmp_path / "runs" / "small"
    save_network(folder / "model.ckpt", network, model, {"classes": list(shapes.classes)})
    infer_run(CONFIG, folder, shapes)
    tune_run(CONFIG, folder, shapes.folder)
    return folder


def test_everything_that_the_report_reads_is_written(run_folder: Path, shapes: Prepared) -> None:
    figures = evaluate_run(CONFIG, run_folder, shapes)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    stated = json.loads((run_folder / "evaluation" / "figures.json").read_text())
    assert metrics == figures.metrics()
    assert stated == figures.as_dict()
    assert metrics["images"] == stated["images"] == len(shapes.ids("test"))
    assert stated["classes"] == list(shapes.classes)
    assert stated["cost"]["size"] == 33
    labels = [np.asarray(Image.open(shapes.label_path(id))) for id in shapes.ids("test")]
    labelled = sum(int((label != shapes.void).sum()) for label in labels)
    for mode in MODES:
        names, matrix = read_csv(run_folder / "evaluation" / f"confusion_{mode}.csv")
        assert names == list(shapes.classes)
        assert matrix.counts.sum() == labelled
        assert stated["modes"][mode]["miou"] == matrix.miou()
    pictures = sorted((run_folder / "evaluation" / "pictures").iterdir())
    assert len(pictures) == 2
    for folder in pictures:
        assert {path.stem for path in folder.iterdir()} == {"image", "truth", *MODES}
    for mode in ("single", "single_crf"):
        maps = run_folder / "evaluation" / "labels" / mode
        assert {path.stem for path in maps.iterdir()} == set(shapes.ids("test"))
        _, matrix = read_csv(run_folder / "evaluation" / f"confusion_{mode}.csv")
        hits = sum(
            int(((read_label(maps / f"{id}.png") == label) & (label != shapes.void)).sum())
            for id, label in zip(shapes.ids("test"), labels, strict=True)
        )
        assert hits == np.trace(matrix.counts)
    assert not list(run_folder.glob("*.partial"))


def test_the_cost_and_the_seconds_of_the_network_are_stated(
    run_folder: Path, shapes: Prepared
) -> None:
    stated = evaluate_run(CONFIG, run_folder, shapes).as_dict()
    cost = json.loads((run_folder / "cost.json").read_text())
    assert stated["cost"] == {key: cost[key] for key in stated["cost"]}
    assert {"network", "upsampling", "CRF", "tally", "pictures"} <= set(stated["seconds"])


def test_images_of_the_search_are_in_no_figure(run_folder: Path, shapes: Prepared) -> None:
    first, *rest = shapes.ids("test")
    (run_folder / "crf" / "held_apart.txt").write_text(f"{first}\n")
    figures = evaluate_run(CONFIG, run_folder, shapes)
    assert (figures.ids, figures.held_apart) == (rest, 1)
    assert figures.metrics()["images"] == len(rest)
    assert figures.tally.images == len(rest)


def test_logits_of_other_settings_or_data_are_refused(run_folder: Path, shapes: Prepared) -> None:
    other = replace(CONFIG, evaluate=replace(CONFIG.evaluate, flip=False))
    with pytest.raises(UserError, match=r"made with evaluate\.flip=True, not False; run `dvc"):
        evaluate_run(other, run_folder, shapes)
    with pytest.raises(UserError, match="logits: of other data"):
        evaluate_run(CONFIG, run_folder, replace(shapes, digest="0" * 64))
    fused = replace(CONFIG, evaluate=replace(CONFIG.evaluate, fusion="maximum"))
    assert evaluate_run(fused, run_folder, shapes).evaluate.fusion == "maximum"


def test_a_second_evaluation_replaces_the_first(run_folder: Path, shapes: Prepared) -> None:
    first = evaluate_run(CONFIG, run_folder, shapes)
    stray = run_folder / "evaluation" / "pictures" / "of-another-split"
    stray.mkdir()
    second = evaluate_run(CONFIG, run_folder, shapes)
    assert second.tally == first.tally
    assert not stray.exists()


def test_a_failed_evaluation_leaves_no_metrics_of_an_earlier_one(
    run_folder: Path, shapes: Prepared
) -> None:
    evaluate_run(CONFIG, run_folder, shapes)
    next((run_folder / "logits").glob("*.npz")).write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"\.npz: missing or damaged"):
        evaluate_run(CONFIG, run_folder, shapes)
    assert not (run_folder / "metrics.json").exists()
    assert not list(run_folder.glob("*.partial"))


def test_an_unknown_variant_ends_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.evaluate", "no-such-variant"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "no-such-variant" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_the_top_of_the_modules_is_light_and_scoring_needs_no_torch() -> None:
    code = (
        "import sys, pipeline.evaluate, pipeline.infer; "
        "top = {'torch', 'hydra', 'mlflow', 'PIL', 'numpy'} & set(sys.modules); "
        "import pipeline.inference.evaluate; "
        "sys.exit(str(top or '') + 'torch' * ('torch' in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.stderr == b""
