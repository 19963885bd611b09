import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.datasets.datamodule import SegmentationData, ViewSampler
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError

FILL = (0.5, 0.5, 0.5)


def batches(data: Prepared, workers: int, start: int = 0) -> list[tuple[torch.Tensor, ...]]:
    config = TrainConfig(iterations=5, batch_size=4, crop_size=33, photometric=True)
    return list(SegmentationData(data, config, 3, FILL, workers, start).train_dataloader())


def same(one: list[tuple[torch.Tensor, ...]], other: list[tuple[torch.Tensor, ...]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_the_same_seed_gives_the_same_crops_on_any_number_of_workers(shapes: Prepared) -> None:
    alone = batches(shapes, 0)
    assert same(alone, batches(shapes, 1))
    assert same(alone, batches(shapes, 3))


def test_a_resumed_run_sees_what_it_had_not_seen(shapes: Prepared) -> None:
    assert same(batches(shapes, 0)[3:], batches(shapes, 0, start=3))


def test_reading_does_not_disturb_the_random_numbers_of_training(shapes: Prepared) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    next(iter(batches(shapes, 0)))
    assert torch.equal(torch.rand(3), expected)


def test_each_pass_shows_every_image_once() -> None:
    sampler = ViewSampler(images=7, batch_size=7, iterations=3, seed=0)
    passes = [[index for _, index in batch] for batch in sampler]
    assert all(sorted(shown) == list(range(7)) for shown in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_out_the_batches_of_one(processes: int) -> None:
    whole = list(ViewSampler(10, 8, 4, 0))
    parts = [list(ViewSampler(10, 8, 4, 0, rank, processes)) for rank in range(processes)]
    for number, batch in enumerate(whole):
        together = [key for part in parts for key in part[number]]
        assert sorted(together) == batch


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.batch_size=9: must be a multiple of the 2"):
        ViewSampler(10, 9, 1, 0, 0, 2)


def test_overfitting_shows_the_first_images_unaugmented(shapes: Prepared) -> None:
    config = TrainConfig(iterations=2, batch_size=2, crop_size=65, overfit_images=2)
    loader = SegmentationData(shapes, config, 0, FILL, 0).train_dataloader()
    first, second = (batch[0].flatten(1).sum(1).sort().values for batch in loader)
    assert torch.equal(first, second)
