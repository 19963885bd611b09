import os
import zipfile
from pathlib import Path

import pytest
import torch

from pipeline.composition import load_config
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.training.rescue import clear, differences, read_whole, state_of, unfinished
from pipeline.training.signature import Identity, identify

SAME = Identity("abc", "data", "code", None)


def checkpoint(path: Path, step: int, signature: str = "abc") -> None:
    values = {"signature": signature, "phase": 0, "global_step": step, "offset": 0}
    torch.save(values | {"weights": torch.rand(1000)}, path)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path / "previous.ckpt", 3)
    checkpoint(tmp_path / "last.ckpt", 4)
    found = state_of(tmp_path, SAME)
    assert found is not None and found.step == 4
    # A single byte of the weights, as a bad disk turns it.
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_whole(tmp_path / "last.ckpt")
    found = state_of(tmp_path, SAME)
    assert found is not None and found.step == 3
    said = capsys.readouterr().out
    assert said == f"{tmp_path / 'last.ckpt'}: damaged; going on from the state before it\n"


def test_a_power_cut_between_two_renames_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint(tmp_path / "last.ckpt", 3)
    os.replace(tmp_path / "last.ckpt", tmp_path / "previous.ckpt")
    checkpoint(tmp_path / "last.ckpt.partial", 4)
    found = state_of(tmp_path, SAME)
    assert found is not None and found.step == 3


def test_half_a_checkpoint_and_one_of_another_signature_are_none(tmp_path: Path) -> None:
    checkpoint(tmp_path / "previous.ckpt", 3, "other")
    checkpoint(tmp_path / "last.ckpt", 4)
    size = (tmp_path / "last.ckpt").stat().st_size
    os.truncate(tmp_path / "last.ckpt", size // 2)
    assert not zipfile.is_zipfile(tmp_path / "last.ckpt")
    assert state_of(tmp_path, SAME, say=False) is None


def test_a_record_of_this_signature_is_gone_on_with_until_it_is_finished(tmp_path: Path) -> None:
    assert unfinished(tmp_path, SAME) is None
    write_json(tmp_path / "run.json", {"signature": "abc", "finished": False, "seconds": 3.0})
    record = unfinished(tmp_path, SAME)
    assert record is not None and record["seconds"] == 3.0
    assert unfinished(tmp_path, SAME._replace(signature="other")) is None
    write_json(tmp_path / "run.json", {"signature": "abc", "finished": True})
    assert unfinished(tmp_path, SAME) is None


def test_everything_that_differs_is_named(tmp_path: Path) -> None:
    before, now = load_config([]), load_config(["train.learning_rate=0.5", "model.rates=[1,2,3]"])
    first, second = identify(before, "data"), identify(now, "data")
    assert first.signature != second.signature
    settings = {key: getattr(before, key) for key in ("dataset", "seed")}
    settings |= {key: vars(getattr(before, key)) for key in ("model", "train")}
    settings["train"] = settings["train"] | {"second_phase": vars(before.train.second_phase)}
    record = {**first._asdict(), "settings": settings}
    write_json(tmp_path / "run.json", record)
    assert differences(tmp_path, before, first) == []
    assert differences(tmp_path, now, second) == [
        "model.rates: None -> [1, 2, 3]",
        "train.learning_rate: 0.05 -> 0.5",
    ]
    other = first._replace(data_digest="x", code_digest="y", weights_digest="z")
    assert differences(tmp_path, before, other) == ["data", "initial weights", "code"]


def test_a_try_out_is_taken_for_nothing_else() -> None:
    tried = identify(load_config(["trainer.fast_dev_run=1"]), "data")
    assert tried.signature != identify(load_config([]), "data").signature
    same = identify(load_config(["trainer.save_minutes=1"]), "data")
    assert same.signature == identify(load_config([]), "data").signature


def test_nothing_of_an_earlier_run_is_left(tmp_path: Path) -> None:
    for name in ("run.json", "last.ckpt", "previous.ckpt", "last.ckpt.partial", "tracking.jsonl"):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []
