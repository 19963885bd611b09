"""The papers' tables as params.yaml, and all of them one after the other.

python -m pipeline.table                          what there is
python -m pipeline.table v3_table5                its rows as variants; then: dvc repro
python -m pipeline.table v3_table5 scale=small    scaled down to the embedded data set
python -m pipeline.table all scale=small --run    every table from start to report
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from pipeline.entry import fail, run
from pipeline.errors import UserError
from pipeline.experiments import first_free, params_of, replace_params, rows, said, tables
from pipeline.files import write_whole
from pipeline.paths import PROJECT, REPORT

PARAMS = PROJECT / "params.yaml"
LOCK = PROJECT / "dvc.lock"
#: What was written last, and the reports of --run.
KEPT = PROJECT / "build" / "tables"
#: Exit codes of a sweep that was told to stop: by itself, and before it listened.
INTERRUPTED = (130, -signal.SIGINT, -signal.SIGTERM)


def main() -> None:
    """Read the command line; list, write or run."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.table", description="The papers' tables as variants of params.yaml"
    )
    parser.add_argument("words", nargs="*", metavar="TABLE | OVERRIDE", help="`all`: every table")
    parser.add_argument("--run", action="store_true", help="run each, keep its report, and go on")
    parser.add_argument(
        "--slots", type=int, help="with --run: trainings at a time, as of pipeline.sweep"
    )
    given = parser.parse_args()
    if given.slots is not None and (given.slots < 1 or not given.run):
        raise UserError(f"--slots={given.slots}: must be 1 or more, and needs --run")
    overrides = [word for word in given.words if "=" in word]
    chosen = [word for word in given.words if "=" not in word]
    chosen = tables() if chosen == ["all"] else chosen
    if not chosen:
        for table in tables():
            print(f"{table:20} {len(rows(table)):3} rows  {said(table)}")
    elif given.run:
        _run(chosen, overrides, ["--slots", str(given.slots)] if given.slots else [])
    else:
        text = params_of(chosen, overrides, PARAMS.read_text(encoding="utf-8"))
        kept = replace_params(PARAMS, text, KEPT / "params.yaml")
        print(f"{PARAMS}: {text.count('experiment=')} variants; to run them: dvc repro")
        if kept:
            print(f"the former is kept: mv {kept.name} {PARAMS.name}")


def _run(chosen: Sequence[str], overrides: Sequence[str], options: Sequence[str]) -> None:
    """A sweep, table by table; reports go to build/tables/, what was there before is put back."""
    former = PARAMS.read_text(encoding="utf-8")
    # Checked and composed before the first hour is spent.
    texts = {table: params_of([table], overrides, former) for table in chosen}
    copy = replace_params(PARAMS, texts[chosen[0]], KEPT / "params.yaml")
    failed = []
    command = [sys.executable, "-m", "pipeline.sweep", *options]
    try:
        for number, (table, text) in enumerate(texts.items(), 1):
            print(f"table {number} of {len(texts)}: {table}, {said(table)}", flush=True)
            started = time.monotonic()
            write_whole(PARAMS, text)
            with _own_lock(table):
                done = subprocess.run(command)
            if done.returncode in INTERRUPTED:
                fail(f"stopped in {table}; what is done stays: give the command again", 130)
            if done.returncode:
                failed.append(table)
            else:
                shutil.rmtree(KEPT / table, ignore_errors=True)
                shutil.copytree(REPORT, KEPT / table)
            state = "failed" if done.returncode else f"{KEPT / table / 'index.html'}"
            print(f"{table}: {time.monotonic() - started:.0f} s, {state}", flush=True)
    finally:
        write_whole(PARAMS, former)
        if copy is not None:
            copy.unlink()
    if failed:
        fail(f"{len(failed)} of {len(chosen)} tables failed: {', '.join(failed)}")


@contextlib.contextmanager
def _own_lock(table: str) -> Iterator[None]:
    """Inside, dvc.lock is the table's own; afterwards it is what it was.

    DVC reads and writes all of it with every stage: with 130 rows in it, a row took half as long
    again.
    """
    own, former = KEPT / f"{table}.lock", KEPT / "dvc.lock"
    if former.exists():
        beside = first_free(LOCK)
        former.replace(beside)
        print(f"{beside}: {LOCK.name} from before a run that was killed", flush=True)
    if LOCK.exists():
        write_whole(former, LOCK.read_bytes())
    if own.exists():
        write_whole(LOCK, own.read_bytes())
    try:
        yield
    finally:
        if LOCK.exists():
            write_whole(own, LOCK.read_bytes())
        if former.exists():
            former.replace(LOCK)
        else:
            LOCK.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
