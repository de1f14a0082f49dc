"""The operator's commands under test.

`cli` runs them in this process, which takes two milliseconds instead of a hundred, over a home of
its own and with a clock that tests set. `cli.process` and `cli.start` run them in processes of
their own, which are forked with all modules imported; `afresh=True` starts one as an operator does,
where that is what a test is about. After every test the audit must find nothing.

A test module asks for these fixtures with `pytest_plugins = ("tests.support.cli",)`.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from compute_market import audit
from compute_market.config.rows import SETTINGS
from compute_market.laws import Violation
from compute_market.market import Market
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tb_cli.entry import call
from tb_cli.frame.guard import guarded
from tests.support.effort import REQUIRED
from tests.support.forked import Forked, commands
from tests.support.signals import kept_signals

T = TypeVar("T")

# BLAKE3-256 of b"hello", the content of a slice that a test does not care about.
HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
WRONG = "00" * 32
MIB = 1_048_576
# What is said of jobs that move no money.
NO_MONEY = " (dry run: no money moves)"
NOT_PAID = " (dry run: recorded, not paid)"
# What the first command says that finds an armed mode at its height.
REAL = "the settlement mode turned real"

# The fields of chapter 7.7 in their order, then those that were added since.
JOB_FIELDS = [
    *("job_id", "state", "buyer", "provider", "offer_id", "workload", "priority", "lane"),
    *("units", "units_proven", "slices", "slices_proven", "price_per_unit"),
    *("max_price_per_unit", "fee_pct_ct", "consumer_bond", "provider_bond", "deadline"),
    *("submitted_at", "started_at", "ended_at", "funded", "cause", "escrow", "paid", "refunded"),
    *("ended_by", "capability", "overdue", "provider_bond_min", "unreadable_slice", "held"),
]
OFFER_FIELDS = [
    *("offer_id", "provider", "units", "price_per_unit", "fee_pct_ct", "provider_bond"),
    *("consumer_bond", "capability", "reputation", "reputation_multiplier", "job_id"),
    *("state", "units_left", "units_reserved", "units_proven", "effective_price", "posted_at"),
    "shelf",
    "market_priced",
    "barred_by",
]
RECEIPT_FIELDS = [
    *("version", "job_id", "buyer", "provider", "quote_price", "units", "issued_at"),
    *("idempotency_key", "lane", "dry_run", "status", "paid", "seq"),
]


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_float=_no_float)

    @property
    def jsonl(self) -> list[Any]:
        return [json.loads(line, parse_float=_no_float) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON object on stderr."""
        assert self.err.count("\n") == 1, self.err
        found: dict[str, Any] = json.loads(self.err)
        return found


def _no_float(text: str) -> Any:
    raise AssertionError(f"{text} is no integer")


