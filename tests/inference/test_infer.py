import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from pipeline.config import Config, EvaluateConfig, ModelConfig, TrainerConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.inference.infer import CODE, batch_bytes, infer_run, keep_few_kernels, plan
from pipeline.inference.logits import StoredLogits, read_cost, read_index
from pipeline.inference.network import on_device
from pipeline.inference.share import Job, run_share
from pipeline.models.checkpoint import load_network, save_network
from pipeline.models.network import build_model
from pipeline.networks.cost import peak_memory
from pipeline.paths import PROJECT

CONFIG = Config(
    evaluate=EvaluateConfig(split="test", scales=[0.5, 1.0], cost_size=33),
    trainer=TrainerConfig(accelerator="cpu", progress_bar=False),
)


@pytest.fixture
def five(shapes: Prepared) -> Prepared:
    """Five images, which no two or three processes share evenly."""
    return replace(shapes, splits={"test": shapes.splits["train"][:5]})


def save(folder: Path, classes: tuple[str, ...], seed: int = 0) -> Path:
    """A run's folder as training leaves it, with a small network of random weights."""
    torch.manual_seed(seed)
    model = ModelConfig(aspp="no_atrous", aspp_channels=8)
    network = build_model(model, len(classes))
    save_network(folder / "model.ckpt", network, model, {"classes": list(classes)})
    return folder


@pytest.fixture
def run_folder(shapes: Prepared, tmp_path: Path) -> Path:
    return save(tmp_path / "runs" / "small", shapes.classes)


def files(run_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run_folder / "logits").iterdir()}


def times(run_folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run_folder / "logits").glob("*.npz")}


def test_every_image_has_a_file_and_the_cost_is_stated(run_folder: Path, five: Prepared) -> None:
    done = infer_run(CONFIG, run_folder, five)
    assert "5 images of shapes test" in done
    assert "were there" not in done
    stored = StoredLogits(run_folder / "logits")
    assert stored.ids == five.ids("test")
    assert {path.stem for path in (run_folder / "logits").iterdir()} == {"index", *stored.ids}
    for id in stored.ids:
        with Image.open(five.image_path(id)) as image:
            shape = (len(five.classes), image.height, image.width)
        assert {maps.shape for maps in stored.probabilities(id).values()} == {shape}
    cost = json.loads((run_folder / "cost.json").read_text())
    weights = load_network(run_folder / "model.ckpt").parameters()
    assert cost["params_m"] == sum(weight.numel() for weight in weights) / 1e6
    assert cost["size"] == 33
    assert {"cost", "reading", "network", "storing"} == set(cost["seconds"])


def test_a_stopped_run_goes_on_with_what_is_missing(run_folder: Path, five: Prepared) -> None:
    infer_run(CONFIG, run_folder, five)
    before = files(run_folder)
    gone = five.ids("test")[3]
    (run_folder / "logits" / f"{gone}.npz").unlink()
    (run_folder / "cost.json").unlink()  # as DVC does before it runs the stage
    written = times(run_folder)
    assert ", 4 were there" in infer_run(CONFIG, run_folder, five)
    assert files(run_folder) == before
    changed = {name for name, at in times(run_folder).items() if written.get(name) != at}
    assert changed == {f"{gone}.npz"}
    assert (run_folder / "cost.json").is_file()


def test_what_only_changes_the_stated_cost_keeps_the_logits(
    run_folder: Path, five: Prepared
) -> None:
    infer_run(CONFIG, run_folder, five)
    written = times(run_folder)
    infer_run(replace(CONFIG, evaluate=replace(CONFIG.evaluate, cost_size=65)), run_folder, five)
    assert times(run_folder) == written
    assert json.loads((run_folder / "cost.json").read_text())["size"] == 65


