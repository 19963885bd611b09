import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import paths, report
from pipeline.composition import load_config


def test_the_stage_writes_the_report_of_the_variants_in_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(report, "REPORT", tmp_path / "report")
    report.main()
    names = list(load_config([]).variants)
    text = (tmp_path / "report" / "index.html").read_text()
    assert names and all(name in text for name in names)
    assert capsys.readouterr().out.startswith(f"{len(names)} variants reported: ")


def test_importing_the_stage_does_not_import_matplotlib() -> None:
    code = "import sys, pipeline.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.PROJECT).returncode == 0
