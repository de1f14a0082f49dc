"""Archives that are written, and data files that are compacted, while system calls fail or the
process is killed.

Whatever happens: what the market has let go is in the file, and the same command again brings it to
its end, with everything once.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec import json

from compute_market import audit
from compute_market.settlement import ledger
from compute_market.store.schema import JOBS, POSTINGS, unpack_u64
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Fault, Outcome, Server, attack, in_memory
from tests.support.processes import now_ms, random

# A sample of the cases; the torture tries them all.
CASES = effort(12, 10**6)
ARCHIVE = ("state", "archive", "--before", "0", "out.jsonl")
COMPACT = ("state", "compact")
ENDED = {"j1", "j2", "j3"}


class Archived:
    """A directory with a home in which jobs have ended, and its archive."""

    def __init__(self, server: Server, memory: Path) -> None:
        self._server = server
        self.work, self._template = memory / "work", memory / "template"
        self.home = self.work / "home"
        self.home.mkdir(parents=True, mode=0o700)
        (self.home / "config.toml").write_text('settle_mode = "real"\nepoch_blocks = 1000000000\n')
        (self.work / "a.slice").write_text("hello")
        self.do("wallet deposit alice --ct 1000 --it 1000 --key in")
        self.do("wallet deposit prov --ct 1000")
        self.do("compute offer post --offer-id o --provider prov --units 100 --price 3 --bond 5")
        for job_id in (*sorted(ENDED), "j4"):
            job = f"--job-id {job_id} --buyer alice --workload transcode --slice a.slice"
            self.do(f"compute submit {job} --max-price 9")
        self.do("compute execute j1 j2")
        self.do("compute cancel j3")
        ended_at = time.time()
        while int(time.time()) == int(ended_at):
            time.sleep(0.01)
        shutil.copytree(self.work, self._template)
        self.balances = self.look(_balances)
        self.postings = self.look(_postings)

    def do(self, line: str) -> None:
        done = self.run(*line.split())
        assert done.code == 0, done

    def run(self, *words: str, fault: Any = None) -> Outcome:
        return self._server.run(words, below=self.work, fault=fault)

    def reset(self) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self._template, self.work)

    def look(self, fn: Any) -> Any:
        store = Store.open(str(self.home / "market"), sleep=time.sleep)
        try:
            return store.view(fn, now_ms=now_ms())
        finally:
            store.close()

    def check(self) -> None:
        """Every law holds, nobody has more or less, and what is not in the store is in the file."""
        assert self.look(lambda txn: [*audit.check(txn)]) == []
        assert self.look(_balances) == self.balances
        lines = [*self._lines()]
        jobs = {each["job"]["job_id"] for each in lines if "job" in each}
        assert jobs | self.look(_jobs) == {*ENDED, "j4"}
        assert jobs <= ENDED
        postings = {each["posting"]["seq"] for each in lines if "posting" in each}
        assert postings | self.look(_postings) == self.postings

    def check_done(self) -> None:
        self.check()
        text = (self.work / "out.jsonl").read_bytes()
        lines = [json.decode(line) for line in text.splitlines()]
        (head, *found, end) = lines
        jobs = [each["job"]["job_id"] for each in found if "job" in each]
        postings = [each["posting"]["seq"] for each in found if "posting" in each]
        assert sorted(jobs) == sorted(ENDED)
        assert self.look(_jobs) == {"j4"}
        assert len(postings) == len({*postings}) == end["postings"]
        assert {*postings}.isdisjoint(self.look(_postings))
        assert (head["archive"], end["end"], end["jobs"], end["receipts"]) == (1, 1, 3, 2)
        assert end["bytes"] == len(text) - len(text.splitlines()[-1]) - 1
        assert end["blake3"] == blake3(text[: end["bytes"]]).hexdigest()

    def _lines(self) -> Iterator[Any]:
        """The whole lines of the file."""
        path = self.work / "out.jsonl"
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if line.endswith(b"\n"):
                yield json.decode(line)


def _balances(txn: Txn) -> Any:
    return [ledger.balances(txn, token) for token in ledger.TOKENS]


def _jobs(txn: Txn) -> set[str]:
    return {job.job_id for job in txn.records(JOBS)}


def _postings(txn: Txn) -> set[int]:
    return {unpack_u64(key) for key, _ in txn.scan(POSTINGS)}


@pytest.fixture(scope="module")
def archived(server: Server) -> Iterator[Archived]:
    with in_memory("archive") as memory:
        yield Archived(server, memory)


def test_failing_calls_lose_nothing_of_an_archive(archived: Archived, attacks: Attacks) -> None:
    archived.reset()
    calls = archived.run(*ARCHIVE).calls
    archived.check_done()

    def run(fault: Fault) -> Outcome:
        archived.reset()
        return archived.run(*ARCHIVE, fault=fault)

    def check(_: Outcome) -> None:
        archived.check()
        again = archived.run(*ARCHIVE)
        assert again.code == 0, again
        archived.check_done()
        assert archived.run(*ARCHIVE).out == "nothing to archive\n"

    attack(attacks, calls, random("archive"), CASES, run, check)


def test_failing_calls_lose_nothing_of_a_file_that_is_compacted(
    archived: Archived, attacks: Attacks
) -> None:
    archived.reset()
    calls = archived.run(*COMPACT).calls

    def run(fault: Fault) -> Outcome:
        archived.reset()
        return archived.run(*COMPACT, fault=fault)

    def check(_: Outcome) -> None:
        archived.check()
        again = archived.run(*COMPACT)
        assert again.code == 0, again
        archived.check()
        assert not (archived.home / "market" / "data.mdb.compact").exists()

    attack(attacks, calls, random("compact"), CASES, run, check)
