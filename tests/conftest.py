"""One small real data set for all tests: the embedded one, at 64 pixels and a few images."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_copy import Copy, new_copy

import pipeline.entry  # noqa: F401  it says to torch what has to be said before its import
from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import Generator, load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared

SIZES = {"train": 6, "val": 3, "test": 3}

# A core for each test process: said before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of many minutes come first, so that no test process is left alone with one."""
    long = {item.path for item in items if item.get_closest_marker("dvc")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def tests_params(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tests' params.yaml, from which configurations are composed."""
    folder = tmp_path_factory.mktemp("params")
    shutil.copy(Path(__file__).parent / "params.yaml", folder)
    monkeypatch.setattr("pipeline.composition.PROJECT", folder)
    return folder


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a stage says to its own process is not said to the next test's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """data/prepared/shapes in small, made by the stages' own functions."""
    root = tmp_path_factory.mktemp("shapes")
    manifest = load_manifest("shapes")
    splits = {
        name: dataclasses.replace(split, size=SIZES[name])
        for name, split in manifest.splits.items()
    }
    small = dataclasses.replace(manifest, source=Generator("shapes", 0, 64), splits=splits)
    return prepare(small, fetch(small, root / "raw"), root / "prepared" / "shapes")


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' real store lies; a new one takes seconds to set up, so they share it."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def mlflow_store(mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a real store; the project's own is never touched."""
    uri = f"sqlite:///{mlflow_folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("pipeline.tracking.store.HOME", mlflow_folder)
    return uri


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of programs that start warm (tests/warm_python.py), with one thread for layers.

    Its path is short, for it holds a socket.
    """
    folder = tmp_path_factory.mktemp("warm")
    serve = Path(__file__).with_name("warm_python.py")
    with subprocess.Popen(
        [sys.executable, str(serve), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as warm:
        assert warm.stdout is not None
        assert warm.stdout.readline() == "ready\n"
        yield folder
        os.killpg(warm.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Copy:
    """A copy of the project for the tests of a file, which share it."""
    return new_copy(tmp_path_factory.mktemp("copy") / "project", programs)