class Cli:
    """One home and the commands run on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.audited = True  # A test that damages the store sets this to False.
        # The present second: real processes may use the same home.
        self.now_ms = time.time_ns() // 1_000_000_000 * 1000
        self.set_ms = 0  # how much of that is no time that passed
        # What the boot clock said at second 0, had it gone as the wall clock did ever since.
        self.boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.now_ms * 1_000_000

    @property
    def now(self) -> int:
        return self.now_ms // 1000

    @property
    def data(self) -> Path:
        return self.home / "market" / "data.mdb"

    def advance(self, seconds: int) -> None:
        self.now_ms += seconds * 1000

    def set_clock(self, seconds: int) -> None:
        """Set the wall clock so much later or earlier, while no time passes."""
        self.now_ms += seconds * 1000
        self.set_ms += seconds * 1000

    def __call__(self, *arguments: str | Path, stdin: str | bytes = b"") -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        saved = sys.stdin, sys.stdout, sys.stderr
        out, err = io.BytesIO(), io.BytesIO()
        sys.stdin = io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(out, encoding="utf-8")
        sys.stderr = io.TextIOWrapper(err, encoding="utf-8", write_through=True)
        try:
            words = [str(argument) for argument in arguments]
            with kept_signals():
                code = guarded(lambda: call(words), words)
            sys.stdout.flush()
            return Done(code, out.getvalue().decode(), err.getvalue().decode())
        finally:
            sys.stdin, sys.stdout, sys.stderr = saved

    def ok(self, *arguments: str | Path, stdin: str | bytes = b"", due: str = "") -> str:
        """The output of a command that succeeds.

        All that it tells beside is that it made the market, and what was `due`.
        """
        markets = self.markets()
        done = self(*arguments, stdin=stdin)
        told = self.told(markets, arguments) + (f"{due}\n" if due else "")
        assert (done.code, done.err) == (0, told), done
        return done.out

    def document(self, *arguments: str | Path, stdin: str | bytes = b"", due: str = "") -> Any:
        """The JSON document of a command that succeeds; `due` as in `ok`."""
        return Done(0, self.ok(*arguments, "--json", stdin=stdin, due=due), "").json

    def markets(self) -> set[Path]:
        """The homes that have a market."""
        return {path.parents[1] for path in self.directory.rglob("data.mdb")}

    def told(self, before: set[Path], arguments: tuple[str | Path, ...]) -> str:
        """What a command must have said on stderr of the markets that it made."""
        new = sorted(self.markets() - before)
        if "state" in arguments and {"init", "backup", "restore"} & {*arguments}:
            return ""  # It is their result.
        return "".join(f"created a market in {home}\n" for home in new)

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "tb_cli.entry", *map(str, arguments)]

    def process(
        self, *arguments: str | Path, stdin: str | bytes = b"", afresh: bool = False, **extra: Any
    ) -> Done:
        """Run a command in a process of its own, which is given what fits a pipe."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        running = self.start(*arguments, stdin=subprocess.PIPE, afresh=afresh, **extra)
        out, err = running.communicate(given, timeout=60)
        return Done(running.wait(60), out.decode(), err.decode())

    def start(
        self,
        *arguments: str | Path,
        stdin: int = subprocess.DEVNULL,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        afresh: bool = False,
        **extra: Any,
    ) -> "Forked | subprocess.Popen[bytes]":
        """Start a command; streams are files, descriptors or `subprocess.PIPE`.

        Beside them forked ones take `env`, `cwd` and `pass_fds`, others what Popen does.
        """
        if afresh:  # As a shell would, whatever signals this process ignores.
            usual = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
            streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            return subprocess.Popen(self.command(*arguments), **(usual | streams | extra))
        out, err = (
            stream if isinstance(stream, int) else stream.fileno() for stream in (stdout, stderr)
        )
        with open(os.devnull, "rb") as nothing:
            return commands().start(
                *("tb_cli.entry", *map(str, arguments)),
                environment=extra.pop("env", os.environ),
                directory=extra.pop("cwd", None),
                stdin=nothing.fileno() if stdin == subprocess.DEVNULL else stdin,
                stdout=out,
                stderr=err,
                **extra,
            )

    # What most tests begin with, with everything they are not about left at a default.

    def slice(self, name: str = "a.slice", content: bytes = b"hello") -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def sparse(self, units: int) -> dict[str, Any]:
        """A slice of so many units for a job file. It takes no room."""
        path = self.directory / f"{units}.slice"
        with path.open("wb") as file:
            file.truncate(units * MIB)
        return {"path": str(path)}

    def post(self, *extra: str, provider: str = "prov", units: int = 1000, price: int = 5) -> str:
        """Post an offer; returns its id."""
        terms = ("--provider", provider, "--units", str(units), "--price", str(price))
        words = _unless_given(terms, extra)
        found: str = self.document("compute", "offer", "post", *words, *extra)["offer_id"]
        return found

    def job_arguments(
        self, job_id: str = "j1", *extra: str, buyer: str = "alice", slices: Any = None
    ) -> tuple[str, ...]:
        """The command that submits a job by options."""
        paths = slices or [self.slice()]
        given = [text for path in paths for text in ("--slice", str(path))]
        terms = ("--job-id", job_id, "--buyer", buyer, "--workload", "transcode")
        words = _unless_given((*terms, "--max-price", "100"), extra)
        return ("compute", "submit", *words, *given, *extra)

    def submit(self, job_id: str = "j1", *extra: str, **terms: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.document(*self.job_arguments(job_id, *extra, **terms))
        return found

    def active(self, *job_ids: str) -> None:
        """An offer, and active jobs on it."""
        self.post()
        for job_id in job_ids or ("j1",):
            assert self.submit(job_id)["state"] == "active"

    def real(self) -> None:
        """Money moves from here on, and both parties have some."""
        self.ok("wallet", "deposit", "alice", "--ct", "1000", "--it", "1000")
        self.ok("wallet", "deposit", "prov", "--ct", "100")
        self.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
        self.ok("tick", due=REAL)

    # What is stored afterwards.

    def view(self, fn: Callable[[Txn], T]) -> T:
        store = Store.open(str(self.home / "market"), sleep=time.sleep)
        try:
            return store.view(fn, now_ms=self.now_ms)
        finally:
            store.close()

    def update(self, fn: Callable[[Txn], T]) -> T:
        """Do what no command does yet."""
        with Market.open(str(self.home), clock=lambda: self.now_ms, sleep=time.sleep) as market:
            return market.update(fn)

    def job(self, job_id: str = "j1") -> dict[str, Any]:
        found: dict[str, Any] = self.document("compute", "status", job_id)
        return found

    def offer(self, offer_id: str = "o-1") -> dict[str, Any]:
        found: dict[str, Any] = self.document("compute", "offer", "show", offer_id)
        return found

    def wallet(self, owner: str) -> tuple[int, int]:
        """CT and IT of an owner. One of whom nobody has heard has none."""
        done = self("wallet", "balance", owner, "--json")
        if done.code == 3:
            assert done.error["message"] == f"party {owner} does not exist", done
            return 0, 0
        assert (done.code, done.err) == (0, ""), done
        return done.json["ct"], done.json["it"]

    def score(self, provider: str = "prov") -> int:
        found: int = self.document("net", "reputation", "show", provider)[0]["score"]
        return found

    def states(self) -> dict[str, str]:
        return {row["job_id"]: row["state"] for row in self.document("compute", "list", "--all")}

    def log(self) -> str:
        """`cancellations.log`."""
        path = self.home / "cancellations.log"
        return path.read_text() if path.exists() else ""

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Every file of the home with its mode and bytes, but for LMDB's table of readers."""
        return {
            str(path.relative_to(self.home)): (path.stat().st_mode, path.read_bytes())
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and path.name != "lock.mdb"
        }

    def violations(self) -> list[Violation]:
        """What the audit finds in the store and in `cancellations.log` as it lies there."""
        log = self.log().encode()
        return self.view(lambda txn: [*audit.check(txn), *audit.log_violations(txn, log)])


def _unless_given(terms: tuple[str, ...], extra: tuple[str, ...]) -> tuple[str, ...]:
    """Options with their values, but for those that are given."""
    pairs = zip(terms[::2], terms[1::2], strict=True)
    return tuple(word for pair in pairs if pair[0] not in extra for word in pair)


@contextmanager
def operating(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Commands over a home that does not exist yet, in a directory and an environment of its own.

    The audit must find nothing afterwards.
    """
    operator = Cli(directory)
    for name in ("NO_COLOR", "TB_DEBUG", *(setting.variable for setting in SETTINGS)):
        patch.delenv(name, raising=False)
    patch.setenv("TB_HOME", str(operator.home))
    patch.setenv("HOME", str(directory))
    path = (str(_ROOT), str(_ROOT / "cli"), os.environ.get("PYTHONPATH", ""))
    patch.setenv("PYTHONPATH", os.pathsep.join(path))
    patch.chdir(directory)
    patch.setattr(time, "time_ns", lambda: operator.now_ms * 1_000_000)
    read = time.clock_gettime_ns

    def clock_gettime_ns(clock: int) -> int:
        """The boot clock goes as the wall clock does; a test that sets the latter says so."""
        passed_ns = (operator.now_ms - operator.set_ms) * 1_000_000
        return operator.boot_ns + passed_ns if clock == time.CLOCK_BOOTTIME else read(clock)

    patch.setattr(time, "clock_gettime_ns", clock_gettime_ns)
    yield operator
    if operator.audited and operator.data.is_file():
        assert operator.violations() == []


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Commands over a home that does not exist yet; the audit must find nothing after the test."""
    with operating(tmp_path, monkeypatch) as operator:
        yield operator


class Prepared:
    """A home that a module makes once, and that each of its tests begins with a copy of.

    Files that its market refers to stay where they were when it was made.
    """

    def __init__(self, directory: Path, prepare: Callable[[Cli], None]) -> None:
        with pytest.MonkeyPatch.context() as patch, operating(directory, patch) as made:
            prepare(made)
        self._made = made

    def copy_to(self, cli: Cli) -> None:
        """Go on from there in the home of a test, at the time that it was then."""
        shutil.copytree(self._made.directory, cli.directory, dirs_exist_ok=True)
        cli.now_ms, cli.set_ms = self._made.now_ms, self._made.set_ms
        cli.boot_ns = self._made.boot_ns


@pytest.fixture
def from_bash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process find that they were started by Bash, whatever has started pytest."""
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))


@pytest.fixture
def compiled_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile kernels well would take longer than all that they then do."""
    monkeypatch.setenv("PYOPENCL_BUILD_OPTIONS", "-cl-opt-disable")


@pytest.fixture
def measured_little(monkeypatch: pytest.MonkeyPatch, compiled_quickly: None) -> None:
    """A calibration in this process measures each figure once, on a part of the data."""
    from compute_market.hashing import measure

    sizes = {"_LONG_BYTES": 8 * MIB, "_RESIDENT_BYTES": 8 * MIB, "_SLICES": 200}
    for name, value in (sizes | {"_RUNS_MAX": 1, "_FMA_RUN_NS": 1_000_000}).items():
        monkeypatch.setattr(measure, name, value)


def without(*names: str) -> str | None:
    """Why a test cannot run: the first of these programs or Python modules not installed.

    A module is written as `python:NAME`. `TB_REQUIRE` names what must be there, so that a run may
    insist on it.
    """
    from importlib.util import find_spec
    from shutil import which

    for name in names:
        module = name.removeprefix("python:")
        if (find_spec(module) if module != name else which(name)) is None:
            return missing(name, f"{name} is not installed")
    return None


@cache
def without_opencl() -> str | None:
    """Why a test cannot run on an OpenCL device, be it a CPU that poses as one (PoCL)."""
    from compute_market.hashing.hasher import open_device

    try:
        from compute_market.hashing.device import DeviceError
    except ImportError as error:
        return missing("pocl", str(error))
    try:
        open_device("opencl", any_device=True).close()
    except DeviceError as error:
        return missing("pocl", f"no usable OpenCL device: {error}")
    return None


def missing(name: str, reason: str) -> str:
    """The reason, unless `TB_REQUIRE` names what is missing: then the test fails."""
    assert name not in REQUIRED, f"{name} is required: {reason}"
    return reason


_ROOT = Path(__file__).resolve().parents[2]
