"""The part of a file that has arrived so far: kept beside its final name until it is whole."""

import fcntl
import functools
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from pipeline.datasets.progress import CHUNK, Bar, Digest
from pipeline.files import write_json

#: Seconds between two looks whether the other run has ended.
LOOK = 0.5


@dataclass(frozen=True)
class Origin:
    """Where a part came from, and by what its server tells one version from the next."""

    url: str
    #: Bytes of the whole file; None: the server did not say.
    size: int | None
    etag: str | None
    #: The answer's Last-Modified.
    modified: str | None


def part_of(target: Path) -> Path:
    """Where the part of a file lies until it is whole."""
    return target.with_name(f"{target.name}.partial")


class Partial:
    """<file>.partial, and <file>.partial.json with its origin; for one run at a time.

    Whatever ends the program, both stay, and the next run goes on from them: each piece is handed
    to the system as it comes, and the checksum of what is there is computed anew from the disk.
    """

    def __init__(self, target: Path, kind: str, bar: Bar) -> None:
        """Open the part of a file, or begin it.

        Args:
            target: the file that it becomes.
            kind: of the checksum: sha256, sha1 or md5.
            bar: of the job that downloads it.
        """
        self.target, self._kind, self._bar = target, kind, bar
        self.path = part_of(target)
        self._note = self.path.with_name(f"{self.path.name}.json")
        self.size = 0

    def __enter__(self) -> "Partial":
        """Wait until no other run works on it, and take the checksum of what is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)
        try:
            self._lock()
            self._digest: Digest = self._new_digest()
            self.size = self.path.stat().st_size
            if self.size:
                self._bar.begin("check what has come of", self.size)
            self._file.seek(0)
            for chunk in iter(functools.partial(self._file.read, CHUNK), b""):
                self._digest.update(chunk)
                self._bar.advance(len(chunk))
            self.origin = self._read_note() if self.size else None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what has come; nothing is left of a part without a byte."""
        if not self.size:
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._file.close()

    def begin(self, origin: Origin) -> None:
        """Throw away what is there, and say where the bytes from here on come from."""
        self.clear()
        self.go_on(origin)

    def clear(self) -> None:
        """Throw away what is there."""
        self._file.truncate(0)
        self._note.unlink(missing_ok=True)
        self.size, self.origin, self._digest = 0, None, self._new_digest()

    def go_on(self, origin: Origin) -> None:
        """Say where the bytes from here on come from."""
        self.origin = origin
        write_json(self._note, asdict(origin))

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        left = memoryview(chunk)
        try:
            while left:  # a nearly full disk takes fewer bytes than asked
                left = left[self._file.write(left) :]
        except OSError as error:
            error.filename = str(self.path)
            raise
        self._digest.update(chunk)
        self.size += len(chunk)

    def checksum(self) -> str:
        """The checksum of what has come, in hexadecimal digits."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Give the file its final name: the only moment at which it appears there."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)

    def _new_digest(self) -> Digest:
        return hashlib.new(self._kind, usedforsecurity=False)

    def _lock(self) -> None:
        """Two DVC experiments may want the same archive; the second waits for the first."""
        self.waited = False
        while not self._try_lock():
            self.waited = True
            self._bar.begin("wait for the other run that fetches", None)
            self._bar.wait(LOOK)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks: some clusters' disks
        # The other run may have given the file that was opened its final name.
        ours = os.fstat(self._file.fileno())
        if self.path.exists() and os.path.samestat(ours, self.path.stat()):
            return True
        self._file.close()
        self._file = open(self.path, "a+b", buffering=0)
        return False

    def _read_note(self) -> Origin | None:
        try:
            return Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
