"""What becomes of changes whose requests are cut off: what is told of each is what it came to."""

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest

from compute_market.jobs import cancel, jobs
from compute_market.store.txn import Txn
from tb_cli.frame.session import Session
from tb_cli.network.node import Node
from tb_cli.network.turns import Turns
from tests.support.cli import Cli
from tests.support.processes import locked, until
from tests.support.serving import Answer, serving

pytest_plugins = ("tests.support.cli",)

JOBS = ("j1", "j2", "j3")


@pytest.fixture
def session(cli: Cli) -> Iterator[Session]:
    cli.active(*JOBS)
    with Session.begin({}) as found:
        yield found


def cancelled(job_id: str, txn: Txn) -> str:
    return cancel.cancel(txn, job_id, "client").outcome


def state(session: Session, job_id: str) -> str:
    return session.view(lambda txn: jobs.get(txn, job_id).state)


def test_change_that_has_begun_is_told_as_done_though_it_is_cut_off(session: Session) -> None:
    begun, may_end = Event(), Event()

    def slow(txn: Txn) -> str:
        begun.set()
        may_end.wait(20)
        return cancelled("j1", txn)

    async def cut_off() -> list[Any]:
        turns = Turns(session)
        first = asyncio.create_task(turns.change(slow))
        await asyncio.to_thread(begun.wait, 20)
        second = asyncio.create_task(turns.change(partial(cancelled, "j2")))
        await asyncio.sleep(0)
        for each in (first, second):
            each.cancel()
        await asyncio.wait((second,))
        first.cancel()  # A second time, as the end of a loop does.
        await asyncio.sleep(0)
        assert not first.done()
        may_end.set()
        found = await asyncio.gather(first, second, return_exceptions=True)
        turns.end()
        return found

    done, given_up = asyncio.run(cut_off())
    assert done == "cancelled"
    assert isinstance(given_up, asyncio.CancelledError)
    assert (state(session, "j1"), state(session, "j2")) == ("cancelled", "active")


def test_batch_that_is_cut_off_tells_of_each_call_what_it_came_to(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is done, the second waits as the server ends, and the third is not tried."""
    cli.active(*JOBS)
    token = cli.ok("serve", "token").strip()
    monkeypatch.setenv("TB_COURIER_TIMEOUT_SECS", "1")
    update, asked = Node.update, []

    async def held_up(node: Node, fn: Callable[[Txn], Any]) -> Any:
        asked.append(fn)
        if len(asked) == 1:
            return await update(node, fn)
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(Node, "update", held_up)
    answers: list[Answer] = []
    with serving() as far:

        def ask() -> None:
            answers.append(far.ask("POST", "/", batch(), Authorization=f"Bearer {token}"))

        asking = Thread(target=ask)
        asking.start()
        until(lambda: len(asked) == 2)
        far.stop()
        asking.join()
        assert [state(far.session, job_id) for job_id in JOBS] == ["cancelled", "active", "active"]
    (answer,) = answers
    first, *others = answer.json
    assert (answer.status, first["result"]["outcome"], len(asked)) == (200, "cancelled", 2)
    assert [each["id"] for each in others] == ["j2", "j3"]
    assert all(each["error"]["data"]["retryable"] for each in others)


def batch() -> bytes:
    calls = [
        {"jsonrpc": "2.0", "id": job_id, "method": "compute.job_cancel"}
        | {"params": {"job_id": job_id}}
        for job_id in JOBS
    ]
    return json.dumps(calls).encode()


def test_log_that_somebody_holds_is_not_waited_for(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    """The market has it all: the next change makes the file whole."""
    cli.active(*JOBS)
    token = cli.ok("serve", "token").strip()
    log = cli.home / "cancellations.log"
    with serving() as far:
        with locked(log):
            # For longer than a client waits, if it were waited for.
            assert far.session.config.lock_timeout_secs > 20
            answer = far.ask("POST", "/", batch(), Authorization=f"Bearer {token}")
        assert [each["result"]["outcome"] for each in answer.json] == ["cancelled"] * 3
        assert log.read_bytes() == b""
    assert "the next change makes it whole" in capsys.readouterr().err
    cli.ok("tick")
    assert len(log.read_text().splitlines()) == 3
