"""Homes, real `tb-cli` processes on them, and what two stores can be compared by."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import lmdb
import pytest
from blake3 import blake3
from msgspec import structs

from compute_market import audit, events
from compute_market.courier import courier
from compute_market.jobs.prove import prove
from compute_market.jobs.submit import Submitted, post_offer, submit
from compute_market.market import Market
from compute_market.records import Slice
from compute_market.scheduler import queue
from compute_market.settlement import ledger
from compute_market.store.environment import MAX_TABLES
from compute_market.store.schema import (
    BUNDLES_ENDED,
    BUNDLES_PENDING,
    CONSUMER_POOL,
    COUNTERS,
    EFFECTIVE_PRICES,
    EFFECTIVE_PRICES_RECENT,
    ENDED,
    EVENTS,
    MEMPOOL,
    MEMPOOL_SENDERS,
    META,
    PENDING,
    PRICES,
    PROVIDER_CANCELS,
    QUEUE_PAIRS,
    RECEIPT_CHAIN,
    RECORD_TABLES,
    SCORES_DUE,
    SCORES_RECENT,
    TABLES,
    THROUGHPUT,
    USAGE,
    USAGE_RECENT,
    WALLET_POSTINGS,
    pack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support import forked
from tests.support.market import job_request, offer_request

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tb_cli.entry")

needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="needs /proc to see what a process waits for"
)

# No command of these tests works for longer than a second or two; one that is not over by then
# waits for something that nobody gives back.
ENDS_WITHIN_S = 60.0

# Money moves, and admission lets in whatever comes.
CONFIG = """\
settle_mode = "real"
initial_capacity = 1000000000
fair_share_cap = 1.0
low_priority_cap_pct = 100
deadline_max_secs = 315360000000
[scheduler]
slots = {slots}
"""
# An absolute deadline is the same however often and whenever the job is submitted.
DEADLINE = 4_000_000_000
PRICE = 7
FEE_PCT_CT = 37
FUNDS = 10_000_000


# What the tests draw their random choices from. Set the variable to repeat those of a run.
SEED = os.environ.get("CRASH_SEED") or os.urandom(4).hex()


def random(name: str) -> Random:
    print(f"CRASH_SEED={SEED}")
    return Random(f"{SEED} {name}")


class Command(NamedTuple):
    """A command line and its standard input."""

    arguments: Sequence[str]
    stdin: str = ""


class Running:
    """A `tb-cli` process. What it prints goes to a file, which a kill does not take away."""

    def __init__(self, process: forked.Forked, output: Path) -> None:
        self.process = process
        self.started = time.perf_counter()
        self._output = output

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> bool:
        """Kill it; False when it had ended by itself."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def end(self, within_s: float = ENDS_WITHIN_S) -> int:
        """Wait until it has ended by itself; its exit code."""
        try:
            return self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {within_s} s: {self.errors()}") from None

    def printed(self) -> int:
        """How many bytes it has printed so far."""
        return os.stat(self._output).st_size

    def lines(self) -> list[str]:
        """The complete lines it has printed: what it has told the world."""
        text = self._output.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def errors(self) -> str:
        return self._output.with_suffix(".err").read_text()

    def has_open(self, path: Path) -> bool:
        """Whether it has that file open just now."""
        directory = f"/proc/{self.process.pid}/fd"
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(f"{directory}/{name}") == str(path):
                        return True
        return False


