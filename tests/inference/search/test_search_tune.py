import csv
import dataclasses
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from coarse_maps import STRIDE, coarse_maps

from pipeline.config import Config
from pipeline.datasets.images import read_label
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.inference.logits import Index, run_settings, write_logits
from pipeline.inference.passes import UPRIGHT, Geometry
from pipeline.inference.search import crf_settings, held_apart
from pipeline.inference.search.grid import Point, Trial
from pipeline.inference.search.scoring import Scorer
from pipeline.inference.search.tune import choose, chosen, edges, search, tune_run
from pipeline.paths import PROJECT


def searching(images: int = 2, rounds: int = 2) -> Config:
    """A search that takes a second on small images."""
    config = Config(dataset="shapes", variant="small")
    config.evaluate.split = "train"
    config.trainer.progress_bar = False
    config.crf = dataclasses.replace(config.crf, w1=1.0, sigma_beta=3.0, iterations=5)
    config.search.images, config.search.rounds = images, rounds
    config.search.w1, config.search.sigma_alpha = [3.0, 9.0], [12.0, 36.0]
    config.search.sigma_beta = [4.0, 12.0, 36.0]
    return config


@pytest.fixture
def run(shapes: Prepared, tmp_path: Path) -> Path:
    """A run's folder with stored logits of the split train."""
    folder, maps = tmp_path / "small", coarse_maps(shapes)
    ids = shapes.ids("train")
    for id in ids:
        full = np.pad(maps(id), ((0, 0), (0, 1), (0, 1)), mode="edge")
        logits = np.log(full[:, ::STRIDE, ::STRIDE]).astype(np.float16)
        size = read_label(shapes.label_path(id)).shape
        write_logits(folder / "logits", id, size, {UPRIGHT: logits})
    evaluate = dataclasses.replace(Config().evaluate, split="train", scales=[1.0], flip=False)
    settings, geometry = run_settings(evaluate), Geometry(STRIDE)
    index = Index("", "", "", settings, geometry, len(shapes.classes), ids)
    index.write(folder / "logits")
    return folder


def test_coarse_to_fine_finds_the_best_of_the_whole_fine_grid(shapes: Prepared) -> None:
    config, ids = searching(), shapes.ids("train")
    scorer = Scorer(shapes, ids, coarse_maps(shapes), workers=2)
    config.search.sigma_alpha = [4.0, 12.0, 36.0]
    without, trials = search(config, scorer)
    whole = searching(rounds=1)
    whole.search.w1, whole.search.sigma_alpha = [3.0, 6.0, 9.0], [4.0, 8.0, 12.0, 24.0, 36.0]
    whole.search.sigma_beta = [4.0, 8.0, 12.0, 24.0, 36.0]
    again, every = search(whole, scorer)
    assert chosen(trials).point == chosen(every).point
    assert chosen(trials).miou == chosen(every).miou > trials[0].miou + 1 > without + 2
    assert (again, every[0]) == (without, trials[0])
    assert len(trials) < len(every) / 1.5


def test_a_search_leaves_its_settings_its_trials_and_the_images_it_saw(
    run: Path, shapes: Prepared
) -> None:
    config = searching()
    line = tune_run(config, run, shapes.folder)
    rows = list(csv.DictReader((run / "crf" / "search.csv").open()))
    summary = json.loads((run / "crf" / "search.json").read_text())
    assert held_apart(run) == set(choose(shapes.ids("train"), config))
    assert len(held_apart(run)) == 2
    found = crf_settings(run)
    assert found == dataclasses.replace(config.crf, **summary["found"])
    last = max(int(row["round"]) for row in rows)
    full = [row for row in rows if row["rough"] == "0"]
    best = max(float(row["miou"]) for row in full if int(row["round"]) in (0, last))
    assert summary["miou_found"] == best > summary["miou_given"] > summary["miou_without_crf"]
    assert summary["settings_scored"] == len(rows)
    assert f"{best:.2f} with w1={found.w1:g}" in line
    assert (run / "crf" / "surface.png").stat().st_size > 10_000