def test_another_checkpoints_logits_are_made_anew(
    run_folder: Path, five: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    infer_run(CONFIG, run_folder, five)
    before = files(run_folder)
    save(run_folder, five.classes, seed=1)
    assert "were there" not in infer_run(CONFIG, run_folder, five)
    assert "5 images are of another network" in capsys.readouterr().out
    after = files(run_folder)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_any_number_of_processes_gives_the_same_files(run_folder: Path, five: Prepared) -> None:
    evaluate = replace(CONFIG.evaluate, batch_size=2)
    found = []
    for devices in (1, 2, 3):
        trainer = replace(CONFIG.trainer, devices=devices)
        (run_folder / "logits" / "index.json").unlink(missing_ok=True)
        infer_run(replace(CONFIG, evaluate=evaluate, trainer=trainer), run_folder, five)
        found.append(files(run_folder))
    assert found[0] == found[1] == found[2]


def test_side_by_side_as_one_after_the_other_and_only_what_fits(
    run_folder: Path, five: Prepared
) -> None:
    seen: list[tuple[int, int]] = []
    network, device = on_device(load_network(run_folder / "model.ckpt"), "cpu")
    scores = network.scores

    def watched(images: Tensor) -> Tensor:
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return scores(images)

    network.scores = watched  # type: ignore[method-assign]
    evaluate, ids = CONFIG.evaluate, five.ids("test")
    threads, found = torch.get_num_threads(), []
    try:
        for available, batch_bytes in ((2, 1), (1, 0), (2, 2**60)):
            torch.set_num_threads(available)
            seen.clear()
            folder = run_folder / f"{available}-{batch_bytes}"
            folder.mkdir()
            job = Job(folder, five, evaluate, folder, "cpu", len(ids), batch_bytes)
            run_share(job, [[id] for id in ids], network, device)
            found.append({path.name: path.read_bytes() for path in folder.iterdir()})
            here = {thread == threading.get_ident() for thread, _ in seen}
            assert here == {batch_bytes != 1}
            assert {count for _, count in seen} == {1 if batch_bytes == 1 else available}
            assert torch.get_num_threads() == available
    finally:
        torch.set_num_threads(threads)
    assert len(found[0]) == 5
    assert found[0] == found[1]
    assert found[0].keys() == found[2].keys()


def test_the_memory_of_a_batch_is_that_of_its_largest_image(
    run_folder: Path, five: Prepared
) -> None:
    network = load_network(run_folder / "model.ckpt")
    infer_run(replace(CONFIG, evaluate=replace(CONFIG.evaluate, batch_size=2)), run_folder, five)
    cost, _ = read_cost(run_folder)
    index = read_index(run_folder / "logits")
    side = max(index.geometry.padded((64, 64), scale)[0] for scale in (0.5, 1.0))
    weights = sum(weight.numel() for weight in network.parameters()) * 4
    twice = 2 * (peak_memory(network, side) - weights)
    assert batch_bytes(five, index, cost) == pytest.approx(twice, rel=0.5)


def test_what_goes_wrong_in_a_process_ends_in_its_own_line(
    run_folder: Path, five: Prepared
) -> None:
    save(run_folder, (*five.classes, "one more"))
    trainer = replace(CONFIG.trainer, devices=2)
    with pytest.raises(UserError, match="classes, data set shapes has"):
        infer_run(replace(CONFIG, trainer=trainer), run_folder, five)
    assert not (run_folder / "cost.json").exists()


def test_batches_are_of_one_padded_size_and_hold_every_image_once(
    run_folder: Path, five: Prepared, tmp_path: Path
) -> None:
    sizes = {id: (64 + 40 * (number % 2), 64) for number, id in enumerate(five.ids("test"))}
    (tmp_path / "labels").mkdir()
    for id, (height, width) in sizes.items():
        Image.fromarray(np.zeros((height, width), np.uint8)).save(tmp_path / f"labels/{id}.png")
    infer_run(CONFIG, run_folder, five)
    data = replace(five, folder=tmp_path)
    index = read_index(run_folder / "logits")
    first, second, third, fourth, fifth = index.ids
    assert plan(data, index) == [[first], [third], [fifth], [second], [fourth]]
    two = replace(index, settings=index.settings | {"batch_size": 2})
    assert plan(data, two) == [[first, third], [fifth], [second, fourth]]


def test_kernels_of_one_image_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    monkeypatch.delenv(variable, raising=False)
    keep_few_kernels(network, replace(CONFIG.evaluate, scales=[0.5, 1.0, 2.0]))
    assert os.environ[variable] == "12"
    keep_few_kernels(network, replace(CONFIG.evaluate, scales=[1.0]))
    assert os.environ[variable] == "12", "what a user or the process has said before counts"


def test_a_batch_gives_what_each_image_gives_alone(run_folder: Path, five: Prepared) -> None:
    infer_run(CONFIG, run_folder, five)
    alone = StoredLogits(run_folder / "logits")
    maps = {id: alone.probabilities(id) for id in alone.ids}
    evaluate = replace(CONFIG.evaluate, batch_size=4)
    infer_run(replace(CONFIG, evaluate=evaluate), run_folder, five)
    together = StoredLogits(run_folder / "logits")
    for id in together.ids:
        for mode, found in together.probabilities(id).items():
            np.testing.assert_allclose(found, maps[id][mode], atol=2e-3)


def test_an_empty_or_unknown_split_is_refused(run_folder: Path, five: Prepared) -> None:
    data = replace(five, splits={"train": (), **five.splits})
    for split, words in (("train", "no images there; choose another of test"), ("val", "no such")):
        evaluate = replace(CONFIG.evaluate, split=split)
        with pytest.raises(UserError, match=words):
            infer_run(replace(CONFIG, evaluate=evaluate), run_folder, data)


def test_a_full_disk_is_said_after_the_first_image(
    run_folder: Path, five: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"logits: the logits needs? .*, free are 10 bytes"):
        infer_run(CONFIG, run_folder, five)


def test_the_stage_depends_on_the_code_that_decides_the_logits() -> None:
    stage = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]["infer"]["do"]
    assert set(CODE) <= set(stage["deps"])


@pytest.mark.parametrize("slow", [False, True])
def test_bfloat16_on_a_processor_without_it_is_warned_of(
    slow: bool,
    run_folder: Path,
    five: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipeline.models.processor.lacks_bfloat16", lambda device: slow)
    config = replace(CONFIG, evaluate=replace(CONFIG.evaluate, precision="bf16", scales=[1.0]))
    infer_run(config, run_folder, five)
    assert ("warning: evaluate.precision=bf16: " in capsys.readouterr().err) == slow