class Home:
    """A home directory and the commands that run on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.market = path / "market"
        self.log_path = path / "cancellations.log"
        self._scratch = path.with_name(path.name + "-output")
        self._count = 0

    @classmethod
    def make(cls, path: Path, slots: int = 100_000) -> "Home":
        home = cls(path)
        path.mkdir(mode=0o700)
        (path / "config.toml").write_text(CONFIG.format(slots=slots))
        return home

    def copy(self, path: Path) -> "Home":
        shutil.copytree(self.path, path)
        return Home(path)

    def remove(self) -> None:
        shutil.rmtree(self.path)
        shutil.rmtree(self._scratch, ignore_errors=True)

    # Through the library.

    @contextlib.contextmanager
    def opened(self) -> Iterator[Market]:
        """The market as another process sees it; it is made if need be."""
        market_id = os.urandom(16)
        with Market.open(
            str(self.path), clock=now_ms, sleep=time.sleep, market_id=market_id
        ) as market:
            yield market

    def view(self, fn: Callable[[Txn], T]) -> T:
        with self.opened() as market:
            return market.view(fn)

    def update(self, fn: Callable[[Txn], T]) -> T:
        """One action, as a market command does it."""
        with self.opened() as market:
            return market.update(fn)

    def log(self) -> bytes:
        return self.log_path.read_bytes() if self.log_path.exists() else b""

    def follow(self) -> None:
        """Make the log whole, as every command that writes does."""
        with self.opened() as market:
            market.follow_log(str(self.log_path))

    def violations(self, *, log: bool = True) -> list[str]:
        """What the audit finds; without the log, which a killed process may leave unfinished."""

        def found(txn: Txn) -> list[str]:
            laws = list(audit.check(txn))
            return [*map(str, laws), *(map(str, audit.log_violations(txn, content)) if log else ())]

        content = self.log()
        return self.view(found)

    # Through the command line.

    def start(self, *arguments: str, stdin: str | int = "", stdout: int | None = None) -> Running:
        """Start a command. Streams may be given as descriptors, stdin also as its content."""
        self._scratch.mkdir(exist_ok=True)
        self._count += 1
        output = self._scratch / f"{self._count}.out"
        content = output.with_suffix(".in")
        content.write_text(stdin if isinstance(stdin, str) else "")
        with (
            content.open("rb") as input_file,
            output.open("wb") as output_file,
            output.with_suffix(".err").open("wb") as error_file,
        ):
            process = forked.commands().start(
                *("tb_cli.entry", *arguments),
                directory=ROOT,
                environment=self.environment(),
                stdin=input_file.fileno() if isinstance(stdin, str) else stdin,
                stdout=output_file.fileno() if stdout is None else stdout,
                stderr=error_file.fileno(),
            )
        return Running(process, output)

    def environment(self) -> dict[str, str]:
        """That of this process, with this home and no other setting."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TB_")}
        return kept | {"TB_HOME": str(self.path)}

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> list[str]:
        """Run a command to its end; the lines it printed."""
        running = self.start(*arguments, stdin=stdin)
        assert running.end() == code, f"{' '.join(arguments)}: {running.errors()}"
        return running.lines()

    def run_at_once(self, commands: Sequence[Command]) -> list[Running]:
        """Start the commands, let all of them come to the turnstile, and only then let go."""
        self.market.mkdir(mode=0o700, exist_ok=True)
        with locked(self.market):
            started = [self.start(*command.arguments, stdin=command.stdin) for command in commands]
            for running in started:
                # The turnstile is the directory itself.
                until(lambda running=running: running.has_open(self.market) or running.ended)
                assert not running.ended, running.errors()
        for running in started:
            running.end()
        return started


class Watch:
    """Sees commits of other processes as they happen, and takes no lock for it."""

    def __init__(self, home: Home) -> None:
        self._env = lmdb.open(
            str(home.market), readonly=True, lock=False, create=False, max_dbs=MAX_TABLES
        )

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()

    def commits(self) -> int:
        """How many commits there were in the life of the store."""
        return int(self._env.info()["last_txnid"])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the advisory lock that commands take on a file or directory."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def until(claim: Callable[[], bool]) -> None:
    """Wait until a claim comes true; it is an error if it does not."""
    give_up = time.monotonic() + ENDS_WITHIN_S
    while not claim():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(0.0005)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# What is put into a home before a test.


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:03}" for number in range(count)]


