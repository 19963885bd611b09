import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.paths import PROJECT
from pipeline.sweeping.repository import Repository, recorded


def answered(root: Path, output: str, errors: str = "", code: int = 0) -> "subprocess.Popen[str]":
    """A process that answers as `dvc status` would."""
    script = f"import sys; print({output!r}); print({errors!r}, file=sys.stderr); sys.exit({code})"
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_projects_own_stages_are_read_for_each_variant() -> None:
    stages = Repository(PROJECT).stages("camvid", ["a", "b"])
    names = [stage.name for stage in stages]
    assert names.index("train@a") < names.index("evaluate@a") < names.index("train@b")
    by_name = {stage.name: stage for stage in stages}
    train, report = by_name["train@b"], by_name["report"]
    assert (train.kind, train.variant) == ("train", "b")
    assert "build/configs/train/b.yaml" in train.deps
    assert {"runs/b/model.ckpt", "runs/b/history.csv"} <= set(train.outs)
    assert train.reads(by_name["augment"])
    assert train.reads(by_name["compose"])
    assert not train.reads(by_name["train@a"])
    assert report.variant is None
    assert report.reads(by_name["evaluate@a"])


def test_what_dvc_finds_changed_is_sorted_out(tmp_path: Path) -> None:
    answer = (
        '{"train@a": [{"changed deps": {"code": "modified", "params.yaml": {"seed": "modified"}}},'
        ' {"changed outs": {"runs/a/model.ckpt": "deleted"}}, "changed command"]}'
    )
    found = Repository(tmp_path).status(answered(tmp_path, answer))["train@a"]
    assert found.deps == {"code": "modified"}
    assert found.params == ["seed"]
    assert found.outs == {"runs/a/model.ckpt": "deleted"}
    assert found.others == ["changed command"]


def test_another_dvc_process_is_named(tmp_path: Path) -> None:
    errors = (
        "ERROR: '/p/runs/a/metrics.json' is busy, it is being blocked by:\n"
        "  (PID 16886): /p/.venv/bin/dvc repro\n\nIf there are no processes with such PIDs, ..."
    )
    with pytest.raises(UserError, match=r"at work \(PID 16886\): /p/.venv/bin/dvc repro; wait"):
        Repository(tmp_path).status(answered(tmp_path, "", errors, 255))


def test_what_dvc_cannot_read_is_said_in_its_words(tmp_path: Path) -> None:
    errors = "ERROR: 'dvc.yaml' is invalid.\nmore"
    with pytest.raises(UserError, match=r"dvc status: 'dvc.yaml' is invalid\."):
        Repository(tmp_path).status(answered(tmp_path, "", errors, 255))


def test_dvc_lock_is_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    assert repository.locked() == {}
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages:\n  a:\n    deps:\n    - {path: x, md5: '1'}\n")
    assert recorded(repository.locked()["a"], "x") == "1"
    assert recorded(repository.locked()["a"], "y") is None
    lock.write_text("<<<<<<< HEAD\nstages: {")
    with pytest.raises(UserError, match=r"dvc.lock: not readable; restore it"):
        repository.locked()
