from pathlib import Path

import pytest
from small_run import picture, save_run

from pipeline.export import main


def test_the_command_writes_a_file_and_says_how_far_it_is_from_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_run(tmp_path / "run")
    picture().save(tmp_path / "own.png")
    monkeypatch.chdir(tmp_path)
    command = "export --model run/model.ckpt --format torch --size 65 97 --image own.png"
    monkeypatch.setattr("sys.argv", command.split())
    main()
    assert "largest difference" in capsys.readouterr().out
    assert Path("model.pt2").is_file() and Path("model.pt2.json").is_file()
