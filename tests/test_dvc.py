"""Real `dvc repro`, Hydra sweeps and the other commands, in a temporary copy of the project.

The tests share one copy and run in order: each changes one thing and sees what is redone. Programs
start warm (tests/warm_python.py), but for the first walk from data to figures.
"""

import csv
import json
import shutil
from collections.abc import Iterable
from itertools import product

import pytest
import yaml
from mlflow import MlflowClient
from project_copy import PARAMS, Copy

pytestmark = pytest.mark.dvc

#: What follows a training.
AFTER = ("infer", "tune", "evaluate")


def stages(names: Iterable[str], variants: Iterable[str]) -> set[str]:
    """Stages of variants, in DVC's words."""
    return {f"{stage}@{name}" for stage, name in product(names, variants)}


def test_repro_goes_from_data_to_report(project: Copy) -> None:
    # The first variant's programs as a user starts them; all others start warm.
    ran = Copy(project.root).repro("evaluate@v3")
    assert ran == {"download", "augment", "compose"} | stages(("train", *AFTER), ("v3",))
    assert project.repro() == {"report"} | stages(("train", *AFTER), ("v3plus",))
    page = (project.root / "report" / "index.html").read_text()
    for name in ("v3", "v3plus"):
        metrics = json.loads((project.root / "runs" / name / "metrics.json").read_text())
        assert f"{metrics['miou']:.2f}" in page


def test_repro_again_has_nothing_to_do(project: Copy) -> None:
    assert project.repro() == set()
    assert "up to date" in project.run("dvc", "status")
    assert project.run("git", "status", "--porcelain").split() == ["??", "dvc.lock"]
    project.commit("the first results")


def test_training_and_evaluation_fill_one_row(project: Copy) -> None:
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    rows = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(rows) == {"v3", "v3plus"}
    for name, run in rows.items():
        metrics = json.loads((project.root / "runs" / name / "metrics.json").read_text())
        assert run.data.metrics["test/miou"] == pytest.approx(metrics["miou"])
        assert run.data.metrics["crf/gain"] == pytest.approx(metrics["crf_gain"])
        assert {"val/miou", "test/miou_ms_flip", "test/miou_crf", "cost/gmacs"} <= set(
            run.data.metrics
        )
        assert run.info.status == "FINISHED"


def test_metrics_and_plots_say_something(project: Copy) -> None:
    shown = project.run("dvc", "metrics", "show", "--json")
    assert json.loads(shown)[""]["data"]["runs/v3/metrics.json"]["data"]["miou"] >= 0
    project.run("dvc", "plots", "show", "--out", "plots")
    page = (project.root / "plots" / "index.html").read_text()
    assert "val_miou" in page
    assert "class_iou.png" in page
    shutil.rmtree(project.root / "plots")


def test_a_comment_in_a_preset_retrains_nothing(project: Copy) -> None:
    project.change("conf/model/deeplab_v3.yaml", "aspp: v3", "aspp: v3 # a comment")
    assert project.repro() == {"compose"}


def test_a_changed_preset_retrains_just_its_variants(project: Copy) -> None:
    preset = project.root / "conf" / "model" / "deeplab_v3plus.yaml"
    preset.write_text(preset.read_text() + "low_level_channels: 24\n")
    assert project.repro() == {"compose", "report"} | stages(("train", *AFTER), ("v3plus",))


def test_a_new_variant_trains_alone(project: Copy) -> None:
    new = PARAMS["variants"] | {"os8": [*PARAMS["variants"]["v3"], "model.output_stride=8"]}  # type: ignore[operator,index]
    project.set_params(variants=new)
    assert project.repro() == {"compose", "report"} | stages(("train", *AFTER), ("os8",))


def test_a_changed_crop_draws_new_pictures_of_the_same_data(project: Copy) -> None:
    project.set_params(train=PARAMS["train"] | {"photometric": True})  # type: ignore[operator]
    ran = project.repro("augment")
    assert ran == {"compose", "augment"}
    project.set_params(train=PARAMS["train"])
    assert project.repro("augment") == ran
    assert project.repro() == set()


def test_workers_and_devices_redo_nothing(project: Copy) -> None:
    project.set_params(trainer={"workers": 1})
    assert project.repro() == {"compose"}


def test_a_changed_crf_setting_evaluates_without_training(project: Copy) -> None:
    project.set_params(crf={"iterations": 3})
    names = ("v3", "v3plus", "os8")
    assert project.repro() == {"compose", "report"} | stages(("tune", "evaluate"), names)
    difference = json.loads(project.run("dvc", "metrics", "diff", "--json"))
    assert "miou_crf" in difference["runs/v3/metrics.json"]
    assert "miou" not in difference["runs/v3/metrics.json"]


