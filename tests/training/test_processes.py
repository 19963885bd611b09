"""The same training on one and on several real processes (gloo, on the CPU)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from together import Job, run, run_on

from pipeline.datasets.prepared import Prepared
from pipeline.training.processes import process_count, sum_over_processes

FROZEN = Job(
    "frozen",
    {
        "freeze_batch_norm": True,
        "class_weights": "median_frequency",
        "ema_decay": 0.9,
        "upsample_logits": False,
    },
)
SYNCED = Job("synced", {"accumulate": 2, "ohem": 0.5})
APART = Job("apart", {"sync_batch_norm": False})
VALIDATED = Job("validated", {"iterations": 0})

Results = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def two(shapes: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("two")
    return run_on(2, [FROZEN, SYNCED, APART, VALIDATED], shapes, folder)


def largest_difference(one: dict[str, Any], other: dict[str, Any], start: dict[str, Any]) -> float:
    """Of all floats of two networks, as a share of how far training has moved them."""
    floats = [name for name, value in one.items() if value.is_floating_point()]
    apart = max((one[name] - other[name]).abs().max().item() for name in floats)
    moved = max((one[name] - start[name]).abs().max().item() for name in floats)
    return apart / moved


@pytest.mark.parametrize("job", [FROZEN, SYNCED], ids=lambda job: job.name)
def test_two_processes_train_as_one_does(job: Job, shapes: Prepared, two: Results) -> None:
    alone = run(job, shapes)
    start = run(Job("start", job.train | {"iterations": 0}), shapes)["state"]
    first, second = (result[job.name] for result in two)
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert largest_difference(alone["state"], first["state"], start) < 1e-3
    assert len(alone["losses"]) == 3
    for losses in (first["losses"], second["losses"]):
        torch.testing.assert_close(torch.stack(losses), torch.stack(alone["losses"]))


def test_batch_norm_of_each_process_alone_is_another_training(
    shapes: Prepared, two: Results
) -> None:
    alone, first = run(APART, shapes), two[0][APART.name]
    assert not torch.allclose(torch.stack(alone["losses"]), torch.stack(first["losses"]), rtol=1e-3)


def test_what_is_validated_is_the_first_processs_network(shapes: Prepared, two: Results) -> None:
    first, second = (result[APART.name] for result in two)
    assert first["counts"].sum() > 0
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_the_confusion_matrix_is_the_same_on_one_two_and_three_processes(
    shapes: Prepared, two: Results, tmp_path: Path
) -> None:
    alone = run(VALIDATED, shapes)["counts"]  # five images: 3 + 2, and 2 + 2 + 1
    three = run_on(3, [VALIDATED], shapes, tmp_path)
    assert alone.sum() > 4 * 64 * 64 / 2
    for result in (*two, *three):
        assert torch.equal(result[VALIDATED.name]["counts"], alone)


def test_one_process_has_nobody_to_ask() -> None:
    values = torch.ones(3)
    assert process_count() == 1
    assert sum_over_processes(values) is values
