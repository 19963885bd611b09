import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import download
from pipeline.datasets.manifest import load_manifest
from pipeline.paths import PROJECT


def write_manifest(folder: Path) -> None:
    """A generated set of six images, called few."""
    content = yaml.safe_load((PROJECT / "data" / "manifests" / "shapes.yaml").read_text())
    for number, name in enumerate(content["splits"], 1):
        content["splits"][name]["size"] = number
    content["name"], content["source"]["side"] = "few", 32
    (folder / "few.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def test_data_set_of_the_configuration_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path)
    monkeypatch.setattr(download, "RAW", tmp_path / "raw")
    monkeypatch.setattr(download, "load_manifest", lambda name: load_manifest(name, tmp_path))
    monkeypatch.setattr(sys, "argv", ["download", "dataset=few"])
    download.main()
    found = {
        split: len(list((tmp_path / "raw/few" / split / "images").iterdir()))
        for split in ("train", "val", "test")
    }
    assert found == {"train": 1, "val": 2, "test": 3}


def test_unknown_data_set_ends_in_one_line() -> None:
    command = [sys.executable, "-m", "pipeline.download", "dataset=camvid-trainvol"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: dataset=camvid-trainvol: no manifest ")
    assert "did you mean 'camvid-trainval'?" in done.stderr
