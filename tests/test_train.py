"""Every preset of conf/ runs as it stands, for a step."""

from pathlib import Path

import pytest

from pipeline.composition import load_config
from pipeline.datasets.prepared import Prepared
from pipeline.paths import CONF
from pipeline.training.run import train_run

#: What makes a paper's schedule fit a test: a step on small crops, without downloaded weights.
SHORT = [
    "trainer.fast_dev_run=1",
    "trainer.accelerator=cpu",
    "trainer.workers=0",
    "train.batch_size=2",
    "train.crop_size=65",
    "model.weights=null",
]
PRESETS = [
    f"{folder}={path.stem}"
    for folder in ("debug", "model")
    for path in sorted((CONF / folder).glob("*.yaml"))
]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_a_step(
    preset: str, shapes: Prepared, tmp_path: Path, mlflow_store: str
) -> None:
    config = load_config([preset, *SHORT])
    config.variant = preset
    train_run(config, tmp_path / "run", shapes.folder)
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 2
