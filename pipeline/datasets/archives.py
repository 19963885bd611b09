"""Bring a data set's archives to this machine: found or downloaded, and verified."""

import functools
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.http import UnavailableError, download
from pipeline.datasets.manifest import Archive, Checksum, Manifest
from pipeline.datasets.partial import Partial, part_of
from pipeline.datasets.progress import Bar, digest_of, run_together
from pipeline.datasets.space import require_space
from pipeline.datasets.unpack import unpacked_size
from pipeline.errors import UserError

#: Downloads at the same time.
AT_ONCE = 4
#: Of files for which the manifest has none.
USUAL_KIND = "sha256"


@dataclass(frozen=True)
class Verified:
    """An archive that is on this machine and is the right one."""

    archive: Archive
    path: Path
    checksum: Checksum


@dataclass(frozen=True)
class Places:
    """Where archives are looked for and put."""

    #: What is downloaded, or brought by the user, lies here.
    downloads: Path
    #: Where relative paths of a manifest start.
    base: Path

    def kept(self, archive: Archive) -> Path:
        """The archive's place among the downloads."""
        return self.downloads / archive.file

    def local(self, archive: Archive) -> list[Path]:
        """The paths that the manifest names."""
        paths = [Path(url).expanduser() for url in archive.urls if not _is_remote(url)]
        return [(self.base / path).resolve() for path in paths]

    def find(self, archive: Archive) -> Path | None:
        """The file on this machine, verified or not."""
        paths = [self.kept(archive), *self.local(archive)]
        return next((path for path in paths if path.is_file()), None)


def obtain(
    manifest: Manifest, archives: tuple[Archive, ...], places: Places, root: Path
) -> list[Verified]:
    """Find or download the archives, several at once.

    A file that the manifest names by a path stays where it lies. A downloaded one is kept; of a
    download that breaks off the part is kept, and the next call goes on from there.

    Args:
        manifest: the data set.
        archives: its archives.
        places: where they may be.
        root: the folder of all raw data; there has to be room for what is unpacked.

    Raises:
        UserError: an archive is nowhere to be had or not the expected one, the user has to bring
            it, or all does not fit on the disk.
    """
    _check_brought(archives, places)
    _check_space(manifest, archives, places, root)
    jobs = {archive.file: functools.partial(_outcome, archive, places) for archive in archives}
    outcomes = run_together(jobs, AT_ONCE)
    failures = [
        f"{file}: {outcome}" for file, outcome in outcomes.items() if isinstance(outcome, str)
    ]
    if failures:
        homepage = f" ({manifest.homepage})" if manifest.homepage else ""
        raise UserError(
            f"{'; '.join(failures)}; run the same command again, or get the right file{homepage} "
            f"into {places.downloads}, or add a place that has it to source.archives.urls in "
            f"{manifest.path}"
        )
    return [outcome for outcome in outcomes.values() if isinstance(outcome, Verified)]


def checksum_of(path: Path, archive: Archive, bar: Bar) -> Checksum:
    """The checksum of a file, of the archive's kind."""
    kind = archive.checksum.kind if archive.checksum else USUAL_KIND
    return Checksum(kind, digest_of(path, kind, bar))


def _check_brought(archives: tuple[Archive, ...], places: Places) -> None:
    """Say all at once what the user has to bring."""
    missing: dict[str, list[str]] = {}
    for archive in archives:
        if archive.get and not places.kept(archive).is_file():
            missing.setdefault(archive.get, []).append(archive.file)
    if missing:
        places.downloads.mkdir(parents=True, exist_ok=True)
        wanted = "; ".join(f"{', '.join(files)}: {get}" for get, files in missing.items())
        raise UserError(
            f"missing {wanted}; put this into {places.downloads} and run the same command again"
        )


def _check_space(
    manifest: Manifest, archives: tuple[Archive, ...], places: Places, root: Path
) -> None:
    """Refuse early what cannot fit: what is still to come, and all of it unpacked."""
    unpacked = arriving = 0
    for archive in archives:
        path = places.find(archive)
        if path is None and any(map(_is_remote, archive.urls)):
            part = part_of(places.kept(archive))
            there = part.stat().st_size if part.is_file() else 0
            arriving += max(0, (archive.size or 0) - there)
        if archive.unpack:
            unpacked += unpacked_size(path) if path else archive.size or 0
    needs = [(root, unpacked)]
    if arriving:
        places.downloads.mkdir(parents=True, exist_ok=True)
        needs.append((places.downloads, arriving))
    require_space(needs, manifest.name)


def _outcome(archive: Archive, places: Places, bar: Bar) -> Verified | str:
    """The archive, or why it is not to be had: the other archives shall come all the same."""
    try:
        return _bring(archive, places, bar)
    except UnavailableError as error:
        return str(error)


def _bring(archive: Archive, places: Places, bar: Bar) -> Verified:
    """The archive from the first place that has the right one, this machine's before others'."""
    failures = []
    kept, remote = places.kept(archive), [url for url in archive.urls if _is_remote(url)]
    for path in [*([kept] if kept.is_file() else []), *places.local(archive)]:
        try:
            return _verified(path, archive, bar)
        except UnavailableError as error:
            failures.append(str(error))
    if remote:
        with Partial(kept, _kind(archive), bar) as partial:
            if partial.waited and kept.is_file():
                return _verified(kept, archive, bar)
            for url in remote:
                # A download may take hours: what is wrong is said before, not after it.
                if failures:
                    bar.say(f"{archive.file}: {failures[-1]}; trying {url}")
                try:
                    return _download(url, archive, partial, bar)
                except UnavailableError as error:
                    failures.append(str(error))
    raise UnavailableError("; ".join(failures))


def _verified(path: Path, archive: Archive, bar: Bar) -> Verified:
    """A file of this machine, once what is known of its size and checksum is right."""
    if not path.is_file():
        raise UnavailableError(f"{path} is not there")
    size = path.stat().st_size
    if archive.size not in (None, size):
        raise UnavailableError(f"{path} has {size} bytes, {archive.size} are expected")
    checksum = checksum_of(path, archive, bar)
    _compare(str(path), checksum, archive)
    if archive.checksum is None:
        bar.say(f"{path}: {checksum.kind} {checksum.digest} (the manifest has none to compare)")
    return Verified(archive, path, checksum)


def _download(url: str, archive: Archive, partial: Partial, bar: Bar) -> Verified:
    """A file from an address, given its name once it is known to be right."""
    resumed = partial.size > 0
    while True:
        download(url, partial, archive.size, bar)
        checksum = Checksum(_kind(archive), partial.checksum())
        try:
            _compare(url, checksum, archive)
        except UnavailableError:
            partial.clear()
            if not resumed:
                raise
            # What was there before may be at fault, not this place.
            resumed = False
            bar.say(f"{archive.file}: the part that was there is not right; {url} from the start")
        else:
            partial.finish()
            return Verified(archive, partial.target, checksum)


def _compare(place: str, checksum: Checksum, archive: Archive) -> None:
    expected = archive.checksum
    if expected is not None and checksum != expected:
        raise UnavailableError(
            f"{place} has {checksum.kind} {checksum.digest[:12]}..., "
            f"{expected.digest[:12]}... is expected"
        )


def _kind(archive: Archive) -> str:
    return archive.checksum.kind if archive.checksum else USUAL_KIND


def _is_remote(url: str) -> bool:
    return url.startswith(("http://", "https://"))
