"""Bring a data set's files to the project: downloaded, verified, unpacked, linked, or drawn.

Everything ends up whole under data/raw/<name>/, or not at all.
"""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

from pipeline.datasets import outlines, scenery, shapes, textures
from pipeline.datasets.archives import Places, Verified, checksum_of, obtain
from pipeline.datasets.links import link_or_copy
from pipeline.datasets.manifest import Archive, Checksum, Folder, Generator, Manifest
from pipeline.datasets.own_folder import link_files, list_files, list_own_files
from pipeline.datasets.progress import one_bar
from pipeline.datasets.space import require_space
from pipeline.datasets.unpack import unpack, unpacked_size
from pipeline.files import whole_folder, write_json
from pipeline.paths import DOWNLOADS, HOME

#: What the folder was made from; it makes a second fetch a matter of one look. It says nothing of
#: this machine (no times, no paths but the manifest's), so that the data's digest does not either.
STAMP = ".source.json"


def fetch(manifest: Manifest, root: Path, base: Path = HOME, downloads: Path = DOWNLOADS) -> Path:
    """Bring the data set to `root`/<name>; what is there and right is kept.

    Args:
        manifest: the data set.
        root: the folder of all raw data.
        base: where relative paths of the manifest start.
        downloads: where archives lie that were downloaded or that the user brings.

    Returns:
        The data set's folder.

    Raises:
        UserError: an archive is nowhere to be had or not the expected one, the user's folder is
            not there or empty, or it does not fit on the disk; what had arrived of a download is
            kept, nothing else half-written is left.
    """
    folder, places = root / manifest.name, Places(downloads, base)
    if _is_current(manifest, folder, places):
        print(f"{folder}: already there and right, kept")
        return folder
    print(f"{manifest.title}; licence: {manifest.licence}")
    if manifest.terms:
        print(f"by going on you agree to its terms: {manifest.terms}")
    root.mkdir(parents=True, exist_ok=True)
    source = manifest.source
    if isinstance(source, Generator):
        with whole_folder(folder) as beside:
            _generate(source, manifest, beside)
            write_json(beside / STAMP, _drawn_stamp(source, manifest))
    elif isinstance(source, Folder):
        with whole_folder(folder) as beside:
            link_files(_own(source, places), beside)
            write_json(beside / STAMP, {"folder": source.path})
    else:
        archives = obtain(manifest, source, places, root)
        # Once more: only now is it known how large a zip file's content is.
        total = sum(unpacked_size(found.path) for found in archives if found.archive.unpack)
        require_space([(root, total)], f"{manifest.name}, unpacked,")
        with whole_folder(folder) as beside:
            _unpack_all(archives, beside)
            write_json(beside / STAMP, _unpacked_stamp(archives))
    print(f"{folder}: fetched")
    return folder


def _is_current(manifest: Manifest, folder: Path, places: Places) -> bool:
    """Whether the folder was made from what the manifest says, as it is now."""
    source, stamp = manifest.source, _read_stamp(folder)
    if isinstance(source, Generator):
        return stamp == _drawn_stamp(source, manifest)
    if isinstance(source, Folder):
        key = f"source.folder in {manifest.path}"
        own = list_own_files(_own(source, places), folder.parent, key)
        return stamp == {"folder": source.path} and own == list_files(folder)
    try:
        entries = {entry["file"]: entry for entry in stamp["archives"]}
        return list(entries) == [archive.file for archive in source] and all(
            _is_unchanged(archive, entries[archive.file], places) for archive in source
        )
    except (KeyError, TypeError):  # not of this kind
        return False


def _is_unchanged(archive: Archive, entry: dict[str, Any], places: Places) -> bool:
    """Whether an archive is the one that was unpacked; where none is to be seen, it is."""
    if entry["unpack"] != archive.unpack:
        return False
    recorded = Checksum(entry["kind"], entry["digest"])
    if archive.checksum is not None:
        return archive.checksum == recorded
    path = places.find(archive)
    if path is None:
        return True
    with one_bar(archive.file) as bar:
        found = checksum_of(path, archive, bar)
    if found != recorded:
        print(f"{path}: has changed, its {found.kind} was {recorded.digest}")
    return found == recorded


def _unpacked_stamp(archives: list[Verified]) -> dict[str, object]:
    return {
        "archives": [
            {
                "file": found.archive.file,
                "kind": found.checksum.kind,
                "digest": found.checksum.digest,
                "unpack": found.archive.unpack,
            }
            for found in archives
        ]
    }


def _drawn_stamp(generator: Generator, manifest: Manifest) -> dict[str, object]:
    """The generator's settings and code."""
    modules = (shapes, scenery, outlines, textures)
    code = "".join(inspect.getsource(module) for module in modules)
    return {
        "generator": generator.name,
        "seed": generator.seed,
        "side": generator.side,
        "sizes": {name: split.size for name, split in manifest.splits.items()},
        "code": hashlib.sha256(code.encode()).hexdigest(),
    }


def _read_stamp(folder: Path) -> Any:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _own(source: Folder, places: Places) -> Path:
    """The user's folder; not resolved, so that messages name it as the manifest does."""
    return places.base / Path(source.path).expanduser()


def _generate(generator: Generator, manifest: Manifest, folder: Path) -> None:
    sizes = {name: split.size or 0 for name, split in manifest.splits.items()}
    shapes.generate(folder, seed=generator.seed, sizes=sizes, side=generator.side)


def _unpack_all(archives: list[Verified], folder: Path) -> None:
    """Archives in the manifest's order, a later one's files winning; plain files as they are."""
    for found in archives:
        if found.archive.unpack:
            unpack(found.path, folder)
        else:
            link_or_copy(found.path, folder / found.archive.file)
