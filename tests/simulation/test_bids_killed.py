"""Sealed bids whose commands fail, or are killed, at any system call by which they write.

Whatever happens: no bid is committed to without the secret that opens it, what is told is true, and
the same command once more brings the market to where it should be.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from compute_market import audit
from compute_market.bid_records import Bid
from compute_market.bids import bid_files
from compute_market.signatures import keys
from compute_market.store.schema import BIDS, JOBS
from compute_market.store.store import Store
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Fault, Outcome, Server, attack, in_memory
from tests.support.processes import now_ms, random

# A sample of the cases of each command; the torture tries them all.
CASES = effort(12, 10**6)
CONFIG = 'settle_mode = "real"\nblock_interval_secs = 0\n'
JOB = {"buyer": "alice", "workload": "transcode", "max_price_per_unit": 9, "slices": ["a.slice"]}
COMMIT = ("bid", "commit", "new.json", "--bidder", "alice")
VERBS = ("commit", "import", "reveal", "import-reveal")


class Found(NamedTuple):
    """What a market holds."""

    bids: dict[str, Bid]
    jobs: set[str]


class Bidding:
    """A directory with a home in which one bid waits to be revealed, and one to be imported."""

    def __init__(self, server: Server, memory: Path) -> None:
        self._server = server
        self.work, self._template = memory / "work", memory / "template"
        self._home = "home"
        home = self.work / "home"
        (home / "keys").mkdir(parents=True, mode=0o700)
        (home / "config.toml").write_text(CONFIG)
        key_file = home / "keys" / "alice.key"
        key_file.touch(0o600)
        key_file.write_bytes(keys.secret_text(keys.key_of(bytes(range(32)))))
        (self.work / "a.slice").write_text("hello")
        for name in ("new", "waits", "comes"):
            (self.work / f"{name}.json").write_text(json.dumps(JOB | {"job_id": name}))
        self.ok("wallet", "deposit", "alice", "--ct", "1000")
        self.ok("wallet", "deposit", "prov", "--ct", "1000")
        self.ok("compute", "offer", "post", "--provider", "prov", "--units", "9", "--price", "3")
        out = self.ok("bid", "commit", "waits.json", "--bidder", "alice", "--json")
        self.waits: str = json.loads(out)["bid_id"]
        market_id = json.loads(self.ok("chain", "status", "--json"))["market_id"]
        away = ("--market", market_id, "--height", "0", "--sequence", "7")
        out = self.ok("bid", "commit", "comes.json", "--bidder", "alice", *away, "--json")
        self.comes: str = json.loads(out)["bid_id"]
        self.ok("bid", "export", self.comes, "sealed.bid")
        self.ok("chain", "advance", "2")
        self.ok("bid", "reveal", self.waits, "--to", "open.bid")
        shutil.copytree(self.work, self._template)

    def words(self, verb: str) -> tuple[str, ...]:
        return {
            "commit": COMMIT,
            "import": ("bid", "import", "sealed.bid"),
            "reveal": ("bid", "reveal", self.waits),
            "import-reveal": ("bid", "import-reveal", "open.bid"),
        }[verb]

    def run(self, words: tuple[str, ...], fault: object = None) -> Outcome:
        found: Outcome = self._server.run(words, below=self.work, fault=fault)  # type: ignore[arg-type]
        return found

    def ok(self, *words: str) -> str:
        done = self.run(words)
        assert done.code == 0, done
        return done.out

    def reset(self) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self._template, self.work)

    def found(self) -> Found:
        """What is there. Each committed bid of this home has its secret, and the audit is clean."""
        store = Store.open(str(self.work / "home" / "market"), sleep=time.sleep)
        try:
            broken = store.view(lambda txn: list(audit.check(txn)), now_ms=now_ms())
            assert broken == []
            bids = store.view(lambda txn: list(txn.records(BIDS)), now_ms=now_ms())
            jobs = store.view(
                lambda txn: {job.job_id for job in txn.records(JOBS)}, now_ms=now_ms()
            )
        finally:
            store.close()
        for bid in bids:
            path = self.work / "home" / "bids" / f"{bid.bid_id}.secret"
            assert bid_files.parse_secret(path.read_bytes(), "it").bid_tx.bid_id == bid.bid_id
        return Found({bid.bid_id: bid for bid in bids}, jobs)

    def is_done(self, verb: str, found: Found) -> bool:
        if verb == "commit":
            return len(found.bids) == 2
        if verb == "import":
            return self.comes in found.bids
        state = found.bids[self.waits].state
        assert state in ("committed", "revealed")
        assert (state == "revealed") == ("waits" in found.jobs)
        return state == "revealed"


@pytest.fixture(scope="module")
def bidding(server: Server) -> Iterator[Bidding]:
    with in_memory("bids") as memory:
        yield Bidding(server, memory)


@pytest.mark.parametrize("verb", VERBS)
def test_failing_calls_leave_the_truth(bidding: Bidding, verb: str, attacks: Attacks) -> None:
    words = bidding.words(verb)
    bidding.reset()
    assert not bidding.is_done(verb, bidding.found())
    calls = bidding.run(words).calls
    assert bidding.is_done(verb, bidding.found())

    def run(fault: Fault) -> Outcome:
        bidding.reset()
        return bidding.run(words, fault)

    def check(outcome: Outcome) -> None:
        done = bidding.is_done(verb, bidding.found())
        assert outcome.code != 0 or done, "told and not done"
        if not done:
            assert outcome.out == "", "told and not done"
            assert bidding.run(words).code == 0
        elif verb != "commit":  # Once more it is another bid.
            assert bidding.run(words).code == 0
        assert bidding.is_done(verb, bidding.found())

    attack(attacks, calls, random(f"bid {verb}"), CASES, run, check)
