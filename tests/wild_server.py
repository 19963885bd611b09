"""A real HTTP server on this machine that misbehaves as told, and a proxy."""

import http.client
import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: Bytes that are sent at once.
PIECE = 8192


@dataclass
class Served:
    """A file of the server, and how it is served."""

    content: bytes
    etag: str | None = '"one"'
    modified: str | None = "Wed, 01 Jan 2020 00:00:00 GMT"
    kind: str = "application/octet-stream"
    ranges: bool = True
    #: Whether Content-Length is said; without it the file ends with the connection.
    length: bool = True
    #: Whether If-Range is looked at.
    conditions: bool = True
    #: The Content-Range of a part is said to be this.
    content_range: str | None = None
    #: What the next answers are instead of the file.
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    #: Bytes after which the connection breaks, for each of the next answers.
    cuts: list[int] = field(default_factory=list)
    #: What is sent instead, for each of the next answers.
    wrong: list[bytes] = field(default_factory=list)
    #: Seconds before each piece.
    pause: float = 0.0
    redirect: str | None = None


@dataclass
class Asked:
    """A request that came, and how many bytes of the file were sent."""

    path: str
    range: str | None
    if_range: str | None
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class WildServer(http.server.ThreadingHTTPServer):
    """Serves `files` by their path, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        #: Downloads that were running at the same time.
        self.most_at_once = 0
        self._at_once, self._lock = 0, threading.Lock()

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, path: str, content: bytes, **how: object) -> str:
        """Serve a file; its address."""
        self.files[path] = Served(content, **how)  # type: ignore[arg-type]
        return f"{self.url}{path}"

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a download while it runs."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WildServer

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        headers = self.headers
        asked = Asked(self.path, headers["Range"], headers["If-Range"], dict(headers))
        self.server.asked.append(asked)
        file = self.server.files.get(urlsplit(self.path).path)
        try:
            if file is None:
                asked.status = self._short(404, {})
            elif file.statuses:
                asked.status = self._short(file.statuses.pop(0), file.headers)
            elif file.redirect:
                asked.status = self._short(302, {"Location": file.redirect})
            else:
                asked.status, body = self._head(file)
                with self.server.counted():
                    for piece in self._pieces(file, body):
                        self.wfile.write(piece)
                        asked.sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _short(self, status: int, headers: dict[str, str]) -> int:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return status

    def _head(self, file: Served) -> tuple[int, bytes]:
        content = file.wrong.pop(0) if file.wrong else file.content
        body, status = content, 200
        part = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        condition = self.headers["If-Range"] if file.conditions else None
        if part and file.ranges and condition in (None, file.etag, file.modified):
            start = int(part[1])
            if start >= len(content):
                return self._short(416, {"Content-Range": f"bytes */{len(content)}"}), b""
            body, status = content[start:], 206
        self.send_response(status)
        if status == 206:
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", file.content_range or place)
        if file.length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in {
            "ETag": file.etag,
            "Last-Modified": file.modified,
            "Content-Type": file.kind,
            **file.headers,
        }.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        return status, body

    def _pieces(self, file: Served, body: bytes) -> Iterator[bytes]:
        end = min(file.cuts.pop(0) if file.cuts else len(body), len(body))
        for start in range(0, end, PIECE):
            time.sleep(file.pause)
            yield body[start : min(start + PIECE, end)]
        self.close_connection = True


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy that remembers what it was asked for; it has no way to https servers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.urls: list[str] = []

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, *_: object) -> None: ...

    def do_CONNECT(self) -> None:
        self.server.urls.append(self.path)
        self.send_error(502)

    def do_GET(self) -> None:
        self.server.urls.append(self.path)
        parts = urlsplit(self.path)
        there = http.client.HTTPConnection(parts.netloc)
        there.request("GET", parts.path, headers=dict(self.headers))
        answer = there.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Length", "Content-Range", "ETag", "Content-Type"):
            if value := answer.getheader(name):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        there.close()


@contextmanager
def running(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    """Let a server work in a thread for a while."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
