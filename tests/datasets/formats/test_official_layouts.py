import dataclasses
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from delivery import HEIGHT, WIDTH, Delivery, sbd_file
from official import DELIVERIES
from PIL import Image

from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import Archive, Checksum, Manifest, load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.paths import HOME, MANIFESTS


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    """A tar, tgz or zip file, or a plain file of its one member."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
    elif path.suffix == ".json":
        path.write_bytes(members[""])
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def here(manifest: Manifest, made: Delivery, folder: Path) -> Manifest:
    """The shipped manifest, with the miniature's archives and sizes; nothing else is changed."""
    assert isinstance(manifest.source, tuple)
    assert {archive.file for archive in manifest.source} == set(made.archives)
    archives = []
    for archive in manifest.source:
        path = folder / archive.file
        write_archive(path, made.archives[archive.file])
        checksum = Checksum("sha256", hashlib.sha256(path.read_bytes()).hexdigest())
        archives.append(Archive(path.name, (str(path),), checksum, unpack=archive.unpack))
    splits = {
        name: dataclasses.replace(split, size=split.size and len(made.splits[name]))
        for name, split in manifest.splits.items()
    }
    return dataclasses.replace(manifest, source=tuple(archives), splits=splits)


def test_every_data_set_of_the_papers_has_a_miniature() -> None:
    own = {"shapes", "voc2012-subset", "camvid-trainval"}
    assert {path.stem for path in MANIFESTS.glob("*.yaml")} == set(DELIVERIES) | own


@pytest.mark.parametrize("name", DELIVERIES)
def test_official_archives_become_a_training_ready_set(tmp_path: Path, name: str) -> None:
    made = DELIVERIES[name]()
    manifest = here(load_manifest(name), made, tmp_path)
    data = prepare(
        manifest, fetch(manifest, tmp_path / "raw", downloads=tmp_path), tmp_path / "prepared"
    )
    assert {split: list(ids) for split, ids in data.splits.items()} == made.splits
    for id, label in made.labels.items():
        with Image.open(data.label_path(id)) as opened:
            np.testing.assert_array_equal(np.asarray(opened), label, err_msg=id)
        with Image.open(data.image_path(id)) as opened:
            assert (opened.mode, opened.size) == ("RGB", (WIDTH, HEIGHT))
        assert list(data.shows[id]) == sorted(set(np.unique(label).tolist()) - {255})
    assert set(data.shows) == {id for ids in made.splits.values() for id in ids}


def test_voc_masks_win_over_those_of_sbd(tmp_path: Path) -> None:
    """2007_000032 has a mask in both; only VOC's has void."""
    made = DELIVERIES["pascal_voc_2012_sbd"]()
    manifest = here(load_manifest("pascal_voc_2012_sbd"), made, tmp_path)
    data = prepare(
        manifest, fetch(manifest, tmp_path / "raw", downloads=tmp_path), tmp_path / "prepared"
    )
    labels = {id: np.asarray(Image.open(data.label_path(id))) for id in data.ids("trainaug")}
    assert {id for id, label in labels.items() if (label == 255).any()} == {
        "2007_000032",
        "2007_000039",
    }


@pytest.mark.real_data
def test_trainaug_of_real_photographs_is_the_same_from_sbd_files(tmp_path: Path) -> None:
    """The subset of VOC, whose masks of SBD are PNGs, delivered as the official archives do it."""
    subset = load_manifest("voc2012-subset")
    assert isinstance(subset.source, tuple)
    if not (HOME / subset.source[0].urls[0]).exists():
        pytest.skip(f"{HOME / subset.source[0].urls[0]} is not there")
    raw = fetch(subset, tmp_path / "raw", downloads=tmp_path)
    kit, sbd = raw / "VOCdevkit" / "VOC2012", raw / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    for path in (kit / "SegmentationClassAug").iterdir():
        mask = sbd_file(np.asarray(Image.open(path)))
        (sbd / "cls" / f"{path.stem}.mat").write_bytes(mask)
    lists = kit / "ImageSets" / "Segmentation"
    known = {name: (lists / f"{name}.txt").read_text().split() for name in ("train", "val")}
    (lists / "trainval.txt").write_text("\n".join(known["train"] + known["val"]))
    added = sorted(path.stem for path in (sbd / "cls").iterdir())
    # As in SBD, images that VOC annotates in train and val stand in the lists too.
    (sbd / "train.txt").write_text("\n".join(added[:60] + known["train"][:50]))
    (sbd / "val.txt").write_text("\n".join(added[60:] + known["val"][:50]))
    manifest = load_manifest("pascal_voc_2012_sbd")
    sizes = {"train": 437, "val": 297, "trainaug": 537}
    splits = {
        name: dataclasses.replace(manifest.splits[name], size=size) for name, size in sizes.items()
    }
    ours = prepare(dataclasses.replace(manifest, splits=splits), raw, tmp_path / "ours")
    theirs = prepare(subset, raw, tmp_path / "theirs")
    assert set(ours.ids("trainaug")) == set(theirs.ids("trainaug"))
    for id in theirs.ids("trainaug"):
        assert ours.label_path(id).read_bytes() == theirs.label_path(id).read_bytes()
    assert len(added) == 100
