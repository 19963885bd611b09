import subprocess
from pathlib import Path

import pytest
from toy_project import dvc, toy_project

from pipeline.sweeping.differences import code_changes, settings_changes
from pipeline.sweeping.repository import Repository, recorded


def test_settings_are_compared_key_by_key() -> None:
    before = {"seed": 0, "train": {"learning_rate": 0.1, "flip": True, "old": 1}}
    now = {
        "defaults": ["/trainer/x@_global_"],
        "seed": 0,
        "train": {"learning_rate": 0.05, "flip": True, "split": "train"},
    }
    assert settings_changes(before, now) == [
        "train.learning_rate 0.1 -> 0.05",
        "train.old is gone",
        "new keys: train.split",
    ]


def test_sections_that_the_last_run_did_not_record_are_not_compared() -> None:
    assert settings_changes({"seed": 0}, {"seed": 0, "model": {"aspp": "v3"}}) == []


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A project whose variant ran with the first commit's code; there is a second commit."""
    root = tmp_path_factory.mktemp("committed") / "project"
    repository = toy_project(root, ["plain"])

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.invalid"]
        subprocess.run(["git", *who, *arguments], cwd=root, check=True)

    git("init", "-q")
    (root / ".gitignore").write_text("/runs\n/build\n")
    git("add", "-A")
    git("commit", "-qm", "first")
    dvc(repository, "repro", "--single-item", "train@plain")
    (root / "code" / "two.py").write_text("two = 22\n")
    git("commit", "-qam", "second")
    (root / "code" / "three.py").write_text("three = 3\n")
    return repository


def test_code_is_compared_with_the_commit_that_dvc_saw(committed: Repository) -> None:
    was = recorded(committed.locked()["train@plain"], "code")
    assert was is not None
    found = code_changes(committed.root, "code", was)
    assert found == ["code/three.py is new", "code/two.py changed"]
    assert committed.status()["train@plain"].deps == {"code": "modified"}


def test_code_that_was_never_committed_is_named_by_its_folder(tmp_path: Path) -> None:
    assert code_changes(tmp_path, "code", "0" * 32 + ".dir") == ["code changed"]
