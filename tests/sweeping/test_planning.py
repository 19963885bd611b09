from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.sweeping.differences import md5
from pipeline.sweeping.planning import PERHAPS, RUNS, STAYS, Evidence, Step
from pipeline.sweeping.repository import Changes, Repository, Stage

DATA, CONFIG, MODEL = "data/prepared/shapes", "build/configs/train/os8.yaml", "runs/os8/model.ckpt"
AUGMENT = Stage("augment", None, ("data/raw",), (DATA,))
COMPOSE = Stage("compose", None, ("conf",), ("build/configs",))
TRAIN = Stage("train@os8", "os8", (CONFIG, DATA, "pipeline/x.py"), (MODEL,))
EVALUATE = Stage("evaluate@os8", "os8", (MODEL, DATA), ("runs/os8/metrics.json",))
REPORT = Stage("report", None, ("runs",), ("report",))
STAGES = (AUGMENT, COMPOSE, REPORT, TRAIN, EVALUATE)

SETTINGS = {"seed": 0, "train": {"learning_rate": 0.1}}
BEFORE = yaml.safe_dump(SETTINGS)


def entry(**hashes: str) -> dict[str, Any]:
    return {"deps": [{"path": path, "md5": value} for path, value in hashes.items()]}


LOCKED = {
    "augment": entry(),
    "compose": entry(conf="d.dir"),
    "report": entry(),
    "train@os8": entry(**{CONFIG: md5(BEFORE.encode()), DATA: "a.dir", "pipeline/x.py": "b"}),
    "evaluate@os8": entry(**{MODEL: "c", DATA: "a.dir"}),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that has run with `SETTINGS`."""
    path = tmp_path / CONFIG
    path.parent.mkdir(parents=True)
    path.write_text(BEFORE)
    return tmp_path


def evidence(
    root: Path,
    *,
    now: str = BEFORE,
    changes: dict[str, Changes] | None = None,
    locked: dict[str, dict[str, Any]] = LOCKED,
) -> Evidence:
    return Evidence(Repository(root), STAGES, {CONFIG: now}, changes or {}, locked)


def told(step: Step) -> tuple[str, list[str]]:
    return step.will, list(step.reasons)


def test_what_did_not_change_stays(root: Path) -> None:
    known = evidence(root)
    assert {told(known.step(stage))[0] for stage in STAGES} == {STAYS}


def test_a_changed_setting_trains_and_what_follows_runs_after_it(root: Path) -> None:
    now = yaml.safe_dump({"seed": 0, "train": {"learning_rate": 0.05}})
    known = evidence(root, now=now)
    assert told(known.step(TRAIN)) == (RUNS, ["train.learning_rate 0.1 -> 0.05"])
    assert told(known.step(EVALUATE)) == (RUNS, ["after train"])
    assert known.step(REPORT).will == RUNS


def test_a_configuration_that_comes_out_the_same_changes_nothing(root: Path) -> None:
    # DVC sees the comment in conf/; the resolved file, which compose would write, is the same.
    known = evidence(root, changes={"compose": Changes(deps={"conf": "modified"})})
    assert told(known.step(COMPOSE)) == (RUNS, ["conf changed"])
    assert known.step(TRAIN).will == STAYS


def test_settings_are_told_by_what_the_training_kept_when_the_file_was_composed_anew(
    root: Path,
) -> None:
    now = yaml.safe_dump({"seed": 1, "train": {"learning_rate": 0.1}})
    (root / CONFIG).write_text(now)
    kept = root / "runs/os8/config.yaml"
    kept.parent.mkdir(parents=True)
    kept.write_text(yaml.safe_dump(SETTINGS | {"trainer": {"devices": 1}}))
    outs = [{"path": "runs/os8/config.yaml", "md5": md5(kept.read_bytes())}]
    locked = LOCKED | {"train@os8": LOCKED["train@os8"] | {"outs": outs}}
    assert told(evidence(root, now=now, locked=locked).step(TRAIN)) == (RUNS, ["seed 0 -> 1"])
    kept.write_text("another: run")
    assert told(evidence(root, now=now, locked=locked).step(TRAIN)) == (
        RUNS,
        ["its settings changed"],
    )


def test_a_variant_that_dvc_never_saw_is_new(root: Path) -> None:
    locked = {name: LOCKED[name] for name in ("augment", "compose", "report")}
    known = evidence(root, locked=locked)
    assert told(known.step(TRAIN)) == (RUNS, ["new variant"])


def test_changed_code_is_named(root: Path) -> None:
    known = evidence(root, changes={"train@os8": Changes(deps={"pipeline/x.py": "modified"})})
    assert told(known.step(TRAIN)) == (RUNS, ["pipeline/x.py changed"])


def test_data_made_anew_may_train(root: Path) -> None:
    changes = {
        "augment": Changes(outs={DATA: "deleted"}),
        "train@os8": Changes(deps={DATA: "deleted"}),
    }
    known = evidence(root, changes=changes)
    assert told(known.step(AUGMENT)) == (RUNS, [f"{DATA} deleted"])
    assert told(known.step(TRAIN)) == (PERHAPS, ["if augment gives other data"])
    assert told(known.step(EVALUATE)) == (PERHAPS, ["if train runs"])


def test_data_that_was_changed_by_hand_trains(root: Path) -> None:
    known = evidence(root, changes={"train@os8": Changes(deps={DATA: "modified"})})
    assert told(known.step(TRAIN)) == (RUNS, [f"{DATA} changed"])


def test_missing_results_and_other_commands_are_reasons(root: Path) -> None:
    changes = {"train@os8": Changes(outs={MODEL: "deleted"}, others=["changed command"])}
    known = evidence(root, changes=changes)
    assert told(known.step(TRAIN)) == (RUNS, [f"{MODEL} deleted", "its command changed"])
