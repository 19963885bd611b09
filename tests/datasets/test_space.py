import shutil
from pathlib import Path

import pytest

from pipeline.datasets.space import require_space
from pipeline.errors import UserError


def test_needs_on_one_disk_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1000))
    (tmp_path / "a").mkdir()
    require_space([(tmp_path, 600), (tmp_path / "a", 400)], "camvid")
    with pytest.raises(UserError) as caught:
        require_space([(tmp_path, 600), (tmp_path / "a", 401)], "camvid")
    assert str(caught.value) == (
        f"{tmp_path}: camvid needs 1.0 kB, free are 1.0 kB; make room and run the same command "
        "again"
    )
