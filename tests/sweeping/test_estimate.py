import csv
import json
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from pipeline.config import Config, ModelConfig, TrainConfig
from pipeline.config.schema import SecondPhase
from pipeline.models.network import build_model
from pipeline.sweeping.estimate import estimated_seconds, measured_runs, training_cost

SMALL = ModelConfig(backbone="mobilenet_v2", aspp_channels=16, rates=[1, 2, 3])
TRAIN = TrainConfig(iterations=100, batch_size=4, crop_size=65)
CONFIG = Config(model=SMALL, train=TRAIN)


def leave_run(runs: Path, name: str, config: Config, seconds: float, **record: object) -> None:
    """What a training of a variant leaves."""
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    values = {"finished": True, "seconds": seconds} | record
    (folder / "run.json").write_text(json.dumps(values))
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["iteration", "val_miou"], [config.train.iterations, 50.0]])


def test_the_memory_of_a_step_is_what_the_allocator_gave() -> None:
    cost = training_cost(replace(CONFIG, train=replace(TRAIN, batch_size=8)), 5)
    network = build_model(SMALL, 5).train()
    images = torch.rand(8, 3, 65, 65)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        network.outputs(images).scores.sum().backward()
    moved = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    moved.sort(key=lambda event: event.start_ns())
    peak = max(accumulate(event.nbytes() for event in moved))
    weights = sum(parameter.nbytes for parameter in network.parameters())
    expected = peak + 2 * weights + images.nbytes  # weights and momentum were there before
    assert cost.memory_mib * 2**20 == pytest.approx(expected, rel=0.03)


def test_devices_share_the_batch_and_half_precision_halves_the_maps() -> None:
    whole = training_cost(replace(CONFIG, train=replace(TRAIN, batch_size=16)), 5)
    config = replace(CONFIG, train=replace(TRAIN, batch_size=16))
    config.trainer = replace(config.trainer, devices=2)
    shared = training_cost(config, 5)
    half = training_cost(
        replace(CONFIG, train=replace(TRAIN, batch_size=16, precision="bf16-mixed")), 5
    )
    fixed = 2 * whole.params_m * 1e6 * 4 / 2**20
    assert shared.memory_mib - fixed == pytest.approx((whole.memory_mib - fixed) / 2, rel=0.1)
    assert half.memory_mib - fixed == pytest.approx((whole.memory_mib - fixed) / 2, rel=0.01)
    assert shared.work == whole.work


def test_a_second_phase_is_work_at_its_own_output_stride() -> None:
    one = training_cost(CONFIG, 5)
    then = SecondPhase(iterations=100, output_stride=8)
    both = training_cost(replace(CONFIG, train=replace(TRAIN, second_phase=then)), 5)
    assert one.work == pytest.approx(one.gmacs * 1e9 * 4 * 100)
    assert both.work > 2 * one.work
    assert both.memory_mib > one.memory_mib


def test_time_grows_with_crops_and_is_told_from_the_most_similar_run(tmp_path: Path) -> None:
    leave_run(tmp_path, "mine", CONFIG, seconds=50.0)
    leave_run(
        tmp_path, "other", replace(CONFIG, model=replace(SMALL, backbone="resnet18")), seconds=9.0
    )
    measured = measured_runs(tmp_path, 5)
    twice = replace(CONFIG, train=replace(TRAIN, iterations=200))
    told = estimated_seconds(twice, training_cost(twice, 5), measured)
    assert told is not None
    assert told == (pytest.approx(100.0), "mine")


def test_runs_that_say_nothing_about_time_are_left_out(tmp_path: Path) -> None:
    leave_run(tmp_path, "stopped", CONFIG, seconds=5.0, finished=False)
    leave_run(tmp_path, "copied", CONFIG, seconds=0.1, twin="mine")
    leave_run(tmp_path, "empty", CONFIG, seconds=5.0)
    (tmp_path / "empty" / "config.yaml").write_text("model: {backbone: gone}")
    assert measured_runs(tmp_path, 5) == []
    assert estimated_seconds(CONFIG, training_cost(CONFIG, 5), []) is None
