import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from wild_server import Proxy, WildServer, running

from pipeline.datasets import http
from pipeline.datasets.http import UnavailableError, download
from pipeline.datasets.partial import Partial
from pipeline.datasets.progress import one_bar
from pipeline.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SIZE = len(CONTENT)
CUT = 100_000


@pytest.fixture
def server() -> Iterator[WildServer]:
    server = WildServer()
    with running(server):
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., bytes]:
    """Download as another run of the program would; the bytes of the part that is there then."""

    def run(url: str, size: int | None = SIZE) -> bytes:
        with one_bar("a.tar") as bar, Partial(tmp_path / "a.tar", "sha256", bar) as partial:
            download(url, partial, size, bar)
            content = partial.path.read_bytes()
            assert partial.size == len(content)
            assert partial.checksum() == hashlib.sha256(content).hexdigest()
        return content

    return run


def cut(server: WildServer, get: Callable[..., bytes], path: str = "/a.tar") -> None:
    """Leave a part of CUT bytes, as a run that was broken off does."""
    server.files[path].cuts = [CUT]
    tries, http.TRIES = http.TRIES, 1
    with pytest.raises(UnavailableError):
        get(f"{server.url}{path}", None)
    http.TRIES = tries
    server.asked.clear()


def asked(server: WildServer) -> list[tuple[str | None, int]]:
    """The range and the answer's status, for each request."""
    return [(each.range, each.status) for each in server.asked]


def test_file_comes_whole(server: WildServer, get: Callable[..., bytes]) -> None:
    assert get(server.serve("/a.tar", CONTENT)) == CONTENT
    assert asked(server) == [(None, 200)]


def test_broken_connection_goes_on_where_it_broke(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    assert get(server.serve("/a.tar", CONTENT, cuts=[CUT, CUT])) == CONTENT
    assert asked(server) == [
        (None, 200),
        (f"bytes={CUT}-", 206),
        (f"bytes={2 * CUT}-", 206),
    ]
    assert [each.if_range for each in server.asked] == [None, '"one"', '"one"']


def test_next_run_asks_for_the_rest_only(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    assert get(url) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 206)]
    assert server.asked[0].sent == SIZE - CUT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_the_date_is_the_condition(
    server: WildServer, get: Callable[..., bytes], etag: str | None
) -> None:
    url = server.serve("/a.tar", CONTENT, etag=etag)
    cut(server, get)
    assert get(url) == CONTENT
    assert server.asked[0].if_range == "Wed, 01 Jan 2020 00:00:00 GMT"
    assert server.asked[0].status == 206


def test_without_any_condition_the_size_decides(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT, etag=None, modified=None)
    cut(server, get)
    assert get(url) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 206)]
    assert server.asked[0].if_range is None


@pytest.mark.parametrize("conditions", [True, False], ids=["says so", "goes on all the same"])
def test_file_that_changed_on_the_server_is_begun_anew(
    server: WildServer, get: Callable[..., bytes], conditions: bool
) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    server.serve("/a.tar", OTHER, etag='"two"', conditions=conditions)
    assert get(url) == OTHER


def test_changed_date_alone_begins_anew(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT, etag=None)
    cut(server, get)
    date = "Thu, 02 Jan 2020 00:00:00 GMT"
    server.serve("/a.tar", OTHER, etag=None, modified=date, conditions=False)
    assert get(url) == OTHER


def test_server_that_refuses_ranges_sends_all_again(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT, ranges=False)
    cut(server, get)
    assert get(url) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 200)]


@pytest.mark.parametrize(
    "lie", [f"bytes 0-{SIZE - 1}/{SIZE}", "bytes 5-9/*", "nonsense", f"bytes {CUT}-*/{SIZE}"]
)
def test_part_that_does_not_start_where_it_should_is_not_taken(
    server: WildServer, get: Callable[..., bytes], lie: str
) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    server.files["/a.tar"].content_range = lie
    assert get(url) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 206), (None, 200)]


