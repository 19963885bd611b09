import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import picture, save_run

from pipeline.errors import UserError
from pipeline.paths import PROJECT
from pipeline.predict import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_run(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    picture().save(tmp_path / "photos" / "a.png")
    return tmp_path


def test_from_another_folder_a_broken_file_is_named_and_the_exit_code_says_so(
    folder: Path,
) -> None:
    (folder / "photos" / "broken.png").write_text("no image")
    command = [sys.executable, "-m", "pipeline.predict", "photos", "--model", "run", "--crf"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    first, last = done.stderr.splitlines()
    assert first.startswith(f"{folder / 'photos' / 'broken.png'}: ")
    assert last == "error: 1 of 2 images could not be read; they are named above"
    assert done.returncode == 1
    assert "1 of 2 images, 3 classes: predictions/" in done.stdout
    assert (folder / "predictions" / "labels" / "a.png").is_file()


def test_each_way_of_running_the_network_gives_its_own_labels(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[np.ndarray] = []
    for way in ([], ["--ms"], ["--flip"], ["--window", "65"], ["--probabilities"]):
        out = folder / f"out{len(seen)}"
        given = [str(folder / "photos"), "--model", str(folder / "run"), "--out", str(out), *way]
        monkeypatch.setattr("sys.argv", ["predict", *given])
        main()
        seen.append(np.asarray(Image.open(out / "labels" / "a.png")))
        assert (out / "probabilities").exists() == (way == ["--probabilities"])
    single, *others, kept = seen
    np.testing.assert_array_equal(kept, single)
    assert all((other != single).any() for other in others)


def test_tiles_smaller_than_the_networks_view_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [str(folder / "photos"), "--model", str(folder / "run"), "--window", "8"]
    monkeypatch.setattr("sys.argv", ["predict", *given])
    with pytest.raises(UserError, match="--window 8: at least 33"):
        main()
