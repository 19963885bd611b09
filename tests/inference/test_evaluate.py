import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import Config, CrfConfig, EvaluateConfig, ModelConfig, TrainerConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.confusion import read_csv
from pipeline.evaluation.figures import MODES
from pipeline.inference.evaluate import evaluate_run
from pipeline.models.checkpoint import load_network, save_network
from pipeline.models.network import build_model

CONFIG = Config(
    evaluate=EvaluateConfig(split="test", scales=[0.5, 1.0], cost_size=33, pictures=2),
    crf=CrfConfig(sigma_alpha=10, sigma_beta=10, iterations=2),
    trainer=TrainerConfig(accelerator="cpu", workers=1, progress_bar=False),
)


@pytest.fixture
def run_folder(shapes: Prepared, tmp_path: Path) -> Path:
    """A run's folder as training leaves it, with a small network of random weights."""
    torch.manual_seed(0)
    model = ModelConfig(aspp="no_atrous", aspp_channels=8)
    network = build_model(model, len(shapes.classes))
    folder = tmp_path / "runs" / "small"
    save_network(folder / "model.ckpt", network, model, {"classes": list(shapes.classes)})
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
    assert not list(run_folder.glob("*.partial"))


def test_the_cost_is_that_of_the_trained_network(run_folder: Path, shapes: Prepared) -> None:
    metrics = evaluate_run(CONFIG, run_folder, shapes).metrics()
    weights = load_network(run_folder / "model.ckpt").parameters()
    assert metrics["params_m"] == sum(weight.numel() for weight in weights) / 1e6
    assert metrics["gmacs"] > 0
    assert metrics["ms_per_image"] > 0


def test_a_second_evaluation_replaces_the_first(run_folder: Path, shapes: Prepared) -> None:
    first = evaluate_run(CONFIG, run_folder, shapes)
    stray = run_folder / "evaluation" / "pictures" / "of-another-split"
    stray.mkdir()
    second = evaluate_run(CONFIG, run_folder, shapes)
    assert second.matrices == first.matrices
    assert not stray.exists()


def test_a_failed_evaluation_leaves_no_metrics_of_an_earlier_one(
    run_folder: Path, shapes: Prepared
) -> None:
    evaluate_run(CONFIG, run_folder, shapes)
    (run_folder / "model.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(UserError, match=r"model\.ckpt"):
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


def test_the_top_of_the_module_is_light() -> None:
    code = (
        "import sys, pipeline.evaluate; "
        "sys.exit(bool({'torch', 'hydra', 'mlflow', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
