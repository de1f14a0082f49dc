"""Directories in which changes are made that do not come to their end, and what is found there."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from compute_market import audit
from compute_market.courier import courier
from compute_market.errors import NotFoundError
from compute_market.reputation import gossip
from compute_market.settlement.receipt_files import verify
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tb_cli.frame import bundle_laws
from tb_cli.frame.home import Home
from tests.simulation.changes import BEFORE, BUNDLE, CONFIG, FILES, TOKEN, Change
from tests.support.faults import Fault, Outcome
from tests.support.forked import Forked, commands
from tests.support.processes import ENDS_WITHIN_S, differences, everything, now_ms

# What is told, and counted, of a price board that could not be saved, and counted of a receipt that
# could not be stored, or of scores that were no news: no part of the change.
NOT_SAVED = "; it is not saved\n"
_UNSAVED = "b'price_board_save_total\\x00failed' "
_UNSTORED = "b'receipt_persist_fail_total' "
_NO_NEWS = "b'reputation_gossip_total\\x00ignored' "
# Runs a command in a directory that has the home; `Server.run` does, and `run_alone`.
Run = Callable[..., Outcome]
State = dict[str, list[str]] | None
# What is new for each market, and what a compaction is known by, which is there before the file is
# exchanged.
_OWN = (
    *("b'market_id'", "b'genesis_ms'", "b'instance_id'"),
    *("b'compacted_from'", "b'compacted_to'"),
)
# Heights grow by the second.
_HEIGHT = re.compile(r"(?<='height': )\d+|(?<='activate_at': )\d+")
# That of a key that is made is random; and a state root is that of receipts of their second.
_KEY_ID = re.compile(r"(?:(?<='key_id': ')|(?<=made key k1: )|(?<=, root ))[0-9a-f]{64}")
# A compaction that is done and could not be noted leaves less to the next.
_BYTES_BEFORE = re.compile(r"(?<='bytes_before': )\d+")
_BUNDLE_ID = re.compile(r"(?<=bundle )[0-9a-f]{16}")
# That of the server is all that its command prints, and random.
_TOKEN = re.compile(r"^[0-9a-f]{64}$", re.MULTILINE)


def environment(below: Path) -> dict[str, str]:
    """That of a command whose home is below a directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TB_")}
    return kept | {"TB_HOME": str(below / "home"), "HOME": str(below)}


def run_alone(words: list[str], *, below: Path, stdin: str = "", fault: None = None) -> Outcome:
    """Run a command in a process of its own."""
    process = started(words, below)
    out, err = process.communicate(stdin.encode(), timeout=ENDS_WITHIN_S)
    return Outcome(process.wait(ENDS_WITHIN_S), out.decode(), err.decode(), [])


def started(words: Sequence[str], below: Path) -> Forked:
    """The process of a command in a directory that has the home; its streams are pipes."""
    return commands().start(
        *("tb_cli.entry", *words),
        directory=below,
        environment=environment(below),
        stdin=subprocess.PIPE,
    )


def template_in(run: Run, work: Path) -> Path:
    """The directory that every change is made in: a home, and the files of jobs."""
    place = Place(run, work)
    (work / "home").mkdir(parents=True, mode=0o700)
    (work / "home" / "config.toml").write_text(CONFIG)
    for name, content in FILES.items():
        (work / name).write_text(content)
    place.prepare(BEFORE.splitlines())
    return work


class Place:
    """A directory in which commands run, and what is found there afterwards.

    It has the same name in all runs, since jobs remember where their slices are.
    """

    def __init__(self, run: Run, work: Path) -> None:
        self._run = run
        self.work = work

    def reset(self, template: Path, *, is_fresh: bool = False) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(template, self.work)
        if is_fresh:
            shutil.rmtree(self.work / "home")

    def prepare(self, lines: list[str]) -> None:
        done = self._run(("batch", "-"), below=self.work, stdin="\n".join(lines))
        assert done.code == 0, done

    def run(
        self, change: Change, *, steps: int | None = None, fault: Fault | None = None
    ) -> Outcome:
        words, stdin = change.command(steps)
        words = [self._bundle() if word == BUNDLE else word for word in words]
        done = self._run(words, below=self.work, stdin=stdin, fault=fault)
        for token in _TOKEN.findall(done.out):
            assert (self.work / TOKEN).read_text() == f"{token}\n", "told and not stored"
        return done._replace(out=_TOKEN.sub("#", _BUNDLE_ID.sub("#", _KEY_ID.sub("#", done.out))))

    def _bundle(self) -> str:
        """The id of the bundle that was sent first."""

        def look(txn: Txn) -> str:
            first = next(courier.receipts(txn))
            return courier.id_text(first.receipt_id)

        store = Store.open(str(self.work / "home" / "market"), sleep=time.sleep)
        try:
            return store.view(look, now_ms=now_ms())
        finally:
            store.close()

    def state(self, home: str = "home") -> State:
        """What the market there holds; None without one."""

        def look(txn: Txn) -> dict[str, list[str]]:
            log = self.work / home / "cancellations.log"
            content = log.read_bytes() if log.exists() else b""
            broken = [*audit.check(txn), *audit.log_violations(txn, content)]
            spool = Home(str(self.work / home))
            broken += bundle_laws.violations(txn, spool, hashed=True)
            assert broken == [], broken
            return everything(txn)

        try:
            store = Store.open(str(self.work / home / "market"), sleep=time.sleep)
        except NotFoundError:
            return None
        try:
            found = store.view(look, now_ms=now_ms())
        finally:
            store.close()
        found["meta"] = [entry for entry in found["meta"] if not entry.startswith(_OWN)]
        for table in ("settle_state", "events"):
            found[table] = [_KEY_ID.sub("#", _HEIGHT.sub("#", entry)) for entry in found[table]]
        found["events"] = [_BYTES_BEFORE.sub("#", entry) for entry in found["events"]]
        return found

    def names(self) -> set[str]:
        return {str(path.relative_to(self.work)) for path in self.work.rglob("*")}


