"""A copy of the project to try things on, with an embedded data set of a few small images."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.paths import PROJECT

#: Pixels a side.
SIDE = 64


def copy_project(root: Path, params: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Copy what git knows or would add, and the native code; nothing that was made by a stage.

    Args:
        root: where to; not there yet.
        params: of its params.yaml.
        sizes: split of `shapes` -> number of images.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
        text=True,
    )
    files = [PROJECT / name for name in listed.stdout.split("\0") if name]
    for file in [*files, *(PROJECT / "pipeline").rglob("*.so")]:
        if file.is_file():
            place = root / file.relative_to(PROJECT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)
    (root / "dvc.lock").unlink(missing_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(dict(params)))
    manifest = root / "data" / "manifests" / "shapes.yaml"
    content = yaml.safe_load(manifest.read_text())
    content["source"]["side"] = SIDE
    for name, size in sizes.items():
        content["splits"][name]["size"] = size
    manifest.write_text(yaml.safe_dump(content, sort_keys=False))
