import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig
from pipeline.datasets.datamodule import (
    SegmentationData,
    TrainingViews,
    ViewSampler,
    WholeImages,
    images_of_a_pass,
)
from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.transforms import TrainTransform
from pipeline.errors import UserError

FILL = (0.5, 0.5, 0.5)

Batches = list[tuple[torch.Tensor, ...]]


def batches(data: Prepared, workers: int, start: int = 0, decoded: Path | None = None) -> Batches:
    config = TrainConfig(iterations=5, batch_size=4, crop_size=33, photometric=True)
    loaders = SegmentationData(data, config, 3, FILL, workers, start, decoded)
    return list(loaders.train_dataloader())


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.fixture
def split(shapes: Prepared) -> Prepared:
    """The same images with a split trainaug, of train and val."""
    both = shapes.splits["train"] + shapes.splits["val"]
    return dataclasses.replace(shapes, splits=shapes.splits | {"trainaug": both})


def test_the_same_seed_gives_the_same_crops_on_any_number_of_workers(shapes: Prepared) -> None:
    alone = batches(shapes, 0)
    assert same(alone, batches(shapes, 0))
    assert same(alone, batches(shapes, 1))
    assert same(alone, batches(shapes, 4))


def test_decoded_images_give_the_same_crops(shapes: Prepared, tmp_path: Path) -> None:
    alone = batches(shapes, 0)
    assert same(alone, batches(shapes, 2, decoded=tmp_path))
    assert same(alone, batches(shapes, 0, decoded=tmp_path))


def test_a_resumed_run_sees_what_it_had_not_seen(shapes: Prepared) -> None:
    assert same(batches(shapes, 0)[3:], batches(shapes, 0, start=3))


def test_reading_does_not_disturb_the_random_numbers_of_training(shapes: Prepared) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)
    next(iter(batches(shapes, 0)))
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()


def test_another_seed_and_another_pass_give_other_crops(shapes: Prepared) -> None:
    transform = TrainTransform(33, 0.5, 2.0, 0.25, True, False, FILL)
    views = TrainingViews(shapes, shapes.ids("train"), transform, seed=3)
    images = len(views)
    # The same image in ten passes, and in one pass of another seed.
    shown = [views[(number * images, 0)][0] for number in range(10)]
    assert len({view.numpy().tobytes() for view in shown}) == 10
    other = TrainingViews(shapes, shapes.ids("train"), transform, seed=4)
    assert not torch.equal(shown[0], other[(0, 0)][0])


def test_a_batch_is_whole_numbers_until_it_is_where_the_network_is(shapes: Prepared) -> None:
    loaders = SegmentationData(shapes, TrainConfig(iterations=1, crop_size=33), 0, FILL, 0)
    raw, raw_labels = next(iter(loaders.train_dataloader()))
    assert raw.shape == (16, 33, 33, 3)
    assert raw.dtype == raw_labels.dtype == torch.uint8
    images, labels = loaders.on_after_batch_transfer((raw, raw_labels), 0)
    assert isinstance(images, torch.Tensor)
    assert isinstance(labels, torch.Tensor)
    assert images.shape == (16, 3, 33, 33)
    assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(images[5, 1].numpy(), raw[5, :, :, 1].numpy() / 255, atol=1e-7)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, raw_labels.long())


def test_validation_gives_whole_images_by_name(shapes: Prepared) -> None:
    loaders = SegmentationData(shapes, TrainConfig(), 0, FILL, 0)
    seen = [loaders.on_after_batch_transfer(batch, 0) for batch in loaders.val_dataloader()]
    assert [id for _, _, id in seen] == shapes.ids("val")
    image, label, id = seen[0]
    assert isinstance(image, torch.Tensor)
    assert isinstance(label, torch.Tensor)
    expected = read_image(shapes.image_path(str(id))).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-7)
    np.testing.assert_array_equal(label.numpy(), read_label(shapes.label_path(str(id))))
    assert len(WholeImages(shapes, shapes.ids("val"))) == len(seen)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_is_said_in_one_line(
    shapes: Prepared, tmp_path: Path, workers: int
) -> None:
    broken = dataclasses.replace(shapes, folder=tmp_path)
    shutil.copytree(shapes.folder, tmp_path, dirs_exist_ok=True)
    for id in broken.ids("train"):
        broken.label_path(id).write_bytes(b"no image")
    with pytest.raises(UserError) as raised:
        batches(broken, workers)
    assert re.fullmatch(rf"{tmp_path}/labels/train_\d+\.png: truncated or .*", str(raised.value))


