import os
import shutil
import subprocess
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


def compiled(source: Path, program: Path) -> subprocess.CompletedProcess[str]:
    flags = ["-std=c++17", "-O0", "-g", "-ffp-contract=off", "-Wno-psabi", f"-I{SOURCES}"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [str(COMPILER), *flags, *checks, str(source), "-o", str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    trial = tmp_path / "trial.cpp"
    trial.write_text("int main() { return 0; }\n")
    if compiled(trial, tmp_path / "trial").returncode:
        pytest.skip(f"{COMPILER} has no sanitizers")
    built = compiled(Path(__file__).parent / "sanitize.cpp", tmp_path / "sanitize")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(tmp_path / "sanitize")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 7 * 6 * 2
