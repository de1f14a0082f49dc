"""Handoffs whose commands fail, or are killed, at any system call by which they write.

Whatever happens: the job has one provider, the present one or the next, and what is told is true.
Handed over once more it goes on with the next one, and has gone over once.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_market import audit
from compute_market.jobs import jobs
from compute_market.market import Market
from compute_market.offers.standing import record_outcome
from compute_market.records import Job
from compute_market.store.txn import Txn
from tb_cli.frame import bundle_laws
from tb_cli.frame.home import Home
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Fault, Outcome, Server, attack, in_memory
from tests.support.processes import now_ms, random

# A sample of the cases of each command; the torture tries them all.
CASES = effort(8, 10**6)
CONFIG = """
settle_mode = "real"
enable_preempt = true
courier_backoff_ms = 0
courier_max_attempts = 2
"""
POST = ("compute", "offer", "post", "--provider", "other", "--units", "9", "--price", "3")
PREEMPT = ("compute", "preempt", "j1", "better")
NEW = (*POST, "--offer-id", "new")


class Preempting:
    """A directory with a home in which a job of two slices may go over to the offer `better`."""

    def __init__(self, server: Server, memory: Path) -> None:
        self._server = server
        self.work, self._template = memory / "work", memory / "template"
        home = self.work / "home"
        home.mkdir(parents=True, mode=0o700)
        config = home / "config.toml"
        config.write_text(CONFIG.replace("preempt = true", "preempt = false"))
        (self.work / "a.slice").write_text("hello")
        for owner in ("alice", "prov", "other"):
            self.ok("wallet", "deposit", owner, "--ct", "1000")
        self.ok("compute", "offer", "post", "--provider", "prov", "--units", "9", "--price", "3")
        slices = ("--slice", "a.slice", "--slice", "a.slice")
        job = ("--job-id", "j1", "--buyer", "alice", "--workload", "transcode", "--max-price", "9")
        self.ok("compute", "submit", *job, *slices)
        self.ok(*POST, "--offer-id", "better")
        with self._market() as market:
            market.update(lambda txn: [record_outcome(txn, "other", 1) for _ in range(10)])
        config.write_text(CONFIG)
        self.ok("key", "new", "node")
        shutil.copytree(self.work, self._template)

    def _market(self) -> Market:
        return Market.open(str(self.work / "home"), clock=now_ms, sleep=time.sleep)

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

    def job(self) -> Job:
        """The job as it is. The audit is clean, and the spool has what receipts tell of."""
        home = Home(str(self.work / "home"))

        def look(txn: Txn) -> Job:
            broken = [*audit.check(txn), *bundle_laws.violations(txn, home, hashed=True)]
            assert broken == []
            return jobs.get(txn, "j1")

        with self._market() as market:
            return market.view(look)


@pytest.fixture(scope="module")
def preempting(server: Server) -> Iterator[Preempting]:
    with in_memory("preempting") as memory:
        yield Preempting(server, memory)


@pytest.mark.timeout(effort(240, 3600))
@pytest.mark.parametrize(
    ("words", "offer_id", "told"),
    [(PREEMPT, "better", "handed job j1 over"), (NEW, "new", "took over job j1")],
    ids=["by hand", "a new offer"],
)
def test_failing_calls_leave_the_truth(
    preempting: Preempting, words: tuple[str, ...], offer_id: str, told: str, attacks: Attacks
) -> None:
    preempting.reset()
    calls = preempting.run(words).calls
    assert preempting.job().placed.offer_id == offer_id

    def run(fault: Fault) -> Outcome:
        preempting.reset()
        return preempting.run(words, fault)

    attack(
        attacks,
        calls,
        random(f"preempt {offer_id}"),
        CASES,
        run,
        lambda outcome: check(preempting, outcome, offer_id, told),
    )


def check(preempting: Preempting, outcome: Outcome, offer_id: str, told: str) -> None:
    job = preempting.job()
    is_done = job.placed.offer_id == offer_id
    assert is_done or job.placements_before == 0
    assert is_done or told not in outcome.out, "told and not done"
    if not is_done:
        assert outcome.code != 0 or "did not take over" in outcome.out, "exit code 0, and not done"
        if offer_id == "new" and preempting.run(("compute", "offer", "show", "new")).code:
            return  # It was not even posted.
        done = preempting.run(("compute", "preempt", "j1", offer_id))
        assert done.code == 0, f"again: {done}"
    job = preempting.job()
    assert (job.placed.offer_id, job.placements_before) == (offer_id, 1)
