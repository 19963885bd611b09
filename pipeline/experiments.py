"""The rows of the papers' tables (conf/experiment/TABLE/ROW.yaml) as variants of params.yaml."""

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from pipeline.composition import load_config
from pipeline.errors import UserError, nearest
from pipeline.files import write_whole
from pipeline.paths import CONF

ROWS = CONF / "experiment"
#: Where the rows with COCO start from: it goes first.
PRETRAINING = "coco"


def tables() -> list[str]:
    """The names of all tables, in the order in which they can be run."""
    found = (folder.name for folder in ROWS.iterdir() if any(folder.glob("*.yaml")))
    return sorted(found, key=lambda name: (name != PRETRAINING, _counted(name)))


def rows(table: str) -> list[str]:
    """The names of a table's rows.

    Raises:
        UserError: there is no such table.
    """
    found = sorted((path.stem for path in (ROWS / table).glob("*.yaml")), key=_counted)
    if not found:
        raise UserError(f"{table}: no such table in conf/experiment; {nearest(table, tables())}")
    return found


def _counted(name: str) -> list[tuple[int, str]]:
    """A name's words and numbers, so that table9 stands before table10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def said(table: str) -> str:
    """What a table is about, from the comment on top of conf/paper/table/<table>.yaml."""
    lines = (CONF / "paper" / "table" / f"{table}.yaml").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if not line.startswith("# @"))


def params_of(chosen: Sequence[str], overrides: Sequence[str], former: str) -> str:
    """A params.yaml whose variants are the rows of the chosen tables.

    Args:
        chosen: the tables' names.
        overrides: for every row, such as `scale=small`.
        former: the params.yaml of which seed and trainer are kept.

    Raises:
        UserError: there is no such table, a row cannot be composed, or the tables are of several
            data sets: one params.yaml has one.
    """
    variants = {
        f"{table}-{row}": [f"experiment={table}/{row}", *overrides]
        for table in chosen
        for row in rows(table)
    }
    # Within a table there is one data set.
    data = {table: load_config(variants[f"{table}-{rows(table)[0]}"]).dataset for table in chosen}
    if len(set(data.values())) > 1:
        listed = ", ".join(f"{table}: {dataset}" for table, dataset in data.items())
        raise UserError(f"one params.yaml has one data set ({listed}); write one table at a time")
    known = yaml.safe_load(former) or {}
    values: dict[str, Any] = {"dataset": data[chosen[0]]}
    values |= {key: known[key] for key in ("seed", "trainer") if key in known}
    head = "".join(f"# {said(table)}\n" for table in chosen)
    command = " ".join(["python -m pipeline.table", *chosen, *overrides])
    body = yaml.safe_dump(values, sort_keys=False)
    named = (f"  {name}: {_on_one_line(words)}\n" for name, words in variants.items())
    return f"{head}# Written by: {command}\n{body}variants:\n{''.join(named)}"


def _on_one_line(words: Sequence[str]) -> str:
    return yaml.safe_dump(list(words), default_flow_style=True, width=10_000).strip()


def replace_params(params: Path, text: str, written: Path) -> Path | None:
    """Write params.yaml; the former one is kept beside, unless it was written like this.

    Args:
        params: the file.
        text: its new content.
        written: a copy of what was written here last; a params.yaml equal to it holds nothing that
            cannot be written again.

    Returns:
        Where the former one is kept: the first free of params.yaml.1, params.yaml.2, ...
    """
    former = params.read_text(encoding="utf-8")
    ours = written.read_text(encoding="utf-8") if written.is_file() else None
    kept = None if former in (ours, text) else first_free(params)
    if kept is not None:
        write_whole(kept, former)
    write_whole(written, text)
    write_whole(params, text)
    return kept


def first_free(path: Path) -> Path:
    """PATH.1, PATH.2, ...: the first that is not there."""
    names = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(name for name in names if not name.exists())
