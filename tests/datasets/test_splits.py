import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.splits import Listing, Shares, deal, listed
from pipeline.datasets.templates import Files

IDS = [f"2008_{number:06}" for number in range(30)]
SOME = st.lists(st.sampled_from(IDS), unique=True)


def write(root: Path, **lists: list[str]) -> None:
    for name, ids in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")


@given(sbd_train=SOME, sbd_val=SOME, train=SOME, val=SOME)
def test_trainaug_is_all_that_is_annotated_but_val(
    tmp_path_factory: pytest.TempPathFactory,
    sbd_train: list[str],
    sbd_val: list[str],
    train: list[str],
    val: list[str],
) -> None:
    """SBD's train and val united with VOC's trainval, without VOC's val, as the papers have it."""
    train = [id for id in train if id not in val]
    root = tmp_path_factory.mktemp("raw")
    write(root, sbd_train=sbd_train, sbd_val=sbd_val, trainval=train + val, val=val)
    rule = Listing(("sbd_train.txt", "sbd_val.txt", "trainval.txt"), ("val.txt",))
    ids = listed(rule, (), root, Files(root, "{id}.jpg"))
    assert len(set(ids)) == len(ids)
    assert set(ids) == (set(sbd_train) | set(sbd_val) | set(train)) - set(val)
    assert set(train) <= set(ids)


def test_shipped_rule_of_trainaug_is_that_one() -> None:
    listing = load_manifest("pascal_voc_2012_sbd").splits["trainaug"].listing
    assert listing is not None
    assert [path.split("/")[0] for path in listing.union] == [
        "benchmark_RELEASE",
        "benchmark_RELEASE",
        "VOCdevkit",
    ]
    assert [path.rsplit("/", 1)[1] for path in listing.union] == [
        "train.txt",
        "val.txt",
        "trainval.txt",
    ]
    assert listing.minus == ("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",)


@given(everything=SOME, away=SOME)
def test_what_is_there_without_a_list_is_a_difference(
    tmp_path_factory: pytest.TempPathFactory, everything: list[str], away: list[str]
) -> None:
    root = tmp_path_factory.mktemp("raw")
    write(root, away=away)
    ids = listed(Listing((), ("away.txt",)), everything, root, Files(root, "{id}.jpg"))
    assert ids == [id for id in everything if id not in away]


NAMES = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=60)


def shares(seed: int, **parts: float) -> Shares:
    return Shares(tuple(parts.items()), seed)


@given(ids=NAMES, seed=st.integers(0, 9), train=st.floats(0.1, 0.8))
def test_every_image_is_dealt_to_one_split(ids: list[str], seed: int, train: float) -> None:
    val = (1 - train) / 2
    dealt = deal(ids, shares(seed, train=train, val=val, test=1 - train - val))
    assert sorted(id for split in dealt.values() for id in split) == sorted(ids)
    assert abs(len(dealt["train"]) - train * len(ids)) <= 1
    assert abs(len(dealt["val"]) - val * len(ids)) <= 1


@given(ids=NAMES, order=st.randoms(), seed=st.integers(0, 9))
def test_dealing_does_not_depend_on_the_order_of_files(
    ids: list[str], order: random.Random, seed: int
) -> None:
    shuffled = list(ids)
    order.shuffle(shuffled)
    parts = shares(seed, train=0.7, val=0.3)
    assert deal(shuffled, parts) == deal(ids, parts)


def test_another_seed_deals_otherwise() -> None:
    dealt = [deal(IDS, shares(seed, train=0.5, val=0.5))["val"] for seed in range(4)]
    assert len({tuple(ids) for ids in dealt}) == 4


def test_dealing_is_the_same_on_every_machine() -> None:
    assert deal(IDS[:8], shares(0, train=0.75, val=0.25))["val"] == ["2008_000002", "2008_000004"]


def test_a_few_more_images_move_few_of_the_others() -> None:
    parts = shares(3, train=0.8, val=0.2)
    many = [f"image{number}" for number in range(400)]
    before, after = deal(many, parts), deal([*many, "one", "two"], parts)
    assert len(set(before["val"]) - set(after["val"])) <= 2
