import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from wild_server import WildServer, running

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


class Project:
    """A copy of the project in a folder of its own, with a data set that a server has."""

    def __init__(self, root: Path, server: WildServer, content: bytes) -> None:
        self.root, self.server, self.content = root, server, content
        self.raw = root / "data" / "raw" / "far"
        self.partial = root / "data" / "downloads" / "far.tar.partial"
        self.archive = root / "data" / "downloads" / "far.tar"

    def start(self) -> "subprocess.Popen[str]":
        """Start the stage."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DVC")
        }
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.download", "dataset=far"],
            cwd=self.root,
            env=environment | {"no_proxy": "127.0.0.1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job hears no Ctrl-C, nor does what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self) -> None:
        """Run the stage to its end, and see that everything is there."""
        process = self.start()
        output = "\n".join(process.communicate())
        assert process.returncode == 0, output
        assert self.archive.read_bytes() == self.content
        assert sorted(path.name for path in self.archive.parent.iterdir()) == ["far.tar"]
        with tarfile.open(self.archive) as tar:
            names = set(tar.getnames())
        assert {path.name for path in self.raw.iterdir()} == names | {".source.json"}
        assert sorted(path.name for path in self.raw.parent.iterdir()) == ["far"]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(3000):
            info = tarfile.TarInfo(f"{number:04d}.bin")
            info.size = 300
            tar.addfile(info, io.BytesIO(np.random.default_rng(number).bytes(info.size)))
    content = packed.getvalue()
    root = tmp_path / "project"
    for name in ("pipeline", "conf"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, root / name, ignore=ignored)
    shutil.copy(PROJECT / "params.yaml", root)
    (root / "data" / "manifests").mkdir(parents=True)
    server = WildServer()
    with running(server):
        write_manifest(root / "data" / "manifests")
        manifest = root / "data" / "manifests" / "few.yaml"
        described = yaml.safe_load(manifest.read_text())
        described["name"] = "far"
        described["source"] = {
            "archives": [
                {
                    "file": "far.tar",
                    "urls": [server.serve("/far.tar", content)],
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                }
            ]
        }
        manifest.with_name("far.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
        yield Project(root, server, content)


def test_killed_download_goes_on_with_the_rest_only(project: Project) -> None:
    file = project.server.files["/far.tar"]
    file.pause = 0.02
    process = project.start()
    wait_until(
        lambda: project.partial.exists() and project.partial.stat().st_size > 200_000, process
    )
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not project.archive.exists()
    assert not project.raw.exists()
    there = project.partial.stat().st_size
    assert 200_000 < there < len(project.content)
    assert project.partial.read_bytes() == project.content[:there]
    project.server.asked.clear()
    file.pause = 0.0
    project.run()
    (asked,) = project.server.asked
    assert (asked.range, asked.status) == (f"bytes={there}-", 206)
    assert asked.sent == len(project.content) - there


def test_killed_unpacking_is_done_again_from_the_kept_archive(project: Project) -> None:
    process = project.start()
    beside = project.raw.with_name("far.partial")
    wait_until(lambda: beside.exists() and len(list(beside.iterdir())) > 5, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not project.raw.exists()
    project.server.asked.clear()
    project.run()
    assert project.server.asked == []


def test_interrupted_download_ends_soon_in_one_line_and_keeps_what_came(project: Project) -> None:
    project.server.files["/far.tar"].pause = 0.02
    process = project.start()
    wait_until(
        lambda: project.partial.exists() and project.partial.stat().st_size > 200_000, process
    )
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "error: interrupted\n"
    there = project.partial.read_bytes()
    assert there == project.content[: len(there)] != b""
    assert not project.raw.exists()