@given(st.integers(1, 30), st.integers(0, 1000))
def test_each_pass_shows_every_image_once(images: int, seed: int) -> None:
    sampler = ViewSampler(images=images, batch_size=images, iterations=3, seed=seed)
    passes = [[index for _, index in batch] for batch in sampler]
    assert all(sorted(shown) == list(range(images)) for shown in passes)
    if images > 8:
        assert passes[0] != passes[1]


@given(st.integers(1, 40), st.sampled_from([1, 2, 3]), st.integers(1, 5), st.integers(0, 3))
def test_processes_share_out_the_batches_of_one(
    images: int, processes: int, each: int, start: int
) -> None:
    size = each * processes
    whole = list(ViewSampler(images, size, 5, 0, start=start))
    parts = [
        list(ViewSampler(images, size, 5, 0, rank, processes, start)) for rank in range(processes)
    ]
    assert all(len(part) == len(whole) for part in parts)
    for number, batch in enumerate(whole):
        together = [key for part in parts for key in part[number]]
        assert sorted(together) == batch
        assert [view for view, _ in batch] == list(
            range((start + number) * size, (start + number + 1) * size)
        )


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.batch_size=9: must be a multiple of the 2"):
        ViewSampler(10, 9, 1, 0, 0, 2)


def test_overfitting_shows_the_first_images_unaugmented(split: Prepared) -> None:
    config = TrainConfig(
        split="trainaug", iterations=2, batch_size=2, crop_size=65, overfit_images=2
    )
    loaders = SegmentationData(split, config, 0, FILL, 0)
    first, second = (
        batch[0].flatten(1).sum(1).sort().values for batch in loaders.train_dataloader()
    )
    assert torch.equal(first, second)
    validated = [id for _, _, id in loaders.val_dataloader()]
    assert validated == split.ids("trainaug")[:2]


def test_the_split_of_the_configuration_is_learned_from(split: Prepared) -> None:
    assert images_of_a_pass(split, TrainConfig()) == split.ids("train")
    assert images_of_a_pass(split, TrainConfig(split="trainaug")) == split.ids("trainaug")
    loaders = SegmentationData(split, TrainConfig(split="trainaug", crop_size=33), 0, FILL, 0)
    assert loaders.training_ids == split.ids("trainaug")


def test_a_split_that_is_not_there_is_refused(split: Prepared) -> None:
    message = (
        r"^train\.split=trainaugg: data set shapes has no such split; did you mean 'trainaug'\? "
        r"valid: test, train, trainaug, val$"
    )
    with pytest.raises(UserError, match=message):
        SegmentationData(split, TrainConfig(split="trainaugg"), 0, FILL, 0)


def test_images_of_repeated_classes_come_twice_in_a_pass(shapes: Prepared) -> None:
    ids = shapes.ids("train")
    names = shapes.classes[1:3]
    showing = [id for id in ids if np.isin(read_label(shapes.label_path(id)), (1, 2)).any()]
    assert 0 < len(showing) < len(ids)
    shown = images_of_a_pass(shapes, TrainConfig(repeat=list(names)))
    assert sorted(shown) == sorted(ids + showing)
    # One pass over them: those twice, the others once.
    sampler = ViewSampler(len(shown), len(shown), 1, seed=0)
    drawn = [shown[index] for _, index in next(iter(sampler))]
    assert sorted(drawn) == sorted(shown)


def test_the_two_views_of_a_repeated_image_differ(shapes: Prepared) -> None:
    config = TrainConfig(repeat=list(shapes.classes), crop_size=33, iterations=1, batch_size=12)
    loaders = SegmentationData(shapes, config, 0, FILL, 0)
    assert len(loaders.training_ids) == 2 * len(shapes.ids("train")) == 12
    images, _ = next(iter(loaders.train_dataloader()))
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_a_repeated_class_that_is_not_there_is_refused(shapes: Prepared) -> None:
    wrong = shapes.classes[1] + "x"
    message = f"^train.repeat: data set shapes has no class {wrong}; did you mean '{wrong[:-1]}'"
    with pytest.raises(UserError, match=message):
        images_of_a_pass(shapes, TrainConfig(repeat=[wrong]))
