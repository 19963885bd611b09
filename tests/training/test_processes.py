"""The same training on one and on several real processes (gloo, on the CPU)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from together import Job, normalise, run, run_on, small_network, validated
from torch import nn

from pipeline.datasets.prepared import Prepared
from pipeline.training.processes import process_count, sum_over_processes
from pipeline.training.task import SegmentationTask

FROZEN = Job(
    "frozen",
    {
        "freeze_batch_norm": True,
        "class_weights": "median_frequency",
        "ema_decay": 0.9,
        "upsample_logits": False,
    },
)
SYNCED = Job("synced")
PARTS = Job("parts", {"accumulate": 2, "ohem": 0.5})
APART = Job("apart", {"sync_batch_norm": False})
VALIDATED = Job("validated", {"iterations": 0})

Results = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def two(shapes: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("two")
    return run_on(2, [FROZEN, SYNCED, PARTS, APART, VALIDATED], shapes, folder)


def difference(one: dict[str, Any], other: dict[str, Any], start: dict[str, Any]) -> float:
    """Between two networks' floats, as a share of how far training has moved them."""
    vectors = [
        torch.cat([value.flatten() for value in state.values() if value.is_floating_point()])
        for state in (one, other, start)
    ]
    return float((vectors[0] - vectors[1]).norm() / (vectors[0] - vectors[2]).norm())


@pytest.mark.parametrize("job", [FROZEN, SYNCED, PARTS], ids=lambda job: job.name)
def test_two_processes_train_as_one_does(job: Job, shapes: Prepared, two: Results) -> None:
    alone = run(job, shapes)
    start = run(Job("start", job.train | {"iterations": 0}), shapes)["state"]
    first, second = (result[job.name] for result in two)
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert difference(alone["state"], first["state"], start) < 1e-5
    assert len(alone["losses"]) == 3
    for losses in (first["losses"], second["losses"]):
        torch.testing.assert_close(torch.stack(losses), torch.stack(alone["losses"]))


def test_synced_batch_norm_is_batch_norm_of_all_images(two: Results) -> None:
    wanted = normalise(nn.BatchNorm2d(3, momentum=0.3), slice(None))
    found = [result["batch norm"] for result in two]
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for one in found:
            torch.testing.assert_close(one[name], wanted[name])
    for name in ("result", "images"):
        for rank, one in enumerate(found):
            torch.testing.assert_close(one[name], wanted[name][rank::2])
    for name in ("weight", "bias"):
        torch.testing.assert_close(found[0][name] + found[1][name], wanted[name])


def test_batch_norm_of_each_process_alone_is_another_training(
    shapes: Prepared, two: Results
) -> None:
    alone, first = run(APART, shapes), two[0][APART.name]
    assert not torch.allclose(torch.stack(alone["losses"]), torch.stack(first["losses"]), rtol=1e-3)


def test_what_is_validated_is_the_first_processs_network(shapes: Prepared, two: Results) -> None:
    first = two[0][APART.name]
    task = SegmentationTask(small_network(len(shapes.classes)), APART.config(), len(shapes.classes))
    task.load_state_dict(first["state"])
    assert torch.equal(validated(task, shapes)["counts"], first["counts"])


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
