import pickle
from pathlib import Path

import independent
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from torchmetrics.functional.classification import multiclass_jaccard_index

from pipeline.errors import UserError
from pipeline.evaluation.tally import Tally, read_counts, write_counts
from pipeline.evaluation.trimap import band_mious

Labels = npt.NDArray[np.uint8]
VOID = 255
MODES = ("single", "single_crf")


def scene(rng: np.random.Generator, classes: int) -> tuple[Labels, dict[str, Labels]]:
    """A truth in patches with void and absent classes, and a prediction that is near it."""
    size, patch = rng.integers(1, 6, 2), int(rng.integers(1, 6))
    values = [*rng.choice(classes, rng.integers(1, classes + 1)), VOID]
    truth = np.kron(rng.choice(values, size), np.ones((patch, patch))).astype(np.uint8)
    guesses = {}
    for mode in MODES:
        wrong = rng.random(truth.shape) < rng.random()
        guess = np.where(wrong, rng.integers(0, classes, truth.shape), truth)
        guesses[mode] = np.where(guess == VOID, 0, guess).astype(np.uint8)
    return truth, guesses


def split(seed: int, images: int = 4) -> tuple[int, list[Labels], dict[str, list[Labels]]]:
    """A number of classes, and the truths and predictions of a few images of unlike size."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    scenes = [scene(rng, classes) for _ in range(images)]
    return (
        classes,
        [truth for truth, _ in scenes],
        {mode: [guesses[mode] for _, guesses in scenes] for mode in MODES},
    )


def tallied(
    classes: int, truths: list[Labels], guesses: dict[str, list[Labels]], widths: range
) -> Tally:
    tally = Tally(classes, MODES, trimap_widths=widths)
    for index, truth in enumerate(truths):
        tally.add(truth, {mode: guesses[mode][index] for mode in MODES})
    return tally


SEEDS = st.integers(0, 10**6)
WIDTHS = range(1, 5)


@given(SEEDS)
@settings(deadline=None, max_examples=60)
def test_the_figures_are_those_of_an_independent_evaluation(seed: int) -> None:
    classes, truths, guesses = split(seed)
    tally = tallied(classes, truths, guesses, WIDTHS)
    if not any((truth != VOID).any() for truth in truths):
        return
    for mode in MODES:
        matrix, found = tally.matrices[mode], guesses[mode]
        expected = independent.class_ious(truths, found, classes)
        for mine, theirs in zip(matrix.iou(), expected, strict=True):
            assert np.isnan(mine) if theirs is None else mine == pytest.approx(theirs, abs=1e-9)
        assert matrix.miou() == pytest.approx(independent.miou(truths, found, classes))
        assert matrix.pixel_accuracy() == pytest.approx(independent.pixel_accuracy(truths, found))
        assert matrix.mean_accuracy() == pytest.approx(
            independent.mean_accuracy(truths, found, classes)
        )
        assert matrix.frequency_weighted_iou() == pytest.approx(
            independent.frequency_weighted_iou(truths, found, classes)
        )
        for width, figure in zip(WIDTHS, band_mious(tally.trimap[mode]), strict=True):
            theirs = independent.trimap_miou(truths, found, classes, width)
            assert np.isnan(figure) if theirs is None else figure == pytest.approx(theirs)


@given(SEEDS)
@settings(deadline=None, max_examples=60)
def test_miou_is_that_of_torchmetrics_and_scikit_learn(seed: int) -> None:
    classes, truths, guesses = split(seed)
    truth = np.concatenate([labels.ravel() for labels in truths])
    guess = np.concatenate([labels.ravel() for labels in guesses["single"]])
    scored = truth != VOID
    if not scored.any():
        return
    figure = tallied(classes, truths, guesses, range(0)).matrices["single"].miou()
    occurring = [int(label) for label in np.unique(truth[scored])]
    macro = jaccard_score(
        truth[scored], guess[scored], labels=occurring, average="macro", zero_division=0
    )
    assert figure == pytest.approx(100 * macro)
    by_class = multiclass_jaccard_index(
        torch.from_numpy(guess.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=classes,
        average="none",
        ignore_index=VOID,
    )
    assert figure == pytest.approx(100 * float(by_class[occurring].mean()), abs=1e-4)


@given(SEEDS, st.integers(0, 4), st.integers(0, 4))
@settings(deadline=None, max_examples=40)
def test_the_parts_of_any_split_add_up_to_the_whole(seed: int, first: int, second: int) -> None:
    classes, truths, guesses = split(seed)
    first, second = sorted((first, second))
    parts = [
        tallied(classes, truths[cut], {mode: guesses[mode][cut] for mode in MODES}, WIDTHS)
        for cut in (slice(0, first), slice(first, second), slice(second, None))
    ]
    whole = tallied(classes, truths, guesses, WIDTHS)
    assert parts[0] + parts[1] + parts[2] == whole
    assert parts[0] + (parts[1] + parts[2]) == whole
    parts[0] += parts[1]
    parts[0] += parts[2]
    assert parts[0] == whole
    assert whole.images == len(truths)


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_images_sum_to_the_matrix(seed: int) -> None:
    classes, truths, guesses = split(seed)
    tally = tallied(classes, truths, guesses, WIDTHS)
    for mode in MODES:
        assert np.array_equal(sum(tally.per_image[mode]), tally.matrices[mode].sums())
        # The band only grows, and never past the picture.
        assert (np.diff(tally.trimap[mode], axis=2) >= 0).all()
        assert (tally.trimap[mode][:, :, -1] <= tally.matrices[mode].sums()).all()


def test_it_goes_through_files_and_processes_unchanged(tmp_path: Path) -> None:
    classes, truths, guesses = split(3)
    tally = tallied(classes, truths, guesses, WIDTHS)
    ids = [f"2008_{index}" for index in range(len(truths))]
    write_counts(tmp_path / "counts.npz", tally, ids)
    assert read_counts(tmp_path / "counts.npz") == (ids, tally)
    assert pickle.loads(pickle.dumps(tally)) == tally
    assert Tally.from_arrays(tally.arrays()) == tally
    again = tmp_path / "again.npz"
    write_counts(again, tally, ids)
    assert again.read_bytes() == (tmp_path / "counts.npz").read_bytes()
    with pytest.raises(ValueError, match="1 ids for 4 images"):
        write_counts(again, tally, ["a"])


def test_nothing_counted_is_a_tally_too(tmp_path: Path) -> None:
    empty = Tally(3, MODES)
    write_counts(tmp_path / "counts.npz", empty, [])
    assert read_counts(tmp_path / "counts.npz") == ([], empty)
    empty.add(np.full((4, 4), VOID, np.uint8), {mode: np.zeros((4, 4), np.uint8) for mode in MODES})
    assert empty.images == 1 and not empty.matrices["single"].counts.any()


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_damaged_counts_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "counts.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"counts\.npz: .*dvc repro evaluate"):
        read_counts(path)


def test_what_is_no_class_is_refused_and_nothing_of_the_image_counted() -> None:
    tally = Tally(2, MODES)
    right, wrong = np.zeros((2, 2), np.uint8), np.full((2, 2), 2, np.uint8)
    with pytest.raises(UserError, match=r"a\.png: value 2 is neither a class \(0\.\.1\) nor void"):
        tally.add(wrong, {mode: right for mode in MODES}, source="a.png")
    with pytest.raises(ValueError, match="prediction 2 is no class"):
        tally.add(right, {"single": right, "single_crf": wrong})
    with pytest.raises(ValueError, match="differ"):
        tally.add(right, {"single": right, "single_crf": right[:1]})
    with pytest.raises(ValueError, match="for the modes"):
        tally.add(right, {"single": right})
    with pytest.raises(ValueError, match="cannot be added"):
        tally + Tally(3, MODES)
    with pytest.raises(ValueError, match="rising"):
        Tally(2, MODES, trimap_widths=(3, 1))
    assert tally == Tally(2, MODES)


def test_a_prediction_under_void_may_be_anything() -> None:
    tally = Tally(2, ["single"])
    tally.add(np.array([[VOID, 1]], np.uint8), {"single": np.array([[9, 1]], np.uint8)})
    assert tally.matrices["single"].counts.tolist() == [[0, 0], [0, 1]]
    assert tally.trimap["single"][:, 1, 0].tolist() == [1, 1, 1]
