"""The plan of a real DVC project with the pipeline's own stages, of which nothing ever ran."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.paths import PROJECT
from pipeline.plan import main
from pipeline.sweeping.outlook import look_ahead


@pytest.fixture
def root(tests_params: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the tests' params.yaml, in which dvc.yaml says what ours says."""
    shutil.copy(PROJECT / "dvc.yaml", tests_params)
    command = [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"]
    subprocess.run(command, cwd=tests_params, check=True)
    monkeypatch.setattr("pipeline.plan.PROJECT", tests_params)
    return tests_params


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if ".dvc" not in path.parts}


def test_what_never_ran_is_new_and_its_cost_is_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    monkeypatch.setattr("sys.argv", ["plan", "--json"])
    main()
    assert files(root) == before  # nothing is written
    values = json.loads(capsys.readouterr().out)
    assert [step["stage"] for step in values["shared"] if step["will"] == "runs"] == [
        *("download", "augment", "compose", "report")
    ]
    v3, v2 = values["variants"]
    assert (v3["variant"], v3["will"], v3["does"]) == ("v3-resnet18-os16", "runs", "trains")
    assert v3["stages"][0]["reasons"] == ["new variant"]
    assert v3["seconds"] is None
    assert 5 < v3["params_m"] < 30
    # At half the output stride the same backbone multiplies more.
    assert v2["gmacs"] > v3["gmacs"] > 0
    assert min(v2["memory_mib"], v3["memory_mib"]) > 100

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["plan", "v3-resnet18-os16"])
    main()
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "new variant" in shown
    assert "v2-resnet18-os8" not in shown


def test_a_training_is_done_once_and_only_for_variants_that_are_there(root: Path) -> None:
    params = root / "params.yaml"
    values = yaml.safe_load(params.read_text())
    values["variants"] = {
        "first": ["model=deeplab_v3"],
        "again": ["model=deeplab_v3", "evaluate.flip=false"],
    }
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    first, again = look_ahead(root).variants
    assert (first.twin, again.twin) == (None, "first")
    assert again.seconds == 0.0
    with pytest.raises(UserError, match=r"agian: no such variant in params\.yaml; did you mean"):
        look_ahead(root, ["agian"])
