import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from crf_scenes import scene

import pipeline.inference.dense_crf
from pipeline.inference.dense_crf import DenseCrfSettings, Mode, native_available
from pipeline.inference.dense_crf.field import NativeField

SOURCES = Path(pipeline.inference.dense_crf.__file__).parent / "native"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")

needs_native = pytest.mark.skipif(not native_available(), reason="the native code is not compiled")


@needs_native
@pytest.mark.parametrize("mode", ["lattice", "fast"])
@pytest.mark.parametrize("classes", [2, 3, 6, 25])
def test_all_instruction_sets_give_the_same_to_the_last_bit(classes: int, mode: Mode) -> None:
    from pipeline.inference.dense_crf import _native

    image, maps = scene(0, classes, 71, 83)
    settings = DenseCrfSettings(sigma_beta=13.0, mode=mode, leave_out=0.0)
    names = _native.instruction_sets()
    assert names[-1] == "baseline"
    first, *others = (
        NativeField(image, settings, name).probabilities(maps, settings) for name in names
    )
    for other in others:
        assert np.array_equal(first, other)


@needs_native
def test_buffers_that_do_not_fit_are_refused_before_they_are_read() -> None:
    from pipeline.inference.dense_crf import _native

    image, maps = scene(1, 3, 8, 9)
    labels = np.empty((8, 9), np.uint8)
    field = _native.prepare(image, 8, 9, 20.0, 9.0, 1.0, True, 1, "baseline")
    for height, width, sigma, cell in (
        (9, 8, 0.0, 1),
        (9, 9, 1.0, 1),
        (0, 0, 1.0, 1),
        (8, 9, 1.0, 3),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            _native.prepare(image, height, width, sigma, 9.0, 1.0, True, cell, "baseline")
    with pytest.raises(ValueError, match="no instruction set mmx"):
        _native.prepare(image, 8, 9, 20.0, 9.0, 1.0, True, 1, "mmx")
    for classes, some, out in ((2, maps, labels), (3, maps, labels[1:]), (0, maps, labels)):
        with pytest.raises(ValueError, match="do not fit"):
            _native.infer_labels(field, some, classes, 4.0, 3.0, 1, 0.1, out)
    with pytest.raises(ValueError, match="do not fit"):
        _native.infer_probabilities(field, maps, 3, 4.0, 3.0, 1, 0.1, maps[:2].copy())
    labels.setflags(write=False)
    with pytest.raises((TypeError, BufferError)):
        _native.infer_labels(field, maps, 3, 4.0, 3.0, 1, 0.1, labels)
    with pytest.raises(ValueError, match="PyCapsule"):
        _native.infer_labels(object(), maps, 3, 4.0, 3.0, 1, 0.1, labels.copy())


def compiled(
    source: Path, output: Path, extra: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    flags = ["-std=c++17", "-O0", "-g", "-ffp-contract=off", "-Wno-psabi", f"-I{SOURCES}"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [str(COMPILER), *flags, *checks, *extra, str(source), "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def sanitizers(tmp_path: Path) -> None:
    """Skip where the compiler has none."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    trial = tmp_path / "trial.cpp"
    trial.write_text("int main() { return 0; }\n")
    if compiled(trial, tmp_path / "trial").returncode:
        pytest.skip(f"{COMPILER} has no sanitizers")


@pytest.mark.usefixtures("sanitizers")
def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    built = compiled(Path(__file__).parent / "sanitize.cpp", tmp_path / "sanitize")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(tmp_path / "sanitize")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 7 * 6 * 2


#: A pytest plugin: the sanitized module in the place of the installed one.
PLUGIN = """
import importlib.util, os, sys

name = "pipeline.inference.dense_crf._native"
spec = importlib.util.spec_from_file_location(name, os.environ["SANITIZED"])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])

def pytest_report_header(config):
    from pipeline.inference.dense_crf import field
    return f"sanitized: {field._native.__file__}"
"""


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are preloaded")
@pytest.mark.usefixtures("sanitizers")
def test_the_sanitizers_find_nothing_in_what_python_calls(tmp_path: Path) -> None:
    module = tmp_path / "_native.abi3.so"
    headers = sysconfig.get_path("include")
    built = compiled(SOURCES / "module.cpp", module, ["-shared", "-fPIC", f"-I{headers}"])
    assert built.returncode == 0, built.stderr
    (tmp_path / "sanitized.py").write_text(PLUGIN)
    libraries = [
        subprocess.run(
            [str(COMPILER), f"-print-file-name=lib{name}.so"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip(f"{COMPILER} has no sanitizers to preload")
    folder = Path(__file__).parent
    tests = [str(folder / f"test_dense_crf_{name}.py") for name in ("native", "field")]
    # Those that vary sizes, classes, buffers and threads; the same code takes 20 times as long.
    chosen = "native and (any_size or buffers or one_field or threads or not_finite)"
    options = ["-p", "sanitized", "-p", "no:cacheprovider", "-v", "-k", chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        env={
            **os.environ,
            "SANITIZED": str(module),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(folder)]),
            "LD_PRELOAD": " ".join(libraries),
            # Python itself keeps memory to its end.
            "ASAN_OPTIONS": "detect_leaks=0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"sanitized: {module}" in done.stdout
    assert done.stdout.count(" PASSED") > 50
