"""Planted runs, whose figures are known, that the tests of the report share."""

import pytest
from runs_tree import NAMES, Tree, plant, plant_seeds

from pipeline.reporting.groups import Study, study_of
from pipeline.reporting.load import Variant, load_variants


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return plant(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def variants(tree: Tree) -> list[Variant]:
    return load_variants(NAMES, tree.runs)


@pytest.fixture(scope="module")
def study(variants: list[Variant]) -> Study:
    return study_of(variants)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two settings of three seeds each, and two of one."""
    root = tmp_path_factory.mktemp("seeds")
    return study_of(load_variants(plant_seeds(root), root))
