import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs_tree import PLANS, Tree

from pipeline.datasets.images import read_label
from pipeline.datasets.prepared import load_prepared
from pipeline.reporting.disagreement import (
    disagreement,
    label_map,
    most_disagreed,
    spread_over,
)
from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import load_variants

maps = st.integers(2, 5).flatmap(
    lambda count: st.lists(
        st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=count, max_size=count
    )
)


@given(maps)
def test_it_is_the_mean_over_all_pairs_of_maps(rows: list[list[int]]) -> None:
    stack = [np.array(row, np.uint8).reshape(2, 3) for row in rows]
    truth = np.array([[0, 0, 255], [0, 0, 0]], np.uint8)
    scored = truth != 255
    pairs = [
        (stack[i][scored] != stack[j][scored]).mean() for i in range(len(stack)) for j in range(i)
    ]
    assert disagreement(stack, truth) == pytest.approx(100 * np.mean(pairs))


def test_a_single_map_is_compared_with_the_truth() -> None:
    truth = np.array([[0, 1], [255, 1]], np.uint8)
    assert disagreement([np.array([[0, 0], [3, 1]], np.uint8)], truth) == pytest.approx(100 / 3)
    assert disagreement([truth], np.full((2, 2), 255, np.uint8)) is None


def test_the_most_disagreed_image_comes_first(tree: Tree, study: Study) -> None:
    data = load_prepared(tree.prepared / "shapes")
    found, looked_at = most_disagreed(study.compared, data, 3)
    assert looked_at == 4 and len(found) == 3
    by_hand = {}
    for id in data.ids("test"):
        read = [read_label(label_map(group, "single", id)) for group in study.compared]
        by_hand[id] = disagreement(read, read_label(data.label_path(id)))
    expected = sorted(by_hand, key=lambda id: -(by_hand[id] or 0.0))[:3]
    assert [one.id for one in found] == expected
    assert found[0].percent == by_hand[expected[0]]


def test_an_image_without_all_its_label_maps_is_left_out(tree: Tree) -> None:
    study = study_of(load_variants([plan.name for plan in PLANS[:2]], tree.runs))
    path = label_map(study.compared[0], "single", "scene_2")
    kept = path.read_bytes()
    path.unlink()
    found, looked_at = most_disagreed(study.compared, load_prepared(tree.prepared / "shapes"), 9)
    path.write_bytes(kept)
    assert looked_at == 3 and "scene_2" not in {one.id for one in found}


def test_ids_are_taken_at_equal_distances() -> None:
    ids = [str(number) for number in range(10)]
    assert spread_over(ids, 3) == ["0", "3", "6"]
    assert spread_over(ids, 20) == ids
