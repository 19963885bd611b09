import csv
from pathlib import Path

import pytest

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.inference.search import crf_settings, held_apart
from pipeline.inference.search.grid import Point, Trial
from pipeline.inference.search.outcome import write_search, write_settings


def test_evaluation_reads_the_settings_that_were_written(tmp_path: Path) -> None:
    crf = CrfConfig(w1=4.5, sigma_alpha=42.5, backend="fast", normalisation="after")
    write_settings(tmp_path / "crf", crf)
    assert crf_settings(tmp_path) == crf
    assert held_apart(tmp_path) == set()


def test_the_images_that_a_search_saw_are_held_apart(tmp_path: Path) -> None:
    ids = ["2007_000033", "street/with space", "z"]
    write_search(tmp_path / "crf", ids, [], {})
    assert held_apart(tmp_path) == set(ids)


def test_every_trial_is_a_row_of_the_table(tmp_path: Path) -> None:
    trials = [Trial(0, Point(4, 67, 3), 61.25), Trial(1, Point(3.5, 30, 3), 100 / 3, rough=True)]
    write_search(tmp_path, ["a"], trials, {})
    with (tmp_path / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["round"]), float(row["miou"])) for row in rows] == [(0, 61.25), (1, 100 / 3)]
    assert [row["rough"] for row in rows] == ["0", "1"]
    assert {key: float(rows[1][key]) for key in Point._fields} == trials[1].point._asdict()


@pytest.mark.parametrize("content", [None, "", "w1: [", "w1: 4.0\nsigma: 3.0\n", "4.0\n"])
def test_missing_or_damaged_settings_are_one_line_with_the_remedy(
    tmp_path: Path, content: str | None
) -> None:
    run = tmp_path / "v3-resnet18"
    (run / "crf").mkdir(parents=True)
    if content is not None:
        (run / "crf" / "settings.yaml").write_text(content)
    with pytest.raises(UserError, match=r"settings\.yaml: .*`dvc repro tune@v3-resnet18`") as error:
        crf_settings(run)
    assert "\n" not in str(error.value)
