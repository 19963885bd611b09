import json
from pathlib import Path

import pytest
import torch
import yaml
from small_run import CLASSES, PALETTE, save_run

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.errors import UserError
from pipeline.inference.search.outcome import write_settings
from pipeline.prediction.trained import find_trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; nothing beside the checkpoint of the second."""
    folder = tmp_path_factory.mktemp("runs")
    config = {
        "dataset": "shapes",
        "evaluate": {"scales": [1.0, 2.0], "fusion": "maximum", "output_stride": 8},
        "crf": {"w1": 3.0},
    }
    save_run(folder / "first")
    (folder / "first" / "config.yaml").write_text(yaml.safe_dump(config))
    save_run(folder / "second")
    return folder


def test_a_network_is_found_by_variant_folder_and_file(runs: Path) -> None:
    path = runs / "first" / "model.ckpt"
    for name in ("first", str(runs / "first"), str(path)):
        trained = find_trained(name, runs)
        assert (trained.checkpoint, trained.name) == (path, name)
        assert (trained.classes, trained.palette) == (CLASSES, PALETTE)


def test_the_run_s_own_settings_count_and_defaults_where_there_are_none(runs: Path) -> None:
    first, second = find_trained("first", runs), find_trained("second", runs)
    assert first.network().output_stride == 8
    assert second.network().output_stride == 16
    assert first.crf == CrfConfig(w1=3.0)
    assert (second.evaluate, second.crf) == (EvaluateConfig(), CrfConfig())
    assert first.passes(multi_scale=True, flip=True).scales == [1.0, 2.0]
    single = first.passes(window=257)
    assert (single.scales, single.flip, single.window) == ([1.0], False, 257)
    assert single.fusion == "maximum"


def test_what_the_stages_left_wins_over_the_training_s_configuration(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    (folder / "config.yaml").write_text(yaml.safe_dump({"evaluate": {"scales": [1.0, 2.0]}}))
    write_settings(folder / "crf", CrfConfig(w1=7.0))
    index = {
        "checkpoint": "",
        "data": "",
        "code": "",
        "settings": {"scales": [0.5, 1.0]},
        "geometry": {"output_stride": 16},
        "classes": 3,
        "ids": [],
    }
    (folder / "logits").mkdir()
    (folder / "logits" / "index.json").write_text(json.dumps(index))
    trained = find_trained(str(folder))
    assert trained.evaluate.scales == [0.5, 1.0]
    assert trained.crf.w1 == 7.0


def test_what_is_not_there_is_named_with_a_remedy(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"--model frist: .*did you mean 'first'"):
        find_trained("frist", runs)
    with pytest.raises(UserError, match="no variant is trained"):
        find_trained("first", tmp_path)
    with pytest.raises(UserError, match=r"no model\.ckpt in this folder"):
        find_trained(str(tmp_path), runs)
    torch.save({"state_dict": {}, "classes": ["a"]}, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"not a model\.ckpt of this version"):
        find_trained(str(tmp_path / "old.ckpt"))
    store = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    with pytest.raises(UserError, match="no such store of MLflow"):
        find_trained("models:/shapes@best")
    assert not store.exists()


def test_a_damaged_configuration_is_named(runs: Path, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    for text in ("evaluate: 3", "crf: {unknown: 1}", "[", "- a"):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=r"config.yaml: not the configuration of a run"):
            find_trained(str(folder))
