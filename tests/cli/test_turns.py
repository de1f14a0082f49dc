"""Changes that requests make: together where they wait together, and each with its own answer."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from compute_market.errors import BusyError, NotFoundError
from compute_market.settlement import ledger
from compute_market.store.lock import WriteLock
from compute_market.store.txn import Txn
from tb_cli.frame.clocks import sleep
from tb_cli.frame.session import Session
from tb_cli.network import turns
from tb_cli.network.turns import Turns
from tests.support.cli import Cli
from tests.support.processes import locked

pytest_plugins = ("tests.support.cli",)


@pytest.fixture
def session(cli: Cli) -> Iterator[Session]:
    cli.ok("state", "init")
    with Session.begin({"lock_timeout": 0.2}) as found:
        yield found


def deposit(owner: str) -> Callable[[Txn], bool]:
    return lambda txn: ledger.tap(txn, "deposit", owner, {"CT": 1, "IT": 0}, None)


def fail(txn: Txn) -> None:
    deposit("nobody")(txn)
    raise NotFoundError("there is none")


def balances(session: Session) -> dict[str, int]:
    return session.view(lambda txn: ledger.balances(txn, "CT"))


def commits(session: Session) -> int:
    """How many transactions the store has seen."""
    return int(session.market.store._env.info()["last_txnid"])


def ask(session: Session, asking: Callable[[Turns], Coroutine[Any, Any, Any]]) -> Any:
    found = Turns(session)
    try:
        return asyncio.run(asking(found))
    finally:
        found.end()


async def all_of(found: Turns, changes: list[Callable[[Txn], Any]]) -> list[Any]:
    return await asyncio.gather(*map(found.change, changes), return_exceptions=True)


async def all_wait() -> None:
    """Return when each task that was begun has asked for its change."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_changes_that_wait_together_are_committed_together(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "GROUP_S", 10)  # However busy the machine is.
    session.update(deposit("first"))
    before = commits(session)
    changes: list[Callable[[Txn], Any]] = [deposit(f"o-{number}") for number in range(40)]
    changes[7] = fail

    async def held_up(found: Turns) -> list[Any]:
        asking = asyncio.create_task(all_of(found, changes))
        with locked(Path(session.home.market)):
            await all_wait()
        return await asking

    answers = ask(session, held_up)
    assert commits(session) == before + 1
    assert [type(each) for each in answers] == [bool] * 7 + [NotFoundError] + [bool] * 32
    wallets = [name for name in balances(session) if name.startswith("wallet/")]
    assert len(wallets) == 40
    assert "wallet/nobody" not in wallets


@pytest.mark.parametrize(("bound", "value"), [("GROUP_MAX", 8), ("GROUP_S", 0.005)])
def test_group_is_bounded(
    session: Session, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    """So who waits for the write lock never waits for all that comes meanwhile."""
    monkeypatch.setattr(turns, bound, value)
    session.update(deposit("o"))

    def slow(txn: Txn) -> bool:
        time.sleep(0.001)
        return deposit("o")(txn)

    before = commits(session)
    assert ask(session, lambda found: all_of(found, [slow] * 32)) == [True] * 32
    assert commits(session) >= before + 4


def test_no_lock_answers_all_that_wait(session: Session) -> None:
    with locked(Path(session.home.market)):
        answers = ask(session, lambda found: all_of(found, [deposit("o")] * 20))
    assert [type(each) for each in answers] == [BusyError] * 20
    assert ask(session, lambda found: all_of(found, [deposit("o")] * 2)) == [True, True]
    assert balances(session)["wallet/o"] == 2


def test_who_has_gone_before_its_turn_changes_nothing(session: Session) -> None:
    async def leaving(found: Turns) -> None:
        with locked(Path(session.home.market)):
            tasks = [asyncio.create_task(found.change(deposit(f"o-{each}"))) for each in range(3)]
            await all_wait()
            tasks[1].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    ask(session, leaving)
    assert [name for name in balances(session) if name.startswith("wallet/")] == [
        "wallet/o-0",
        "wallet/o-2",
    ]


def test_others_have_their_turn_while_changes_keep_coming(session: Session) -> None:
    """Another process that waits for the write lock, and what else this one has to do."""
    path, asked, done = session.home.market, Event(), []

    def another() -> None:
        asked.wait()
        with WriteLock(path, 10_000, sleep):
            done.append("another")

    async def busy(found: Turns) -> None:
        async def go_on() -> None:
            while len(done) < 2:
                await found.change(deposit("o"))
                if not asked.is_set():
                    asked.set()
                    found.submit(done.append, "else")

        async with asyncio.timeout(10):
            await asyncio.gather(*(go_on() for _ in range(8)))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(another)
        ask(session, busy)
        waiting.result()
    assert sorted(done) == ["another", "else"]
