import errno
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.entry import run
from pipeline.errors import UserError


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("a.png: no mask; add it"), 1, "error: a.png: no mask; add it\n"),
        (OSError(errno.ENOSPC, "No space left", "runs/x"), 1, "error: runs/x: the disk is full"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_a_mistake_ends_in_one_line(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(raising(error))
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert said.startswith(told)
    assert said.count("\n") == 1


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


def test_a_crash_of_a_library_says_which_line_called_it() -> None:
    code = (
        "import ctypes\n"
        "from pipeline import entry\n"
        "def main():\n"
        "    ctypes.string_at(0)\n"
        "entry.run(main)\n"
    )
    crashed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert crashed.returncode == -signal.SIGSEGV
    assert 'File "<string>", line 4 in main' in crashed.stderr
