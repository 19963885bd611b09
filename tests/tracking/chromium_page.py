"""Headless Chromium, driven through its own debugging pipe."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)

#: Chromium's own errands are left out, so that what is asked for is the page's.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Page:
    """A page in a browser of its own.

    Args:
        width: of the window, in pixels.
        height: of the window, in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        if CHROMIUM is None:
            raise FileNotFoundError("chromium")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        place = [f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"]
        (ours_in, to_browser), (from_browser, ours_out) = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        script = f'exec "$@" 3<&{ours_in} 4>&{ours_out}'
        self._browser = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *FLAGS, *place, "about:blank"],
            pass_fds=(ours_in, ours_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours_in)
        os.close(ours_out)
        self._to, self._from = to_browser, from_browser
        os.set_blocking(self._from, False)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        #: The hosts that the page asked for anything.
        self.hosts: set[str] = set()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self._ask(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)

    def open(self, address: str) -> None:
        """Go to a page."""
        self._ask("Page.navigate", url=address)

    def evaluate(self, code: str) -> Any:
        """The value of a line of JavaScript."""
        answer = self._ask("Runtime.evaluate", expression=code, returnByValue=True)
        return answer["result"].get("value")

    def text(self) -> str:
        """What the page shows, in words."""
        return str(self.evaluate("document.body.innerText"))

    def wait(self, code: str, seconds: float = 60) -> None:
        """Until a line of JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(code):
            if time.monotonic() > end:
                raise TimeoutError(f"{code}\n{self.text()}")
            time.sleep(0.2)

    def save(self, path: Path) -> None:
        """A picture of what the window shows."""
        picture = self._ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._ask("Browser.close")
        self._browser.wait(30)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def _ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        question = {"id": self._number, "method": method, "params": params}
        if self._session:
            question["sessionId"] = self._session
        os.write(self._to, json.dumps(question).encode() + b"\0")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for message in self._messages():
                self._note(message)
                if message.get("id") == self._number:
                    if "error" in message:
                        raise RuntimeError(f"{method}: {message['error']}")
                    return message["result"]
            time.sleep(0.01)
        raise TimeoutError(method)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.netloc:
                self.hosts.add(url.netloc)

    def _messages(self) -> list[dict[str, Any]]:
        try:
            self._unread += os.read(self._from, 1 << 20)
        except BlockingIOError:
            return []
        *whole, self._unread = self._unread.split(b"\0")
        return [json.loads(one) for one in whole]