def test_break_after_such_a_part_is_told_by_its_own_reason(
    server: WildServer, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    server.serve("/a.tar", CONTENT, content_range="nonsense", cuts=[SIZE, CUT])
    monkeypatch.setattr(http, "TRIES", 1)
    with pytest.raises(UnavailableError, match=rf"IncompleteRead\({CUT} bytes read"):
        get(url)


def test_mirror_goes_on_with_a_part_from_elsewhere(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    server.serve("/a.tar", CONTENT)
    cut(server, get)
    assert get(server.serve("/mirror/a.tar", CONTENT, etag='"its own"')) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 206)]
    # An ETag means nothing on another server.
    assert server.asked[0].if_range is None


def test_mirror_of_another_size_is_left_and_the_part_kept(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path
) -> None:
    server.serve("/a.tar", CONTENT)
    cut(server, get)
    with pytest.raises(UnavailableError, match=f"has {SIZE + 1} bytes, {SIZE} are expected"):
        get(server.serve("/mirror/a.tar", CONTENT + b"x"))
    assert (tmp_path / "a.tar.partial").read_bytes() == CONTENT[:CUT]


def test_where_no_size_is_known_a_mirror_of_another_size_begins_anew(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    server.serve("/a.tar", CONTENT)
    cut(server, get)
    assert get(server.serve("/mirror/a.tar", OTHER + b"x"), None) == OTHER + b"x"
    assert asked(server) == [(f"bytes={CUT}-", 206), (None, 200)]


def test_part_that_is_whole_asks_for_nothing(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT)
    get(url)
    server.asked.clear()
    assert get(url) == CONTENT
    assert get(url, None) == CONTENT
    assert server.asked == []


def test_part_longer_than_the_file_begins_anew(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.tar.partial").write_bytes(CONTENT + b"x")
    assert get(server.serve("/a.tar", CONTENT)) == CONTENT


def test_part_of_unknown_origin_is_used_where_the_size_is_known(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.tar.partial").write_bytes(CONTENT[:CUT])
    (tmp_path / "a.tar.partial.json").write_text("damaged")
    url = server.serve("/a.tar", CONTENT)
    assert get(url) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 206)]


def test_part_of_unknown_origin_and_size_begins_anew(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.tar.partial").write_bytes(OTHER[:CUT])
    assert get(server.serve("/a.tar", CONTENT), None) == CONTENT
    assert asked(server) == [(None, 200)]


def test_file_that_shrank_below_the_part_begins_anew(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT, etag=None, modified=None, length=False)
    server.files["/a.tar"].cuts = [CUT]
    assert len(get(url, None)) == CUT  # nobody can tell that this was not all
    server.serve("/a.tar", OTHER[:50_000], etag=None, modified=None, length=False)
    assert get(url, None) == OTHER[:50_000]
    assert [status for _, status in asked(server)] == [200, 416, 200]


def test_busy_server_is_asked_again(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT, statuses=[503, 429], headers={"Retry-After": "0"})
    assert get(url) == CONTENT
    assert [each.status for each in server.asked] == [503, 429, 200]


def test_server_that_stays_busy_is_given_up(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT, statuses=[503] * 9)
    with pytest.raises(UnavailableError, match=f"^{url}: answers 503 Service Unavailable$"):
        get(url)
    assert len(server.asked) == http.TRIES


def test_server_that_asks_for_an_hour_is_given_up_at_once(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT, statuses=[503], headers={"Retry-After": "3600"})
    with pytest.raises(UnavailableError, match="503"):
        get(url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusal_is_not_asked_again_and_keeps_the_part(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path, status: int
) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    server.files["/a.tar"].statuses = [status]
    with pytest.raises(UnavailableError, match=f"answers {status} "):
        get(url)
    assert len(server.asked) == 1
    assert (tmp_path / "a.tar.partial").read_bytes() == CONTENT[:CUT]


@pytest.mark.parametrize("size", [SIZE, None])
def test_login_page_is_no_file_and_keeps_the_part(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path, size: int | None
) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    server.serve("/login", b"<html>who are you?</html>", kind="text/html; charset=utf-8")
    server.files["/a.tar"].redirect = f"{server.url}/login"
    with pytest.raises(UnavailableError, match="answers with a web page, not the file"):
        get(url, size)
    assert (tmp_path / "a.tar.partial").read_bytes() == CONTENT[:CUT]


def test_redirect_is_followed_with_the_range(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    server.files["/a.tar"].redirect = server.serve("/store/7f3a", CONTENT)
    assert get(url) == CONTENT
    assert asked(server) == [(f"bytes={CUT}-", 302), (f"bytes={CUT}-", 206)]


def test_endless_redirects_are_given_up_at_once(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT)
    server.files["/a.tar"].redirect = url
    with pytest.raises(UnavailableError, match="redirects"):
        get(url)
    assert len(server.asked) < 40


def test_server_that_always_breaks_at_the_same_byte_is_given_up_and_the_part_kept(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path
) -> None:
    url = server.serve("/a.tar", CONTENT, ranges=False, cuts=[CUT] * 99)
    with pytest.raises(UnavailableError):
        get(url)
    assert len(server.asked) == http.TRIES
    assert (tmp_path / "a.tar.partial").stat().st_size == CUT


def test_server_that_breaks_often_but_goes_on_is_not_given_up(
    server: WildServer, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PROGRESS", 20_000)
    cuts = [30_000] * 9
    assert get(server.serve("/a.tar", CONTENT, cuts=cuts)) == CONTENT
    assert len(server.asked) == 10 > http.TRIES


def test_file_of_unknown_length_that_is_too_long_is_refused_and_removed(
    server: WildServer, get: Callable[..., bytes], tmp_path: Path
) -> None:
    url = server.serve("/a.tar", CONTENT + b"x", length=False)
    with pytest.raises(UnavailableError, match=f"sends more than {SIZE} bytes"):
        get(url)
    assert list(tmp_path.iterdir()) == []


def test_file_of_unknown_length_that_ends_early_goes_on(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT, length=False, cuts=[CUT])
    assert get(url) == CONTENT
    assert asked(server) == [(None, 200), (f"bytes={CUT}-", 206)]


def test_server_that_says_nothing_is_given_up(
    server: WildServer, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUTS", (0.2, 0.2))
    monkeypatch.setattr(http, "TRIES", 2)
    url = server.serve("/a.tar", CONTENT, pause=1.0)
    with pytest.raises(UnavailableError, match="timed out"):
        get(url)
    assert len(server.asked) == 2


def test_content_called_compressed_is_not_decoded(
    server: WildServer, get: Callable[..., bytes]
) -> None:
    url = server.serve("/a.tar", CONTENT, headers={"Content-Encoding": "gzip"})
    assert get(url) == CONTENT
    assert server.asked[0].headers["Accept-Encoding"] == "identity"


def test_what_does_not_fit_is_refused_before_a_byte(
    server: WildServer,
    get: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    usage = shutil._ntuple_diskusage(10**6, 10**6, SIZE - CUT - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"a\.tar needs 200\.0 kB, free are 200\.0 kB; make room"):
        get(url, None)
    assert (tmp_path / "a.tar.partial").stat().st_size == CUT


def test_proxy_is_used_and_no_proxy_honoured(
    server: WildServer, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = Proxy()
    url = server.serve("/a.tar", CONTENT)
    cut(server, get)
    with running(proxy):
        monkeypatch.setenv("http_proxy", proxy.url)
        assert get(url) == CONTENT
        assert proxy.urls == [url]
        (tmp_path / "a.tar.partial").unlink()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert get(url) == CONTENT
        assert proxy.urls == [url]
    assert [each.range for each in server.asked] == [f"bytes={CUT}-", None]


def test_proxy_for_https_is_asked_for_a_tunnel(
    get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    with running(proxy):
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(UnavailableError, match="502 Bad Gateway"):
            get("https://nowhere.invalid/a.tar")
    assert proxy.urls == ["nowhere.invalid:443"] * http.TRIES


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/a.tar", "Connection refused"),
        ("http://nowhere.invalid/a.tar", "not known|resolution"),
        ("https://127.0.0.1:1/a.tar", "Connection refused"),
        ("http:///a.tar", "No host supplied"),
    ],
)
def test_server_that_is_not_there_is_named_in_plain_words(
    get: Callable[..., bytes], url: str, why: str
) -> None:
    with pytest.raises(UnavailableError, match=why) as caught:
        get(url)
    assert str(caught.value).startswith(f"{url}: ")
    assert "Max retries" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_certificate_of_nobody_is_named(server: WildServer, get: Callable[..., bytes]) -> None:
    url = server.serve("/a.tar", CONTENT).replace("http://", "https://")
    with pytest.raises(UnavailableError, match="SSL"):
        get(url)
