"""What a run says to MLflow, on the disk first: a line an entry, in the order it was said.

A process may be killed and a server may be away at any moment: what was said waits here, and how
much of it has arrived is noted here too.
"""

import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

#: In a run's folder.
FILE = "tracking.jsonl"


def row_of(folder: Path) -> str | None:
    """The number of a run's row in MLflow; None: it has none yet.

    The journal knows it from the moment on that the row is opened. Where the run was brought from
    another machine there is run.json alone, which says what its training knew at its end.
    """
    if (folder / FILE).is_file() and (row := Journal(folder / FILE).row):
        return row
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    number = record.get("run_id") if isinstance(record, dict) else None
    return number if isinstance(number, str) else None


class Journal:
    """The entries of one row, and how far the store has them.

    Args:
        path: of tracking.jsonl; what an earlier process left there is gone on with. None: nothing
            is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.entries: list[Entry] = []
        #: So many of the entries have arrived.
        self.sent = 0
        #: The row's name for itself, by which it is found if its number was lost on the way.
        self.token = uuid.uuid4().hex
        #: The row's number; None: it is not opened yet.
        self.row: str | None = None
        #: Whether there was an earlier process: what it sent last may have arrived unnoted.
        self.continued = False
        self._points: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        if path is not None and path.exists():
            self._read(path)
        if not self.continued:
            self._append({"token": self.token}, keep=True)

    def _read(self, path: Path) -> None:
        text = path.read_bytes()
        for line in text.splitlines():
            try:
                said: Entry = json.loads(line)
            except ValueError:
                continue  # the end of a line that a power cut left
            self.continued |= "token" in said
            self.token = said.get("token", self.token)
            self.row = said.get("row", self.row)
            self.sent = said.get("sent", self.sent)
            if "do" in said:
                self._remember(said)
        if text and not text.endswith(b"\n"):
            with open(path, "ab") as file:
                file.write(b"\n")

    def _remember(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry["do"] == "points":
            self._points |= {(key, entry["step"]) for key in entry["values"]}

    def add(self, entry: Entry) -> None:
        """Add an entry; when this returns, it is on the disk."""
        with self._lock:
            self._append(entry, keep=True)
            self._remember(entry)

    def has_point(self, key: str, step: int) -> bool:
        """Whether this point of a curve was said before."""
        return (key, step) in self._points

    def opened(self, row: str) -> None:
        """Note the row's number."""
        with self._lock:
            self.row = row
            self._append({"row": row}, keep=True)

    def start_over(self) -> None:
        """The row is gone: everything is for a new one."""
        with self._lock:
            self.row, self.sent = None, 0
            self._append({"row": None, "sent": 0}, keep=True)

    def arrived(self, count: int) -> None:
        """Note that the store has so many more of the entries.

        If the note is lost, they are looked for in the store: it need not be on the disk at once.
        """
        with self._lock:
            self.sent += count
            self._append({"sent": self.sent}, keep=False)

    def waiting(self) -> list[Entry]:
        """The entries that have not arrived."""
        with self._lock:
            return self.entries[self.sent :]

    def _append(self, values: Entry, keep: bool) -> None:
        if self.path is None:
            return
        with open(self.path, "ab") as file:
            file.write(json.dumps(values).encode() + b"\n")
            file.flush()
            if keep:
                os.fsync(file.fileno())