def test_the_network_is_run_only_for_what_it_decides_and_goes_on_where_it_stopped(
    project: Copy,
) -> None:
    variants = yaml.safe_load((project.root / "params.yaml").read_text())["variants"]
    variants["v3"].append("evaluate.flip=false")
    project.set_params(
        variants=variants,
        evaluate=PARAMS["evaluate"] | {"pictures": 2},  # type: ignore[operator]
    )
    gone, *rest = sorted((project.root / "runs" / "v3plus" / "logits").glob("*.npz"))
    gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in rest}
    # The pictures concern all variants; the logits of v3plus are the same bytes again.
    ran = stages(("evaluate",), variants) | stages(AFTER, ("v3",)) | {"infer@v3plus"}
    assert project.repro() == {"compose", "report"} | ran
    assert gone.is_file()
    assert {path: path.stat().st_mtime_ns for path in rest} == kept


def test_a_changed_template_only_reports(project: Copy) -> None:
    template = project.root / "pipeline" / "reporting" / "templates" / "report.html.j2"
    template.write_text(template.read_text() + "\n<!-- changed -->\n")
    assert project.repro() == {"report"}


def test_an_edited_manifest_is_seen_and_brings_the_data_again(project: Copy) -> None:
    project.change("data/manifests/shapes.yaml", "title:", "title: Edited,")
    assert "data/manifests" in project.run("dvc", "status", "data.dvc")
    ran = project.repro()
    assert "download" in ran
    # The images are the same: nothing is trained.
    assert not {name for name in ran if name.startswith(("train", *AFTER))}


def test_a_wrong_key_ends_repro_in_one_line_and_nothing_is_lost(project: Copy) -> None:
    before = (project.root / "runs" / "v3" / "model.ckpt").stat().st_mtime_ns
    project.set_params(crf={"iteratons": 3})
    output = project.run("dvc", "repro", code=255)
    assert "error: crf.iteratons: no such key; did you mean 'iterations'?" in output
    assert "Traceback" not in output
    assert (project.root / "runs" / "v3" / "model.ckpt").stat().st_mtime_ns == before
    project.set_params(crf={"iterations": 3})


def test_a_hydra_sweep_runs_the_grid_without_dvc(project: Copy) -> None:
    project.run(
        *("python", "-m", "pipeline.train", "-m", "model.backbone=mobilenet_v2"),
        *("model.output_stride=8,16", "model.aspp=no_atrous", "model.aspp_channels=16"),
    )
    folders = sorted(path.parent for path in project.root.glob("multirun/*/*/*/model.ckpt"))
    assert len(folders) == 2
    strides = []
    for folder in folders:
        strides.append(yaml.safe_load((folder / "config.yaml").read_text())["model"])
        with open(folder / "history.csv", newline="") as file:
            assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2"]
    assert [model["output_stride"] for model in strides] == [8, 16]
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    rows = client.search_runs([experiment.experiment_id], "params.`model.aspp` = 'no_atrous'")
    assert sorted(run.data.params["model.output_stride"] for run in rows) == ["16", "8"]


def test_a_mistyped_override_ends_a_run_in_one_line(project: Copy) -> None:
    output = project.run("python", "-m", "pipeline.train", "model.bakbone=resnet18", code=1)
    (line,) = output.strip().splitlines()
    assert line.startswith("error: model.bakbone: no such key; did you mean 'backbone'? valid: ")


def test_a_sweep_over_devices_scores_the_same_on_one_and_two_processes(project: Copy) -> None:
    project.run(
        *("python", "-m", "pipeline.train", "-m", "trainer.devices=1,2", "trainer.accelerator=cpu"),
        *("model.aspp_channels=16", "train.iterations=0", "hydra.sweep.dir=devices"),
    )
    figures = []
    for job in ("0", "1"):
        folder = project.root / "devices" / job
        assert json.loads((folder / "run.json").read_text())["finished"]
        with open(folder / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 1
        figures.append([float(rows[0][name]) for name in ("val_miou", "val_pixel_accuracy")])
    # Two validation images on two processes and on one: the same counts, but for the last digit of
    # a float on which an argmax hangs.
    assert figures[0] == pytest.approx(figures[1], abs=0.05)


def test_two_processes_train(project: Copy) -> None:
    project.run(
        *("python", "-m", "pipeline.train", "trainer.devices=2", "trainer.accelerator=cpu"),
        *("model.aspp_channels=16", "train.batch_size=4", "hydra.run.dir=both"),
    )
    assert json.loads((project.root / "both" / "run.json").read_text())["finished"]
    with open(project.root / "both" / "history.csv", newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2"]
