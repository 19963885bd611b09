"""A training that is told to stop saves its state first, and says that it can go on."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

#: sysexits.h's EX_TEMPFAIL: the same command goes on from here.
RESUMABLE = 75

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818  it is no error: everything is saved
    """Training was told to stop; its state is saved and the same command goes on from it."""


class StopSignal:
    """Whether SIGTERM (a node is taken away) or SIGINT (Ctrl-C) has come.

    Within `with`, the first signal is noted and training looks for it after each step; a second
    Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Be the one that is told; Lightning, which asks too, has to be overruled at each start."""
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                signal.signal(each, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def __enter__(self) -> "StopSignal":
        self._before = {each: signal.getsignal(each) for each in SIGNALS}
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            for each, handler in self._before.items():
                signal.signal(each, handler)
