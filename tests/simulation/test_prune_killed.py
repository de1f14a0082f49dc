"""Bundles that are taken away by `tick` while system calls fail, or the process is killed.

Whatever happens: no bundle goes that a receipt needs, and the next `tick` takes away all that are
not needed, those without a receipt too.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from compute_market import audit
from compute_market.courier import courier
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tb_cli.frame import bundle_laws
from tb_cli.frame.home import Home
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Fault, Outcome, Server, attack, in_memory
from tests.support.processes import now_ms, random

# A sample of the cases; the torture tries them all.
CASES = effort(10, 10**6)
CONFIG = "courier_retention_secs = 0\ncourier_backoff_ms = 0\n"
KEPT = blake3(b"kept").hexdigest()


class Spool:
    """A directory with a home that has a bundle to keep, and others to take away."""

    def __init__(self, server: Server, memory: Path) -> None:
        self._server = server
        self.work, self._template = memory / "work", memory / "template"
        self.home = self.work / "home"
        self.home.mkdir(parents=True, mode=0o700)
        (self.home / "config.toml").write_text(CONFIG)
        for content, sender in ((b"gone", "alice"), (b"too", "bob"), (b"kept", "carol")):
            self.send(content, sender)
        assert self.run("compute", "courier", "flush").code == 0
        self.send(b"kept", "dora")
        (self.home / "spool" / blake3(b"orphan").hexdigest()).write_bytes(b"orphan")
        (self.home / "spool" / "new" / "0123456789abcdef").write_bytes(b"orph")
        shutil.copytree(self.work, self._template)

    def send(self, content: bytes, sender: str) -> None:
        (self.work / "bundle").write_bytes(content)
        assert self.run("compute", "courier", "send", "bundle", sender).code == 0

    def run(self, *words: str, fault: Any = None) -> Outcome:
        return self._server.run(words, below=self.work, fault=fault)

    def reset(self) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self._template, self.work)

    def check(self) -> bool:
        """Whether all is gone that is not needed, after a check that nothing else is."""

        def look(txn: Txn) -> int:
            broken = [*audit.check(txn)]
            broken += bundle_laws.violations(txn, Home(str(self.home)), hashed=True)
            assert broken == []
            return len(list(courier.receipts(txn)))

        store = Store.open(str(self.home / "market"), sleep=time.sleep)
        try:
            left = store.view(look, now_ms=now_ms())
        finally:
            store.close()
        root = self.home / "spool"
        names = {path.name for path in root.rglob("*") if path.is_file()}
        assert KEPT in names
        return left == 1 and names == {KEPT}


@pytest.fixture(scope="module")
def spool(server: Server) -> Iterator[Spool]:
    with in_memory("prune") as memory:
        yield Spool(server, memory)


def test_failing_calls_take_nothing_that_is_needed(spool: Spool, attacks: Attacks) -> None:
    spool.reset()
    assert not spool.check()
    calls = spool.run("tick").calls
    assert spool.check()

    def run(fault: Fault) -> Outcome:
        spool.reset()
        return spool.run("tick", fault=fault)

    def check(_: Outcome) -> None:
        spool.check()
        again = spool.run("tick")
        assert again.code == 0, again
        assert spool.check()

    attack(attacks, calls, random("prune"), CASES, run, check)