def test_a_search_is_the_same_on_any_number_of_threads(run: Path, shapes: Prepared) -> None:
    left = []
    for workers in (1, 2):
        config = searching(images=4, rounds=1)
        config.trainer.workers = workers
        tune_run(config, run, shapes.folder)
        left.append({file.name: file.read_bytes() for file in (run / "crf").iterdir()})
    assert left[0] == left[1]


def test_without_a_search_the_given_settings_are_copied_and_an_old_search_is_gone(
    run: Path, shapes: Prepared
) -> None:
    (run / "crf").mkdir()
    (run / "crf" / "held_apart.txt").write_text("train-000\n")
    config = searching(images=0)
    tune_run(config, run, shapes.folder)
    assert [file.name for file in (run / "crf").iterdir()] == ["settings.yaml"]
    assert yaml.safe_load((run / "crf" / "settings.yaml").read_text()) == dataclasses.asdict(
        config.crf
    )
    assert held_apart(run) == set()


def test_without_a_search_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; import pipeline.tune, pipeline.composition; "
        "from pipeline.inference.search.tune import tune_run; "
        "print(*{'torch', 'mlflow', 'matplotlib', 'numpy', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_stopped_search_leaves_what_was_there(
    run: Path, shapes: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune_run(searching(images=0), run, shapes.folder)
    before = (run / "crf" / "settings.yaml").read_bytes()
    (run / "logits" / f"{choose(shapes.ids('train'), searching())[1]}.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="missing or damaged"):
        tune_run(searching(), run, shapes.folder)
    assert [file.name for file in run.iterdir() if file.name != "logits"] == ["crf"]
    assert (run / "crf" / "settings.yaml").read_bytes() == before


def test_the_images_held_apart_depend_on_the_seed_alone_and_more_hold_the_fewer() -> None:
    ids = [f"2007_{number:06}" for number in range(300)]
    config = Config()
    config.search.images = 100
    first = choose(ids, config)
    assert len(first) == 100
    assert first == sorted(first) == sorted(choose(ids[::-1], config))
    config.search.images = 150
    assert set(first) < set(choose(ids, config))
    config.search.images, config.search.seed = 100, 1
    assert 20 < len(set(first) & set(choose(ids, config))) < 50


def test_a_search_that_would_leave_nothing_to_report_is_refused(
    run: Path, shapes: Prepared
) -> None:
    with pytest.raises(UserError, match=r"search\.images=6: train has 6 images.* at most 5"):
        tune_run(searching(images=6), run, shapes.folder)


def test_the_given_settings_stay_where_nothing_is_better() -> None:
    given = Trial(0, Point(4, 67, 3), 60.0)
    assert (
        chosen([given, Trial(1, Point(3, 30, 3), 61.0), Trial(2, Point(3, 30, 3), 60.0)]) is given
    )
    assert chosen([given, Trial(1, Point(3, 30, 3), 60.5)]).round == 1


def test_what_ends_its_range_is_named() -> None:
    config = Config()
    assert edges(config.search, Point(3, 35, 6)) == ["w1", "sigma_beta"]
    config.search.w1 = [3.0]
    assert edges(config.search, Point(3, 35, 4)) == []


@pytest.mark.parametrize("backend", ["pydensecrf", "fast"])
def test_any_backend_can_be_searched(shapes: Prepared, backend: str) -> None:
    config = searching(rounds=1)
    config.crf.backend = backend
    scorer = Scorer(shapes, shapes.ids("test"), coarse_maps(shapes), workers=1)
    without, trials = search(config, scorer)
    points = list(product(config.search.w1, config.search.sigma_alpha, config.search.sigma_beta))
    first = [trial.point for trial in trials[1:] if trial.rough == (backend == "pydensecrf")]
    assert first == points
    assert chosen(trials).miou > without