def fund(home: Home) -> None:
    """Pay `buyer` and `prov`, and post an offer of plenty of units that fits every job."""

    def act(txn: Txn) -> None:
        ledger.tap(txn, "deposit", "buyer", {"CT": FUNDS, "IT": FUNDS}, None)
        ledger.tap(txn, "deposit", "prov", {"CT": FUNDS, "IT": 0}, None)
        post_offer(
            txn,
            offer_request(
                "prov",
                offer_id="offer",
                units=1_000_000,
                price_per_unit=PRICE,
                fee_pct_ct=FEE_PCT_CT,
                provider_bond=21,
                reputation=900,
            ),
        )

    home.update(act)


def slice_files(directory: Path) -> list[Slice]:
    """Three small files to be hashed, and the slices they are."""
    directory.mkdir(exist_ok=True)
    found = []
    for name in ("a", "b", "c"):
        path = directory / f"{name}.slice"
        path.write_bytes(name.encode() * 100)
        found.append(Slice(str(path), 100, blake3(path.read_bytes()).digest()))
    return found


def submit_jobs(home: Home, jobs: dict[str, list[Slice]], *, proven: int = 0) -> None:
    """Submit jobs of these slices, in every priority; prove the first slices of all they run."""

    def act(txn: Txn) -> None:
        for number, (job_id, inputs) in enumerate(jobs.items()):
            priority = ("low", "normal", "high")[number % 3]
            request = job_request(job_id, inputs, deadline=DEADLINE, priority=priority)
            submitted = submit(txn, request, inputs)
            assert isinstance(submitted, Submitted)
            if submitted.job.state == "active" and len(inputs) > proven:
                proofs = [(index, inputs[index].reference) for index in range(proven)]
                prove(txn, job_id, proofs)

    home.update(act)


# What two stores are compared by.

_TIMES = frozenset(
    (
        *("at_ms", "applied_ms", "proven_ms", "changed_ms", "queued_ms", "issued_at"),
        *(
            "submitted_at",
            "started_at",
            "ended_at",
            "posted_at",
            "epoch",
            "sent_ms",
            "ended_ms",
            "proposed_ms",
        ),
        "digest",  # a link of the chain binds the time its receipt was issued
        "event_seq",  # how many proofs one commit holds depends on when the run before it died
    )
)
_ORDER = frozenset(("seq", "queue_seq", "offset"))
# Nothing but times, or what shrinks as time, and blocks with it, passes. How many transactions were
# admitted, and their fees, is in `meta`.
_TIMED_TABLES = (USAGE, USAGE_RECENT, THROUGHPUT, MEMPOOL, MEMPOOL_SENDERS, CONSUMER_POOL)
_TIMED_NUMBERS = (
    *(b"last_run_ms", b"clock", b"height_seen", b"event_seq"),
    *(b"pending_marked", b"pending_settings"),  # the next command takes note of them
    *(b"scores_due_from_ms", b"scores_saved_ms", b"scores_told_ms"),
    *(b"mempool_arrivals", b"mempool_next_block", b"price_board_counted"),
)
_TIMED_COUNTERS = (
    b"scheduler_match_latency_seconds",
    b"match_loop_latency_seconds",
    b"scheduler_priority_miss_total",
    # Each process loads the board once, and counts that of the one before it was saved.
    b"price_board_load_total",
    b"price_board_save_total\0success",
)


def snapshot(home: Home, *, ordered: bool = True) -> dict[str, list[str]]:
    """Everything in a store, and the log, without the times; without the order if not `ordered`."""
    lines = home.log().decode().splitlines()
    stored = home.view(lambda txn: everything(txn, ordered=ordered))
    return stored | {"cancellations.log": lines if ordered else sorted(lines)}


def everything(txn: Txn, *, ordered: bool = True) -> dict[str, list[str]]:
    """The store's part of a snapshot."""
    found = {
        table.name: sorted(_entries(txn, table, ordered))
        for table in TABLES
        if table not in (*_TIMED_TABLES, EVENTS)
    }
    return _with_bundles_numbered(txn, found | {EVENTS.name: _told(txn, ordered)})


