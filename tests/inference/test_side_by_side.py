import os
import threading
from collections.abc import Iterator

import pytest

from pipeline.errors import UserError
from pipeline.inference.side_by_side import in_order

KINDS = [(0, True), (1, True), (3, True), (2, False)]


def square(number: int) -> int:
    return number * number


def of_eleven(number: int) -> int:
    if number == 11:
        raise UserError("eleven.png: damaged")
    return number


def die(number: int) -> int:
    os._exit(number)


@pytest.mark.parametrize(("workers", "threads"), KINDS)
def test_results_come_in_the_order_of_the_items(workers: int, threads: bool) -> None:
    found = list(in_order(square, iter(range(40)), workers, threads))
    assert found == [number * number for number in range(40)]


@pytest.mark.parametrize(("workers", "threads"), KINDS)
def test_an_error_is_raised_in_its_turn(workers: int, threads: bool) -> None:
    results = in_order(of_eleven, range(1000), workers, threads)
    assert [next(results) for _ in range(11)] == list(range(11))
    with pytest.raises(UserError, match=r"eleven\.png"):
        next(results)


def test_items_are_drawn_only_as_results_are_taken() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    results = in_order(square, items(), workers=2, threads=True)
    next(results)
    assert len(drawn) == 4
    results.close()
    assert len(drawn) == 4


def test_threads_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(number: int) -> int:
        both.wait()
        return number

    assert list(in_order(meet, range(4), workers=2, threads=True)) == [0, 1, 2, 3]


def test_a_process_that_dies_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"trainer\.workers=1: a process died"):
        list(in_order(die, range(3), workers=1, threads=False))
