import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.classification import multiclass_confusion_matrix

from pipeline.errors import UserError
from pipeline.evaluation.confusion import VOID, ConfusionMatrix, read_csv

IntArray = npt.NDArray[np.integer]


@st.composite
def labelled(draw: st.DrawFn) -> tuple[int, IntArray, IntArray]:
    """A number of classes, a truth with void, and a prediction of the same shape."""
    classes = draw(st.integers(1, 12))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    values = st.one_of(st.integers(0, classes - 1), st.just(VOID))
    truth = draw(arrays(np.uint8, shape, elements=values))
    prediction = draw(arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))
    return classes, truth, prediction


def filled(classes: int, truth: IntArray, prediction: IntArray) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(truth, prediction)
    return matrix


def ious_by_hand(classes: int, truth: IntArray, prediction: IntArray) -> list[float]:
    """IoU straight from its definition, pixel by pixel."""
    figures = []
    pairs = [(t, p) for t, p in zip(truth.flat, prediction.flat, strict=True) if t != VOID]
    for label in range(classes):
        both = sum(t == label and p == label for t, p in pairs)
        either = sum(t == label or p == label for t, p in pairs)
        figures.append(100 * both / either if any(t == label for t, _ in pairs) else math.nan)
    return figures


@given(labelled())
def test_counts_and_figures_are_those_of_a_double_loop(
    case: tuple[int, IntArray, IntArray],
) -> None:
    classes, truth, prediction = case
    matrix = filled(*case)
    by_hand = np.zeros((classes, classes), np.int64)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            if truth[row, column] != VOID:
                by_hand[truth[row, column], prediction[row, column]] += 1
    assert np.array_equal(matrix.counts, by_hand)
    ious = ious_by_hand(*case)
    np.testing.assert_allclose(matrix.iou(), ious, rtol=1e-12)
    present = [value for value in ious if not math.isnan(value)]
    if present:
        assert matrix.miou() == pytest.approx(sum(present) / len(present), rel=1e-12)
        right = int(((truth == prediction) & (truth != VOID)).sum())
        valid = int((truth != VOID).sum())
        assert matrix.pixel_accuracy() == pytest.approx(100 * right / valid, rel=1e-12)
        recalls = [
            100 * ((prediction == label) & (truth == label)).sum() / (truth == label).sum()
            for label in range(classes)
            if (truth == label).any()
        ]
        assert matrix.mean_accuracy() == pytest.approx(np.mean(recalls), rel=1e-12)
    else:
        assert math.isnan(matrix.miou())
        assert math.isnan(matrix.pixel_accuracy())
        assert math.isnan(matrix.mean_accuracy())


@given(labelled())
def test_counts_agree_with_torchmetrics(case: tuple[int, IntArray, IntArray]) -> None:
    classes, truth, prediction = case
    if classes == 1:
        return  # torchmetrics knows at least two classes
    theirs = multiclass_confusion_matrix(
        torch.from_numpy(prediction.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=classes,
        ignore_index=VOID,
    )
    assert np.array_equal(filled(*case).counts, theirs.numpy())


@given(labelled(), st.sampled_from([torch.uint8, torch.int32, torch.int64]))
def test_tensors_count_as_arrays_do(
    case: tuple[int, IntArray, IntArray], kind: torch.dtype
) -> None:
    classes, truth, prediction = case
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.from_numpy(truth).to(kind), torch.from_numpy(prediction).to(kind))
    assert matrix == filled(*case)


@given(labelled(), st.integers(0, 8))
def test_parts_add_up_to_the_whole(case: tuple[int, IntArray, IntArray], cut: int) -> None:
    classes, truth, prediction = case
    first = filled(classes, truth[:cut], prediction[:cut])
    second = filled(classes, truth[cut:], prediction[cut:])
    assert first + second == filled(*case)
    first.update(truth[cut:], prediction[cut:])
    assert first == filled(*case)


@given(labelled(), st.randoms(use_true_random=False))
def test_renaming_the_classes_renames_the_figures(
    case: tuple[int, IntArray, IntArray], random: "np.random.Generator"
) -> None:
    classes, truth, prediction = case
    order = list(range(classes))
    random.shuffle(order)
    table = np.full(256, VOID, np.uint8)
    table[:classes] = order
    renamed = filled(classes, table[truth], table[prediction])
    np.testing.assert_array_equal(renamed.iou()[order], filled(*case).iou())


def test_many_classes_do_not_overflow_eight_bits() -> None:
    truth = np.arange(200, dtype=np.uint8)
    assert np.array_equal(filled(200, truth, truth).counts, np.eye(200, dtype=np.int64))


def test_absent_class_is_left_out_but_its_false_pixels_hurt_the_others() -> None:
    matrix = filled(3, np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]))
    iou = matrix.iou()
    assert iou[0] == 50.0
    assert iou[1] == 100.0
    assert math.isnan(iou[2])
    assert matrix.miou() == 75.0


def test_miou_is_over_the_split_and_not_per_image() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
    matrix.update(np.array([1]), np.array([1]))
    assert matrix.miou() == pytest.approx((100 * 3 / 4 + 100 * 1 / 2) / 2)


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["array", "tensor"])
def test_wrong_label_is_named(make: object) -> None:
    assert callable(make)
    matrix = ConfusionMatrix(11)
    with pytest.raises(UserError, match=r"b\.png: value 12 is neither a class \(0\.\.10\)"):
        matrix.update(make([[0, 12, 255]]), make([[0, 1, 2]]), source="b.png")
    with pytest.raises(UserError, match="value -1 "):
        matrix.update(make([-1]), make([0]))
    assert matrix.counts.sum() == 0


def test_wrong_prediction_or_shape_is_refused() -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="prediction 2"):
        matrix.update(np.array([0]), np.array([2]))
    with pytest.raises(ValueError, match="differ"):
        matrix.update(np.zeros((2, 2), np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="cannot be added"):
        matrix + ConfusionMatrix(3)


def test_prediction_under_void_may_be_anything() -> None:
    matrix = filled(2, np.array([255, 0], np.uint8), np.array([255, 0], np.uint8))
    assert matrix.counts.tolist() == [[1, 0], [0, 0]]


@given(labelled())
def test_csv_gives_the_matrix_back(case: tuple[int, IntArray, IntArray]) -> None:
    import tempfile

    names = [f'a "class", {label}' for label in range(case[0])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "confusion.csv"
        filled(*case).write_csv(path, names)
        assert read_csv(path) == (names, filled(*case))


def test_csv_is_truth_by_row(tmp_path: Path) -> None:
    filled(2, np.array([0, 0, 1]), np.array([1, 1, 1])).write_csv(tmp_path / "c.csv", ["a", "b"])
    assert (tmp_path / "c.csv").read_text() == "a,b\n0,2\n0,1\n"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "a,b\n1,2\n3,x\n", "a,b\n1,2\n3\n"])
def test_broken_csv_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"c\.csv"):
        read_csv(path)


def test_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: no such confusion matrix"):
        read_csv(tmp_path / "gone.csv")


def test_reset_starts_again() -> None:
    matrix = filled(2, np.array([0, 1]), np.array([0, 1]))
    matrix.reset()
    assert matrix == ConfusionMatrix(2)