def _with_bundles_numbered(txn: Txn, found: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same with the ids of bundles, which are drawn, replaced by the order of sending."""
    names = {
        name: f"bundle-{receipt.seq}"
        for receipt in courier.receipts(txn)
        for name in (
            repr(pack_u64(receipt.receipt_id)),
            courier.id_text(receipt.receipt_id),
            str(receipt.receipt_id),
        )
    }
    if not names:
        return found
    pattern = re.compile("|".join(map(re.escape, names)))
    return {
        table: sorted(pattern.sub(lambda match: names[match[0]], entry) for entry in entries)
        if table != EVENTS.name
        else [pattern.sub(lambda match: names[match[0]], entry) for entry in entries]
        for table, entries in found.items()
    }


def differences(expected: dict[str, list[str]], found: dict[str, list[str]]) -> list[str]:
    """The first few entries that one snapshot has and the other has not."""
    told = []
    for table in expected:
        lacking = Counter(expected[table]) - Counter(found[table])
        added = Counter(found[table]) - Counter(expected[table])
        told += [f"{table} lacks {entry}" for entry in list(lacking.elements())[:3]]
        told += [f"{table} has {entry}" for entry in list(added.elements())[:3]]
        if not (lacking or added) and expected[table] != found[table]:
            told.append(f"{table} is in another order")
    return told


def _entries(txn: Txn, table: Table[Any], ordered: bool) -> Iterator[str]:
    if table in RECORD_TABLES:
        for key, payload in txn.scan(table):
            fields = structs.asdict(table.decode(key, payload))
            is_numbered = "seq" in fields or "offset" in fields or table is RECEIPT_CHAIN
            shown = "" if is_numbered and not ordered else f"{key!r} "
            yield shown + repr(_timeless(fields, ordered))
        return
    for key, value in txn.scan(table):
        if table is META and key in _TIMED_NUMBERS:
            continue
        if table is COUNTERS.table and key.startswith(_TIMED_COUNTERS):
            continue
        if table in (PENDING, QUEUE_PAIRS, *queue.TABLES.values()):
            yield f"{key if ordered else b''!r} {value[8:]!r}"
        elif table is PRICES:
            yield f"{key if ordered else key[:1]!r} {value[:8]!r}"
        elif table is EFFECTIVE_PRICES:
            yield f"{key!r} {value[8:]!r}"
        elif table in (ENDED, EFFECTIVE_PRICES_RECENT, SCORES_RECENT, SCORES_DUE, BUNDLES_ENDED):
            yield repr(key[8:])
        elif table is BUNDLES_PENDING:
            yield f"{key!r} {any(value)}"
        elif table is PROVIDER_CANCELS:
            provider, _, rest = key.partition(b"\0")
            yield f"{provider!r} {rest[8:]!r}"
        elif table is WALLET_POSTINGS and not ordered:
            yield repr(key[:-8])
        else:
            yield f"{key!r} {value!r}"


def _timeless(fields: dict[str, Any], ordered: bool) -> dict[str, Any]:
    """The fields of a record, of a time only whether it is there."""
    return {
        name: (value is not None) if name in _TIMES else value
        for name, value in fields.items()
        if ordered or name not in _ORDER
    }


def _told(txn: Txn, ordered: bool) -> list[str]:
    """What the log tells, whoever asked and however many proofs came at once."""
    proven: Counter[tuple[str | None, str]] = Counter()
    found = []
    for logged in events.forward(txn):
        event = logged.event
        if event.event == "job_proved":
            for what in ("slices", "units"):
                proven[event.job_id, what] += event.detail[what]
        else:
            detail = {name: value for name, value in event.detail.items() if name != "waited_ms"}
            found.append(f"{event.event} {event.job_id} {event.offer_id} {event.owner} {detail}")
    return [*(found if ordered else sorted(found)), *map(str, sorted(proven.items()))]
