"""A real sweep of tiny networks through DVC, in a temporary copy of the project."""

import csv
import json
import re

import pytest
from project_copy import Copy

pytestmark = pytest.mark.dvc

TINY = ["model=deeplab_v3", "model.backbone=mobilenet_v2", "model.aspp=no_atrous"]
VARIANTS = {"wide": [*TINY, "model.aspp_channels=16"], "narrow": [*TINY, "model.aspp_channels=8"]}


def test_a_sweep_leaves_dvc_nothing_to_do_and_the_plan_says_so(project: Copy) -> None:
    train = {"iterations": 1, "batch_size": 2, "crop_size": 65, "learning_rate": 0.1}
    evaluate = {"scales": [1.0], "flip": False, "cost_size": 65, "pictures": 0}
    project.set_params(train=train, evaluate=evaluate, crf={"iterations": 1}, variants=VARIANTS)
    shown = project.run("python", "-m", "pipeline.sweep", "--slots", "2")
    for name in VARIANTS:
        assert re.search(rf"{name}: iteration 1/1, val mIoU \d", shown)
        assert re.search(rf"{name}: done in \d+:\d\d", shown)
    assert project.repro() == set()
    assert (project.root / "report" / "index.html").is_file()

    project.change("params.yaml", "learning_rate: 0.1", "learning_rate: 0.05")
    project.change("pipeline/evaluation/confusion.py", '"""', '"""Counted. ')
    plan = json.loads(project.run("python", "-m", "pipeline.plan", "wide", "--json"))
    (wide,) = plan["variants"]
    reasons = {step["stage"]: step["reasons"] for step in wide["stages"]}
    assert reasons["train@wide"] == ["train.learning_rate 0.1 -> 0.05"]
    assert reasons["infer@wide"] == ["after train"]
    assert "pipeline/evaluation/confusion.py changed" in reasons["evaluate@wide"]
    assert wide["does"] == "trains"
    assert (wide["seconds_from"], wide["resumes_at"]) == ("wide", None)
    assert wide["seconds"] > 0


def test_a_sweep_of_a_variant_that_is_not_there_ends_in_one_line(project: Copy) -> None:
    output = project.run("python", "-m", "pipeline.sweep", "wid", code=1)
    assert output.strip() == (
        "error: wid: no such variant in params.yaml; did you mean 'wide'? valid: narrow, wide"
    )
    output = project.run("python", "-m", "pipeline.sweep", "--slots", "0", code=1)
    assert output.strip() == "error: --slots=0: must be 1 or more"


def test_a_hydra_sweep_through_submitit_trains_each_job_in_its_folder(project: Copy) -> None:
    pytest.importorskip("submitit", reason="pip install '.[slurm]'")
    project.run("dvc", "repro", "-q", "augment")
    project.run(
        *("python", "-m", "pipeline.train", "-m", *TINY, "model.aspp_channels=8", "seed=0,1"),
        *("hydra/launcher=submitit_local", "hydra.sweep.dir=jobs"),
    )
    for job in ("0", "1"):
        assert json.loads((project.root / "jobs" / job / "run.json").read_text())["finished"]


def test_a_hydra_sweep_over_devices_trains_each_job_as_one_process_would(project: Copy) -> None:
    project.run("dvc", "repro", "-q", "augment")
    project.run(
        *("python", "-m", "pipeline.train", "-m", *TINY, "model.aspp_channels=8"),
        *("train.iterations=2", "train.validate_every=2", "train.batch_size=2"),
        *("train.crop_size=65", "model.dropout=0"),
        *("trainer.devices=1,2", "trainer.accelerator=cpu", "hydra.sweep.dir=devices"),
    )
    one, two = (project.root / "devices" / job for job in ("0", "1"))
    for folder in (one, two):
        assert json.loads((folder / "run.json").read_text())["finished"]
    rows = [list(csv.DictReader((each / "history.csv").open())) for each in (one, two)]
    assert [len(each) for each in rows] == [1, 1]
    losses = [float(each[0]["train_loss"]) for each in rows]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
