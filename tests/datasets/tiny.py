"""A data set of a few small images, and a manifest for it, for the tests of this folder."""

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipeline.datasets.manifest import Manifest, load_manifest

CLASSES = {"background": [0, 0, 0], "square": [200, 0, 0], "stripe": [0, 0, 200]}
SIZES = {"train": 4, "val": 2}
#: Void in the masks, to be turned into 255.
VOID = 9
WIDTH, HEIGHT = 12, 10


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask number `number`: all three classes, and a void corner."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    label[2:5, 1 + number % 3 : 5] = 1
    label[7] = 2
    label[:2, -2:] = VOID
    return image, label


def write_raw(folder: Path, sizes: dict[str, int] | None = None) -> Path:
    """<split>/images/0000.png and <split>/labels/0000.png below `folder`."""
    number = 0
    for split, size in (SIZES if sizes is None else sizes).items():
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "labels").mkdir()
        for index in range(size):
            image, label = scene(number)
            Image.fromarray(image).save(folder / split / "images" / f"{index:04d}.png")
            Image.fromarray(label).save(folder / split / "labels" / f"{index:04d}.png")
            number += 1
    return folder


def describe(**changes: Any) -> dict[str, Any]:
    """The manifest's content, with top-level keys changed; None as a key's value removes it."""
    content: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "licence": "CC0",
        "source": {
            "archives": [{"file": "tiny.tar", "urls": ["x"], "sha256": "0" * 64, "size": 1}]
        },
        "splits": {
            split: {
                "size": size,
                "image": f"{split}/images/{{id}}.png",
                "labels": [f"{split}/labels/{{id}}.png"],
            }
            for split, size in SIZES.items()
        },
        "void": VOID,
        "sample_id": "{split}_{id}",
        "classes": [{"name": name, "color": color} for name, color in CLASSES.items()],
    }
    return content | changes


def write_manifest(folder: Path, content: dict[str, Any] | None = None) -> Manifest:
    """Write <folder>/tiny.yaml and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(describe() if content is None else content, sort_keys=False)
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    return load_manifest("tiny", folder)


def pack(raw: Path, archive: Path) -> Path:
    """A tar file of everything below `raw`."""
    with tarfile.open(archive, "w") as tar:
        for path in sorted(raw.iterdir()):
            tar.add(path, arcname=path.name)
    return archive


def entry(archive: Path, *urls: str, **changes: Any) -> dict[str, Any]:
    """The manifest's entry for an archive, found at `urls` (its own path if there are none)."""
    return {
        "file": archive.name,
        "urls": list(urls) or [str(archive)],
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "size": archive.stat().st_size,
    } | changes
