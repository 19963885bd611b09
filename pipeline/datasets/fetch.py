"""Bring a data set's files to the project: downloaded, verified, unpacked, or drawn.

Everything ends up whole under data/raw/<name>/, or not at all.
"""

import functools
import hashlib
import http.client
import inspect
import json
import shutil
import urllib.request
from pathlib import Path

from rich import filesize
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from pipeline.datasets import outlines, scenery, shapes, textures
from pipeline.datasets.manifest import Archive, Generator, Manifest
from pipeline.datasets.unpack import unpack
from pipeline.errors import UserError
from pipeline.files import whole_folder, write_json
from pipeline.paths import HOME

#: What the folder was made from; it makes a second fetch a matter of one look.
STAMP = ".source.json"
CHUNK = 1 << 20
#: Seconds without an answer after which a server is given up.
TIMEOUT = 30


class _UnavailableError(Exception):
    """One place does not have the archive; the message says why."""


def fetch(manifest: Manifest, root: Path, base: Path = HOME) -> Path:
    """Bring the data set to `root`/<name>; what is there and right is kept.

    A local archive is unpacked from where it lies. A downloaded one is kept once, under
    `root`/.downloads.

    Args:
        manifest: the data set.
        root: the folder of all raw data.
        base: where relative paths of the manifest start.

    Returns:
        The data set's folder.

    Raises:
        UserError: an archive is nowhere to be found or not the expected one, or does not fit on
            the disk; nothing half-written is left.
    """
    folder = root / manifest.name
    stamp = _stamp(manifest)
    if _read_stamp(folder) == stamp:
        print(f"{folder}: already there and right, kept")
        return folder
    print(f"{manifest.title}; licence: {manifest.licence}")
    if manifest.terms:
        print(f"by going on you agree to its terms: {manifest.terms}")
    root.mkdir(parents=True, exist_ok=True)
    if isinstance(manifest.source, Generator):
        with whole_folder(folder) as beside:
            _generate(manifest.source, manifest, beside)
            write_json(beside / STAMP, stamp)
    else:
        _check_space(manifest, manifest.source, root, base)
        archives = [_obtain(archive, manifest, root, base) for archive in manifest.source]
        with whole_folder(folder) as beside:
            for archive in archives:
                unpack(archive, beside)
            write_json(beside / STAMP, stamp)
    print(f"{folder}: fetched")
    return folder


def _stamp(manifest: Manifest) -> dict[str, object]:
    """What decides the raw files: the archives' bytes, or the generator's settings and code."""
    if not isinstance(manifest.source, Generator):
        return {archive.file: archive.sha256 for archive in manifest.source}
    modules = (shapes, scenery, outlines, textures)
    code = "".join(inspect.getsource(module) for module in modules)
    return {
        "generator": manifest.source.name,
        "seed": manifest.source.seed,
        "side": manifest.source.side,
        "sizes": {name: split.size for name, split in manifest.splits.items()},
        "code": hashlib.sha256(code.encode()).hexdigest(),
    }


def _read_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _generate(generator: Generator, manifest: Manifest, folder: Path) -> None:
    sizes = {name: split.size for name, split in manifest.splits.items()}
    shapes.generate(folder, seed=generator.seed, sizes=sizes, side=generator.side)


def _check_space(manifest: Manifest, archives: tuple[Archive, ...], root: Path, base: Path) -> None:
    """Refuse early what cannot fit; images hardly compress, so unpacked they need as much."""
    needed = sum(archive.size for archive in archives)
    for archive in archives:
        places = [_place(url, base) for url in archive.urls if not _is_remote(url)]
        if not any(place.exists() for place in [root / ".downloads" / archive.file, *places]):
            needed += archive.size
    free = shutil.disk_usage(root).free
    if free < needed:
        raise UserError(
            f"{root}: {manifest.name} needs {filesize.decimal(needed)}, "
            f"free are {filesize.decimal(free)}; make room and run the same command again"
        )


def _obtain(archive: Archive, manifest: Manifest, root: Path, base: Path) -> Path:
    """The verified archive on this machine: from a path, kept from before, or downloaded."""
    kept = root / ".downloads" / archive.file
    failures = []
    if kept.exists():
        try:
            return _verified(kept, archive)
        except _UnavailableError:
            kept.unlink()
    for url in archive.urls:
        try:
            if _is_remote(url):
                return _download(url, archive, kept)
            return _verified(_place(url, base), archive)
        except _UnavailableError as error:
            failures.append(str(error))
    homepage = f" ({manifest.homepage})" if manifest.homepage else ""
    raise UserError(
        f"{archive.file}: {'; '.join(failures)}; get the right file{homepage} or add a place that "
        f"has it to source.archives.urls in {manifest.path}"
    )


def _is_remote(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _place(url: str, base: Path) -> Path:
    return (base / Path(url).expanduser()).resolve()


def _bars() -> Progress:
    text = TextColumn("{task.description}")
    return Progress(text, BarColumn(), DownloadColumn(), TransferSpeedColumn())


def _verified(path: Path, archive: Archive) -> Path:
    """The path, once size and sha256 are known to be right."""
    if not path.is_file():
        raise _UnavailableError(f"{path} is not there")
    if path.stat().st_size != archive.size:
        raise _UnavailableError(
            f"{path} has {path.stat().st_size} bytes, {archive.size} are expected"
        )
    digest = hashlib.sha256()
    with _bars() as bars, bars.open(path, "rb", description=f"verify {archive.file}") as file:
        for chunk in iter(functools.partial(file.read, CHUNK), b""):
            digest.update(chunk)
    _compare(str(path), digest.hexdigest(), archive)
    return path


def _compare(place: str, sha256: str, archive: Archive) -> None:
    if sha256 != archive.sha256:
        raise _UnavailableError(
            f"{place} has sha256 {sha256[:12]}..., {archive.sha256[:12]}... is expected"
        )


def _download(url: str, archive: Archive, kept: Path) -> Path:
    """Stream to <kept>.partial, checked while it arrives; renamed when it is the right file."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_name(f"{kept.name}.partial")
    digest, total = hashlib.sha256(), 0
    try:
        response = _open(url)
        with response, open(beside, "wb") as file, _bars() as bars:
            task = bars.add_task(f"download {archive.file}", total=archive.size)
            while chunk := _read(response, url):
                total += len(chunk)
                if total > archive.size:
                    raise _UnavailableError(f"{url} sends more than {archive.size} bytes")
                digest.update(chunk)
                file.write(chunk)
                bars.advance(task, len(chunk))
        if total < archive.size:
            raise _UnavailableError(f"{url} ended after {total} of {archive.size} bytes")
        _compare(url, digest.hexdigest(), archive)
        beside.rename(kept)
    finally:
        beside.unlink(missing_ok=True)
    return kept


def _open(url: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "atrous"})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _UnavailableError(f"{url}: {error}") from error
    return response


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    """A piece of the answer; a broken connection is told apart from a full disk."""
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _UnavailableError(f"{url}: the connection broke: {error}") from error
