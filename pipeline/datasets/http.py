"""Download a file over HTTP, going on where it was broken off (RFC 9110, section 14).

The library asks and follows redirects, through the proxies that http_proxy, https_proxy and
no_proxy name, with the certificates and the .netrc that it knows; what an answer means for the part
that is already there is decided here.
"""

import re
from http import HTTPStatus

import requests
import urllib3

from pipeline.datasets.partial import Origin, Partial
from pipeline.datasets.progress import Bar
from pipeline.datasets.space import require_space

#: Seconds to reach a server, and without a byte from it, after which it is given up.
TIMEOUTS = (15, 30)
#: Attempts in a row that bring nothing new, after which a server is given up.
TRIES = 4
#: Seconds before the second attempt; twice as long before each one after it.
PAUSE = 1.0
#: Seconds that a server may ask to be left alone (Retry-After) before it is given up.
PATIENCE = 60
PIECE = 1 << 16
#: What an attempt has to bring to count as progress, so that a server does not drip for ever.
PROGRESS = 1 << 20

#: Answers that may be others in a moment, beside those from 500 on.
_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
#: Errors of the library that no second attempt mends.
_HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
)


class UnavailableError(Exception):
    """A place does not have the file; the message says why."""


class BrokenError(UnavailableError):
    """A place may have the file at another attempt."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        #: Seconds that the server asks to wait.
        self.wait = wait


class _AnewError(Exception):
    """The answer does not fit to the part that is there."""


def download(url: str, partial: Partial, size: int | None, bar: Bar) -> None:
    """Bring a part to the whole file; its checksum is left to the caller.

    Args:
        url: http or https.
        partial: what is there, from this or another place; grows, and is kept if this fails.
        size: bytes of the file, where they are known.
        bar: shows how far it is.

    Raises:
        UnavailableError: this place does not have the file, or did not bring it to its end.
        UserError: the rest does not fit on the disk.
    """
    most, idle = partial.size, 0
    while True:
        try:
            return _attempt(url, partial, size, bar)
        except BrokenError as error:
            idle = 0 if partial.size >= most + PROGRESS else idle + 1
            most = max(most, partial.size)
            if idle == TRIES or error.wait > PATIENCE:
                raise UnavailableError(f"{url}: {error}") from error
            bar.begin(f"{error}; try again:", None)
            bar.wait(max(error.wait, PAUSE * 2**idle / 2))
        except UnavailableError as error:
            raise UnavailableError(f"{url}: {error}") from error


def _attempt(url: str, partial: Partial, size: int | None, bar: Bar) -> None:
    """One request for what is missing; a second one, for all, where the answer does not fit."""
    if partial.size and partial.size == _whole(partial, size):
        return
    start = partial.size if _may_go_on(url, partial, size) else 0
    try:
        return _receive(url, partial, start, size, bar)
    except _AnewError:
        pass  # left behind here, so that it is not at the bottom of the next error
    _receive(url, partial, 0, size, bar)


def _may_go_on(url: str, partial: Partial, size: int | None) -> bool:
    """Whether a part can belong to the file: from this place, or from one of the same size."""
    whole = _whole(partial, size)
    if whole is not None:
        return partial.size < whole
    return partial.origin is not None and partial.origin.url == url


def _whole(partial: Partial, size: int | None) -> int | None:
    """Bytes of the whole file, as the manifest or else the part's own server says."""
    if size is None and partial.origin is not None:
        return partial.origin.size
    return size


def _receive(url: str, partial: Partial, start: int, size: int | None, bar: Bar) -> None:
    """Ask for the bytes from `start` on, and take them.

    Raises:
        _AnewError: only the whole file can be had, or what is there is of another file.
    """
    headers = {"User-Agent": "atrous", "Accept-Encoding": "identity"}
    if start:
        headers |= _range(url, partial)
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
            total = _accept(answer, url, partial, start, size)
            if total is not None:
                require_space([(partial.path.parent, total - partial.size)], partial.target.name)
            bar.begin("download", total, partial.size)
            # Not decoded: some servers call a .tar.gz a compressed answer.
            while piece := answer.raw.read(PIECE, decode_content=False):
                if total is not None and partial.size + len(piece) > total:
                    partial.clear()
                    raise UnavailableError(f"sends more than {total} bytes")
                partial.append(piece)
                bar.advance(len(piece))
    except _HOPELESS as error:
        raise UnavailableError(_reason(error)) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise BrokenError(_reason(error)) from error
    if total is not None and partial.size < total:
        raise BrokenError(f"ended after {partial.size} of {total} bytes")


def _range(url: str, partial: Partial) -> dict[str, str]:
    """The headers that ask for the rest, on condition that it is still the same file."""
    headers = {"Range": f"bytes={partial.size}-"}
    if partial.origin is not None and partial.origin.url == url:
        validator = partial.origin.etag or partial.origin.modified
        if validator:
            headers["If-Range"] = validator
    return headers


def _accept(
    answer: requests.Response, url: str, partial: Partial, start: int, size: int | None
) -> int | None:
    """See what the server is about to send, and make the part ready for it.

    Returns:
        Bytes of the whole file; None where nobody knows them.

    Raises:
        _AnewError: the answer is no continuation of what is there.
        UnavailableError: it is an error or another file; what is there stays as it is.
    """
    rest = start > 0 and answer.status_code == HTTPStatus.PARTIAL_CONTENT
    if start and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _AnewError
    if not rest and answer.status_code != HTTPStatus.OK:
        raise _refusal(answer)
    first, total = _content_range(answer) if rest else (0, _content_length(answer))
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and (total is None or total != size):
        raise UnavailableError("answers with a web page, not the file (a login?)")
    if None not in (size, total) and total != size:
        raise UnavailableError(f"has {total} bytes, {size} are expected")
    etag = answer.headers.get("ETag", "")
    origin = Origin(
        url=url,
        size=total,
        # A weak one (W/...) does not promise the same bytes.
        etag=None if etag.startswith("W/") else etag or None,
        modified=answer.headers.get("Last-Modified"),
    )
    if rest and (first != start or not _same_file(partial, origin, size)):
        raise _AnewError
    if rest:
        partial.go_on(origin)
    else:
        partial.begin(origin)
    return total if size is None else size


def _same_file(partial: Partial, origin: Origin, size: int | None) -> bool:
    """Whether the rest that a server offers continues what is there."""
    before, whole = partial.origin, _whole(partial, size)
    if before is None or before.url != origin.url:
        return origin.size is not None and origin.size == whole
    if before.etag and origin.etag:
        return before.etag == origin.etag
    if before.modified and origin.modified and before.modified != origin.modified:
        return False
    return None in (origin.size, whole) or origin.size == whole


def _content_range(answer: requests.Response) -> tuple[int | None, int | None]:
    """First byte and size of the file, as in "Content-Range: bytes 100-999/1000"."""
    text = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text.strip())
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _content_length(answer: requests.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _refusal(answer: requests.Response) -> UnavailableError:
    """The error for an answer that is neither the file nor a part of it."""
    said = f"answers {answer.status_code} {answer.reason or ''}".rstrip()
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code in _BUSY:
        seconds = answer.headers.get("Retry-After", "")
        return BrokenError(said, float(seconds) if seconds.isdecimal() else 0.0)
    return UnavailableError(said)


def _reason(error: BaseException) -> str:
    """What is at the bottom of the library's nested errors, in one line."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__
