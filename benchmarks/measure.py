"""What the benchmarks share: times taken side by side, markets to measure, one line per claim."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rounds import Action as Action
from rounds import interleave as interleave
from rounds import ratio as ratio

from compute_market.config.settings import DEFAULTS, Config
from compute_market.engine import Engine, open_store
from compute_market.jobs.submit import post_offer, submit
from compute_market.records import Refused, Slice, replace
from compute_market.requests import CapabilityRequest, JobRequest, OfferRequest
from compute_market.settlement import ledger
from compute_market.store.environment import Creation
from compute_market.store.txn import Txn

# What the jobs of one market may ask for is bounded by its capacity; here nothing is refused.
OPEN_HANDED = replace(DEFAULTS, settle_mode="real", slots=1_000_000, initial_capacity=1_000_000)

_failures: list[str] = []


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and a smaller market")
    return parser


def claim(text: str, measured: float, bound: float, unit: str) -> None:
    """Print one claim with what was measured; `finish` remembers a miss."""
    kept = measured <= bound
    print(f"{'ok  ' if kept else 'MISS'} {text}: {measured:.2f} {unit}, at most {bound:g} {unit}")
    if not kept:
        _failures.append(text)


def claim_at_least(text: str, measured: float, bound: float, unit: str) -> None:
    """The same for what must not be below its bound."""
    kept = measured >= bound
    print(f"{'ok  ' if kept else 'MISS'} {text}: {measured:.2f} {unit}, at least {bound:g} {unit}")
    if not kept:
        _failures.append(text)


def finish() -> None:
    """End the benchmark: with code 1 if a claim was missed."""
    sys.exit(1 if _failures else 0)


@contextmanager
def scratch(*, on_disk: bool, gib: float = 0.1) -> Iterator[Path]:
    """A directory that is removed afterwards: on a disk, or in memory if there is room for it."""
    memory = Path("/dev/shm")
    in_memory = not on_disk and memory.is_dir() and shutil.disk_usage(memory).free > gib * 2**30
    parent = memory if in_memory else Path("/var/tmp")
    path = Path(tempfile.mkdtemp(prefix="tb-bench-", dir=parent if parent.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def environment(home: Path) -> dict[str, str]:
    """The variables of a command that acts on `home`; none that changes how Python starts."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TB_", "COVERAGE"))
    }
    return kept | {"TB_HOME": str(home)}


def command(
    words: Sequence[str | Path],
    env: dict[str, str],
    stdin: Path | None = None,
    stdout: int = subprocess.DEVNULL,
) -> None:
    """Run a command to its end; anything but success is an error."""
    with open(stdin or os.devnull, "rb") as source:
        done = subprocess.run(words, env=env, stdin=source, stdout=stdout, stderr=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{words} ended with code {done.returncode}: {done.stderr.decode()}")


class Peak(NamedTuple):
    """The memory of a command that has ended, and the lines it printed."""

    resident_mb: float  # everything, pages of mapped files included
    allocated_mb: float  # anonymous memory, sampled while it printed; 0 where it is not known
    lines: int


def peak_memory(
    words: Sequence[str | Path], env: dict[str, str], stdin: Path | None = None
) -> Peak:
    """Run a command, read what it prints and return the peak of its memory.

    The kernel lets a command inherit the peak of the process that starts it, so that must be small.
    """
    with open(stdin or os.devnull, "rb") as source:
        child = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stdin=source)
    assert child.stdout is not None
    lines, allocated = 0, 0.0
    while block := child.stdout.read1(1 << 20):
        lines += block.count(b"\n")
        allocated = max(allocated, _allocated_mb(child.pid))
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{words} ended with code {child.returncode}")
    # Linux counts in KiB, macOS in bytes.
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Peak(resident / 1e6, allocated, lines)


def _allocated_mb(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return 0.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def open_market(home: Path, config: Config = DEFAULTS) -> Engine:
    """A market in the directory `home`, made there if need be. `config` is not stored with it."""
    home.mkdir(mode=0o700, exist_ok=True)
    creation = Creation(now_ms(), bytes(16))
    store = open_store(str(home), config, sleep=time.sleep, creation=creation)
    return Engine(store, config, clock=now_ms)


def offer_request(provider: str = "prov", **fields: object) -> OfferRequest:
    terms: dict[str, object] = {"units": 1000, "price_per_unit": 5}
    return OfferRequest(provider=provider, **(terms | fields))  # type: ignore[arg-type]


def job_request(job_id: str, **fields: object) -> JobRequest:
    terms: dict[str, object] = {
        "buyer": "buyer",
        "workload": "transcode",
        "slices": ["slice"],
        "max_price_per_unit": 100,
        "capability": CapabilityRequest(),
    }
    return JobRequest(job_id=job_id, **(terms | fields))  # type: ignore[arg-type]


def funded_jobs(home: Path, count: int, config: Config = OPEN_HANDED) -> list[str]:
    """Fill a home with jobs that are active and paid for, and return their ids."""
    inputs = [Slice("/slices/a", 10, bytes(32))]
    job_ids = [f"job-{number:06d}" for number in range(count)]

    def fill(txn: Txn) -> None:
        for owner in ("buyer", "prov"):
            ledger.tap(txn, "deposit", owner, {"CT": 100 * count, "IT": 100 * count}, None)
        post_offer(txn, offer_request(units=2 * count))
        for job_id in job_ids:
            submitted = submit(txn, job_request(job_id), inputs)
            if isinstance(submitted, Refused):
                raise SystemExit(f"{job_id}: {submitted.message}")
            assert submitted.job.state == "active"
            assert submitted.job.funded

    with open_market(home, config) as market:
        market.update(fill)
    return job_ids
