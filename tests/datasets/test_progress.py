import hashlib
import threading
import time
from pathlib import Path

import pytest

from pipeline.datasets.progress import Bar, StoppedError, digest_of, one_bar, run_together
from pipeline.errors import UserError


def test_results_come_by_name_in_the_order_asked() -> None:
    def job(bar: Bar, seconds: float) -> float:
        bar.begin("wait for", None)
        bar.wait(seconds)
        return seconds

    jobs = {str(n): (lambda bar, n=n: job(bar, n / 100)) for n in (3, 1, 2)}
    assert list(run_together(jobs, at_once=2).items()) == [("3", 0.03), ("1", 0.01), ("2", 0.02)]


def test_no_more_run_at_once_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def job(bar: Bar) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    run_together({str(number): job for number in range(6)}, at_once=2)
    assert most == 2


@pytest.mark.parametrize("call", ["begin", "advance", "wait"])
def test_first_error_ends_the_others_at_their_next_look(call: str) -> None:
    ended: list[str] = []

    def fails(bar: Bar) -> None:
        time.sleep(0.05)
        raise UserError("no room")

    def long(bar: Bar) -> None:
        try:
            while True:
                {
                    "begin": lambda: bar.begin("copy", 10),
                    "advance": lambda: bar.advance(1),
                    "wait": lambda: bar.wait(60),
                }[call]()
                time.sleep(0.001)
        except StoppedError:
            ended.append(call)

    with pytest.raises(UserError, match="no room"):
        run_together({"long": long, "fails": fails, "never begins": long}, at_once=2)
    assert ended == [call]


def test_no_jobs_are_no_harm() -> None:
    assert run_together({}, at_once=4) == {}


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_digest_of_a_file_of_several_pieces(tmp_path: Path, kind: str) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a.bin").write_bytes(content)
    with one_bar("a.bin") as bar:
        found = digest_of(tmp_path / "a.bin", kind, bar)
    assert found == hashlib.new(kind, content).hexdigest()


def test_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold]https://a.example/" + 200 * "x" + ": answers 404"
    with one_bar("a") as bar:
        bar.begin("download", 10)
        bar.say(line)
    assert line in capsys.readouterr().out
