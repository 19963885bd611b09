"""Many images side by side, in threads or processes, and the results in order."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipeline.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, threads: bool
) -> Generator[Result, None, None]:
    """Call a function on every item; the results come in the order of the items.

    Items are drawn only as the earlier ones come back, so memory does not grow with their number.
    Close the iterator, or use it up: what is under way is waited for, what is not yet begun never
    is.

    Args:
        function: for processes, one that can be pickled, as its items and results.
        items: what it is called on.
        workers: 0: called here, one after the other.
        threads: where the function leaves Python's lock alone for most of its time; otherwise
            processes. Each of them imports the top of the main module.

    Raises:
        UserError: as the function, or a process died.
    """
    if not workers:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with _executor(workers, threads) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(function, item))
                # Two more than there are workers, so that none waits for this thread.
                if len(waiting) >= workers + 2:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"trainer.workers={workers}: a process died, most likely for lack of memory; take "
                "fewer workers (0: everything in the main process)"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _executor(workers: int, threads: bool) -> Executor:
    if threads:
        return ThreadPoolExecutor(workers)
    # Not fork: a forked copy of a process with threads can hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_ignore_interrupt)


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the main process, which ends the pool; otherwise each prints a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
