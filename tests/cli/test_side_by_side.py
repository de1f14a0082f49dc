"""Work in processes of its own: its order, its errors, and what becomes of who does not end."""

import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from compute_market.errors import BusyError, InternalError, MarketError, RefusedError
from tb_cli.frame.side_by_side import WHOLE, Tell, side_by_side


def square(number: int, tell: Tell) -> int:
    tell(WHOLE // 2)
    time.sleep(0.01 * (3 - number % 3))
    tell(WHOLE)
    return number * number


def workers_left() -> list[str]:
    """The processes that this one has forked and that are there, be it only to be waited for."""
    own = Path("/proc/self/task").glob("*/children")
    found = [Path("/proc", pid) for each in own for pid in each.read_text().split()]
    # What forks the commands of tests was started by its name.
    return [each.name for each in found if b"tests.support" not in (each / "cmdline").read_bytes()]


def nobody(done: int) -> None:
    pass


@pytest.mark.parametrize("workers", [1, 3, 9])
def test_results_come_in_the_order_of_the_works(workers: int) -> None:
    told: list[int] = []
    works = [partial(square, number) for number in range(7)]
    assert side_by_side(works, workers, told.append) == [n * n for n in range(7)]
    assert told == sorted(told)
    assert told[-1] == 7 * WHOLE
    assert workers_left() == []


def test_nothing_to_do_is_done() -> None:
    assert side_by_side([], 2, nobody) == []


def refuse(tell: Tell) -> None:
    raise RefusedError("no", reason="why", hint="go")


class Told(MarketError):
    """A kind of its own that stands for another, as that of the server does."""

    def __init__(self, error: MarketError) -> None:
        super().__init__(error.message)
        self.token = error.token


def refuse_in_other_words(tell: Tell) -> None:
    raise Told(RefusedError("no"))


def fail(tell: Tell) -> None:
    raise RuntimeError("odd")


def die(tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(tell: Tell) -> None:
    time.sleep(60)


def test_work_ends_at_once_with_who_wanted_it() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        # `wait` never tells how far it is.
        os.close(read)
        side_by_side([wait, wait], 2, nobody)
        os._exit(1)
    os.close(write)
    time.sleep(0.3)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    # Whoever is left holds the other end.
    assert select.select([read], [], [], 20)[0] == [read]
    assert os.read(read, 1) == b""
    os.close(read)


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (refuse, RefusedError, "no"),
        (refuse_in_other_words, RefusedError, "no"),
        (fail, InternalError, "RuntimeError: odd"),
        (die, BusyError, "a process that simulates was ended by signal 9"),
    ],
)
def test_error_of_one_ends_the_others(
    work: Callable[[Tell], None], kind: type[Exception], message: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(kind, match=message):
        side_by_side([wait, work, wait], 3, nobody)
    assert time.monotonic() - begun < 30
    assert workers_left() == []