class Reference:
    """What a change comes to when nothing disturbs it."""

    def __init__(self, place: Place, template: Path, change: Change) -> None:
        self.change = change
        self._template = template
        self._place = place
        self.states: list[State] = []
        self.begin()
        self.names = place.names()
        self.states.append(place.state())
        for steps in range(1, change.steps + 1):
            self.begin()
            began = time.perf_counter()
            self.done = place.run(change, steps=steps)
            self.took_s = time.perf_counter() - began
            assert self.done.code == 0, self.done
            self.states.append(place.state())
        self.names |= place.names()

    def begin(self) -> None:
        """The place as it is before the change."""
        self._place.reset(self._template, is_fresh=self.change.is_fresh)
        if self.change.first:
            self._place.prepare(list(self.change.first))

    def steps_done(self, state: State) -> int:
        """How far a change has come. A market that is empty is as good as none."""
        known = [_of_the_change(each) for each in self.states]
        state = _of_the_change(state)
        if state in known:
            return max(n for n, each in enumerate(known) if each == state)
        if self.states[0] is None and state is not None and not any(_told(state)):
            return 0
        after = self.states[-1]
        raise AssertionError(differences(after or {}, state or {name: [] for name in after or {}}))


def _of_the_change(state: State) -> State:
    """A state without what is counted beside."""
    if state is None:
        return None
    beside = (_UNSAVED, _UNSTORED, _NO_NEWS)
    counters = [each for each in state["counters"] if not each.startswith(beside)]
    return state | {"counters": counters}


def failed_saves(state: State) -> int:
    """How often the market has counted that the price board could not be saved."""
    return _counted(state, _UNSAVED)


def _counted(state: State, series: str) -> int:
    found = [each for each in (state or {}).get("counters", []) if each.startswith(series)]
    return sum(int(each[-3:-1], 16) for each in found)


def _told(state: dict[str, list[str]]) -> Iterator[str]:
    """What a market has that a new one has not."""
    yield from state["events"]
    yield from state["postings"]


def check_told(place: Place, reference: Reference, outcome: Outcome) -> int:
    """Hold what a command told against what it left; how many of its steps were done."""
    change = reference.change
    state = place.state()
    steps = reference.steps_done(state)
    warnings = outcome.err.count(NOT_SAVED)
    assert failed_saves(state) <= warnings, "a board is counted as not saved, and nobody was told"
    if _counted(state, _UNSTORED):
        assert outcome.code != 0, "a receipt is counted as not stored, and exit code 0"
        assert steps < change.steps, "a receipt is counted as not stored, and it is"
    told = outcome.out.splitlines()
    expected = reference.done.out.splitlines()
    assert outcome.out == "" or outcome.out.endswith("\n"), "half a line was told"
    claims = sum(line in expected for line in told)
    if claims and change.result is None:
        assert steps >= (min(claims, change.steps) if change.steps > 1 else 1), "told and not done"
    check_result(place, reference, outcome)
    return steps


def check_result(place: Place, reference: Reference, outcome: Outcome) -> None:
    """A result beside the market is whole, or not there."""
    result = reference.change.result
    if result is None:
        return
    path = place.work / result
    if path.is_dir():
        assert place.state(result) == reference.states[0]
    elif path.suffix == ".jsonl" and path.exists():
        assert verify(path.read_bytes().splitlines(keepends=True)).receipts
    elif path.suffix == ".scores" and path.exists():
        message = gossip.parse(path.read_bytes())
        gossip.verify(message, {message.key.key_id.hex()})
    elif result == TOKEN and path.exists():
        assert _TOKEN.fullmatch(path.read_text().removesuffix("\n"))
    elif path.exists():
        assert path.read_text().endswith("# EOF\n") or path.read_text().count("\n") > 50
    else:
        assert outcome.code != 0, "exit code 0, and not there"


def check_again(place: Place, reference: Reference) -> None:
    """The same command once more brings the market to where it should be."""
    change = reference.change
    is_done = reference.steps_done(place.state()) == change.steps
    if change.result is not None:
        is_done = (place.work / change.result).exists()
    if change.again or not is_done:
        done = place.run(change)
        assert done.code == 0, f"again: {done}"
    assert reference.steps_done(place.state()) == change.steps, "again, and not done"
    check_result(place, reference, Outcome(0, "", "", []))
