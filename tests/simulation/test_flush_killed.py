"""Bundles that are forwarded and received while system calls fail, or the process is killed.

Whatever happens: what is acknowledged has arrived, nothing is paid or taken twice, what is told is
true, and the same command once more brings all of it to its end.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blake3 import blake3

from compute_market import audit
from compute_market.courier import courier, deliveries, envelope
from compute_market.settlement import ledger
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Fault, Outcome, Server, attack, in_memory
from tests.support.processes import now_ms, random

T = TypeVar("T")

# A sample of the cases of each command; the torture tries them all.
CASES = effort(10, 10**6)
CONFIG = 'settle_mode = "real"\ncourier_backoff_ms = 0\n'
BUNDLES = {"alice": b"hallo", "bob": b"", "carol": b"hallo"}
FLUSH = ("compute", "courier", "flush", "--parallel", "1", "--max-attempts", "2")
RECEIVE = ("--home", "there", "compute", "courier", "receive", "home/outbox")
RESEND = ("compute", "courier", "resend")


class Two:
    """A directory with a home from which three bundles go, and one that they come to."""

    def __init__(self, server: Server, memory: Path) -> None:
        self._server = server
        self.work, self._templates = memory / "work", memory / "templates"
        for name in ("home", "there"):
            (self.work / name).mkdir(parents=True, mode=0o700)
        (self.work / "home" / "config.toml").write_text(CONFIG)
        self.ok("wallet", "deposit", "alice", "--ct", "1000")
        key_id = json.loads(self.ok("key", "new", "node", "--json"))["key_id"]
        (self.work / "there" / "config.toml").write_text(f'[net]\ntrusted = ["{key_id}"]\n')
        self.ok("--home", "there", "state", "init")
        for sender, content in BUNDLES.items():
            (self.work / "bundle").write_bytes(content)
            self.ok("compute", "courier", "send", "bundle", sender)
        shutil.copytree(self.work, self._templates / "flush")
        self.ok(*FLUSH)
        shutil.copytree(self.work, self._templates / "receive")

    def run(self, words: tuple[str, ...], fault: Any = None) -> Outcome:
        return self._server.run(words, below=self.work, fault=fault)

    def ok(self, *words: str) -> str:
        done = self.run(words)
        assert done.code == 0, done
        return done.out

    def reset(self, to: str) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self._templates / to, self.work)

    def view(self, home: str, fn: Callable[[Txn], T]) -> T:
        """A look at a market whose audit is clean."""
        store = Store.open(str(self.work / home / "market"), sleep=time.sleep)
        try:
            assert store.view(lambda txn: list(audit.check(txn)), now_ms=now_ms()) == []
            return store.view(fn, now_ms=now_ms())
        finally:
            store.close()

    def is_forwarded(self) -> bool:
        """Whether all has arrived, after a check of what is said to have."""
        receipts = self.view("home", lambda txn: list(courier.receipts(txn)))
        outbox = self.work / "home" / "outbox"
        arrived: set[int] = set()
        for path in (outbox / "envelopes").glob("*.tb"):
            found = envelope.parse(path.read_bytes(), path.name)
            for each in found.entries:
                content = (outbox / "bundles" / each.bundle_hash.hex()).read_bytes()
                assert blake3(content).digest() == each.bundle_hash
            arrived |= {each.receipt_id for each in found.entries}
        done = {each.receipt_id for each in receipts if each.state == "acknowledged"}
        assert done <= arrived
        paid = {
            sender: self.view("home", lambda txn: ledger.balance(txn, ledger.wallet(sender), "CT"))  # noqa: B023 - at once
            for sender in ("bob", "carol")
        }
        for each in receipts:
            if each.sender in paid:
                assert paid[each.sender] == (each.state == "acknowledged")
        return len(done) == len(BUNDLES)

    def is_received(self) -> bool:
        """Whether all was taken, after a check that what was is there."""
        found = self.view("there", lambda txn: list(deliveries.deliveries(txn)))
        for _, each in found:
            content = (self.work / "there" / "inbox" / each.bundle_hash.hex()).read_bytes()
            assert blake3(content).digest() == each.bundle_hash
        return len(found) == len(BUNDLES)

    def is_done(self, verb: str) -> bool:
        return self.is_forwarded() if verb == "flush" else self.is_received()

    def mend(self) -> None:
        """Free what a flush had that was killed, as an operator does who does not wait."""
        receipts = self.view("home", lambda txn: list(courier.receipts(txn)))
        left = [courier.id_text(r.receipt_id) for r in receipts if r.state == "pending"]
        if left:
            self.ok(*RESEND, *left)


@pytest.fixture(scope="module")
def two(server: Server) -> Iterator[Two]:
    with in_memory("flush") as memory:
        yield Two(server, memory)


@pytest.mark.parametrize("verb", ["flush", "receive"])
def test_failing_calls_leave_the_truth(two: Two, verb: str, attacks: Attacks) -> None:
    words = FLUSH if verb == "flush" else RECEIVE
    two.reset(verb)
    assert not two.is_done(verb)
    calls = two.run(words).calls
    assert two.is_done(verb)

    def run(fault: Fault) -> Outcome:
        two.reset(verb)
        return two.run(words, fault)

    def check(outcome: Outcome) -> None:
        done = two.is_done(verb)
        assert outcome.code != 0 or done, "told and not done"
        two.mend()
        again = two.run(words)
        assert again.code == 0, again
        assert two.is_done(verb)

    attack(attacks, calls, random(f"courier {verb}"), CASES, run, check)
