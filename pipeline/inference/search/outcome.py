"""What the stage `tune` leaves in runs/<variant>/crf/, and how evaluation reads it.

- settings.yaml: the CRF's settings that evaluation uses, searched or as given;
and after a search also
- held_apart.txt: the images that it saw, one id a line: no figure may count them;
- search.csv: every setting that was scored; search.json: the search in short;
- surface.png: mIoU over the settings.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.files import write_json, write_whole
from pipeline.inference.search.grid import Trial

#: The folder inside a run's.
FOLDER = "crf"
SETTINGS, HELD_APART = "settings.yaml", "held_apart.txt"
TRIALS, SUMMARY, SURFACE = "search.csv", "search.json", "surface.png"


def crf_settings(run_folder: Path) -> CrfConfig:
    """The settings of the CRF that a run is evaluated with.

    Raises:
        UserError: the stage `tune` has not run, or its file is damaged.
    """
    path = run_folder / FOLDER / SETTINGS
    remedy = f"run `dvc repro tune@{run_folder.name}`"
    if not path.is_file():
        raise UserError(f"{path}: no such settings of the CRF; {remedy}")
    try:
        return CrfConfig(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not the CRF's settings ({reason}); {remedy}") from error


def held_apart(run_folder: Path) -> set[str]:
    """The ids of the evaluated split that the search saw: to be left out of every figure."""
    path = run_folder / FOLDER / HELD_APART
    return set(path.read_text(encoding="utf-8").split("\n")[:-1]) if path.is_file() else set()


def write_settings(folder: Path, crf: CrfConfig) -> None:
    """Write settings.yaml."""
    text = yaml.safe_dump(dataclasses.asdict(crf), sort_keys=False)
    write_whole(folder / SETTINGS, text)


def write_search(
    folder: Path, apart: Iterable[str], trials: Sequence[Trial], summary: dict[str, Any]
) -> None:
    """Write held_apart.txt, search.csv and search.json."""
    write_whole(folder / HELD_APART, "".join(f"{id}\n" for id in apart))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["round", "w1", "sigma_alpha", "sigma_beta", "miou", "rough"])
    rows = ([trial.round, *trial.point, trial.miou, int(trial.rough)] for trial in trials)
    writer.writerows(rows)
    write_whole(folder / TRIALS, text.getvalue())
    write_json(folder / SUMMARY, summary)
