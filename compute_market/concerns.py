"""What an operator should know at once: what is wrong, and what is worth a look.

Each is a verdict on what `overview.document` found, and on a few more numbers.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from msgspec import Struct

from compute_market import metrics
from compute_market.clock import LAST_RUN
from compute_market.courier import courier
from compute_market.records import Priority
from compute_market.scheduler import queue
from compute_market.settlement import modes
from compute_market.store.schema import IMPORT_FAILURES, QUARANTINE
from compute_market.store.txn import Txn

# Something has to be done about it, or it may be that all is as it should be.
Level = Literal["act", "watch"]
About = Literal["clock", "settlement", "receipts", "courier", "jobs", "offers", "prices"]

# What is due is done by the next change; where none comes for so long, no timer runs.
IDLE_MS: Final = 600_000
# For a job of this priority it is long to wait for a slot.
LONG_WAIT_MS: Final[dict[Priority, int]] = {"high": 60_000, "normal": 900_000}
# Bundles that wait, of which it is asked whether they failed.
BUNDLES_ASKED: Final = 256


class Concern(Struct, frozen=True, gc=False):
    """One of them: `text` says what, `way_out` what can be done about it."""

    level: Level
    about: About
    text: str
    way_out: str


def of(txn: Txn, found: dict[str, Any]) -> list[Concern]:
    """The concerns of a market, of which `found` is the overview; what needs an act comes first."""
    all_ = [*_time(txn, found), *_money(txn, found), *_work(txn, found), *_bundles(txn)]
    return sorted(all_, key=lambda each: each.level != "act")


def _time(txn: Txn, found: dict[str, Any]) -> Iterator[Concern]:
    if not txn.timely:
        yield Concern(
            "act",
            "clock",
            "the clock is not believed: nothing falls due until it is",
            "`tb-cli compute-market clock` says why",
        )
    idle_ms = txn.now_ms - txn.number(LAST_RUN)
    if found["due"] and idle_ms >= IDLE_MS:
        yield Concern(
            "act",
            "jobs",
            f"something is due, and nothing has changed the market for {idle_ms // 60_000} minutes",
            "`tb-cli tick` does what is due; a timer should run it",
        )


def _money(txn: Txn, found: dict[str, Any]) -> Iterator[Concern]:
    damaged = txn.size(QUARANTINE)
    if damaged:
        yield Concern(
            "act",
            "receipts",
            f"{_counted(damaged, 'receipt is', 'receipts are')} damaged and in quarantine",
            "`tb-cli compute-market audit` names them; restore from a backup",
        )
    failed = sum(number for _, number in metrics.series(txn, "settle_failed_total"))
    present = modes.state(txn)
    if present.mode == "dry_run" and present.reason is not None:
        yield Concern(
            "act" if failed else "watch",
            "settlement",
            f"settlement is in dry_run, no money moves: {present.reason}",
            "`tb-cli compute-market settle arm --delay-blocks N` once the reason is gone",
        )
    unpaid = txn.size(IMPORT_FAILURES)
    if unpaid:
        yield Concern(
            "watch",
            "settlement",
            f"{_counted(unpaid, 'receipt', 'receipts')} of other markets could not be paid",
            "`tb-cli compute-market receipts list --imported` shows why",
        )


def _work(txn: Txn, found: dict[str, Any]) -> Iterator[Concern]:
    if found["guard"]["mode"] == "tight":
        yield Concern(
            "watch",
            "prices",
            "the comfort guard is tight: no industrial job is admitted",
            "it opens as consumer fees and ages fall",
        )
    for priority, long_ms in LONG_WAIT_MS.items():
        waited_ms = queue.oldest_wait_ms(txn, priority)
        if waited_ms >= long_ms:
            yield Concern(
                "watch",
                "jobs",
                f"a {priority} job has waited {waited_ms // 1000} s for a slot",
                "`scheduler.slots` sets how many run at once",
            )
    pending = found["pending"]["jobs"]
    if pending:
        reason = next(iter(found["pending"]["reasons"]), "an offer")
        yield Concern(
            "watch",
            "jobs",
            f"{_counted(pending, 'job waits', 'jobs wait')} for an offer, most for: {reason}",
            "`tb-cli compute explain JOB` says what would let one in",
        )
    barred = found["offers"]["barred"]
    if barred:
        yield Concern(
            "watch",
            "offers",
            f"{_counted(barred, 'offer is', 'offers are')} barred: bad standing",
            "scores fade with time; `tb-cli net reputation show` shows them",
        )
    unfunded = found["offers"]["unfunded"]
    if unfunded and found["settlement"] != "dry_run":
        yield Concern(
            "watch",
            "offers",
            f"{_counted(unfunded, 'offer', 'offers')} cannot be taken: the bond is not there",
            "`tb-cli wallet deposit` for their providers",
        )


def _bundles(txn: Txn) -> Iterator[Concern]:
    waiting, _ = courier.waiting(txn, None, BUNDLES_ASKED)
    failing = sum(each.attempts > 0 for each in waiting)
    if failing:
        yield Concern(
            "watch",
            "courier",
            f"{_counted(failing, 'bundle has', 'bundles have')} not arrived at the first attempt",
            "`tb-cli compute courier list --pending` shows the errors",
        )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
