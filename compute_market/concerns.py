"""What an operator should know at once: what is wrong, and what is worth a look.

Each is a verdict on what `overview.document` found, and on a few more numbers.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from msgspec import Struct

from compute_market import events
from compute_market.admission.shares import WINDOW_SECS
from compute_market.clock import LAST_RUN
from compute_market.courier import documents
from compute_market.events import Selection
from compute_market.exposition import Files
from compute_market.records import Priority
from compute_market.scheduler import queue
from compute_market.settlement import imports, modes
from compute_market.store import sparing
from compute_market.store.schema import IMPORT_FAILURES, QUARANTINE
from compute_market.store.txn import Txn

# Something has to be done about it, or it may be that all is as it should be.
Level = Literal["act", "watch"]
About = Literal["clock", "settlement", "receipts", "courier", "jobs", "offers", "prices", "store"]

# What is due is done by the next change; where none comes for so long, no timer runs.
IDLE_MS: Final = 600_000
# A part of the data file's map that is in use, and the age of the last backup.
MAP_USED_MAX: Final = 0.8
BACKUP_AGE_MS: Final = 36 * 3_600_000
# How far back the log is asked for bonds that were burned, and how many of its events.
BURNED_WITHIN_MS: Final = 3_600_000
LOOKED_AT: Final = 1_000
# For a job of this priority it is long to wait for a slot.
LONG_WAIT_MS: Final[dict[Priority, int]] = {"high": 60_000, "normal": 900_000, "low": 3_600_000}
# Bundles that wait, of which it is asked whether they failed.
BUNDLES_ASKED: Final = 256


class Concern(Struct, frozen=True, gc=False):
    """One of them: `text` says what, `way_out` what can be done about it."""

    level: Level
    about: About
    text: str
    way_out: str


DAMAGE: Final = Concern(
    "act",
    "store",
    "something that is stored here is damaged",
    "`tb-cli state check` and `tb-cli compute-market audit` say what; restore from a backup",
)


def of(txn: Txn, found: dict[str, Any], files: Files | None = None) -> list[Concern]:
    """The concerns of a market, of which `found` is the overview; what needs an act comes first.

    Without `files` there are none about its files.
    """
    all_ = [
        *_time(txn, found),
        *_money(txn, found),
        *_work(txn, found),
        *_offers(found),
        *_bundles(txn),
        *([] if files is None else _files(txn, files)),
    ]
    return sorted(all_, key=lambda each: each.level != "act")


def _time(txn: Txn, found: dict[str, Any]) -> Iterator[Concern]:
    if not txn.timely:
        yield Concern(
            "act",
            "clock",
            "the clock is not believed: nothing falls due until it is",
            "`tb-cli compute-market clock` says why",
        )
    last_ms = txn.number(LAST_RUN)
    idle_ms = txn.now_ms - last_ms
    if last_ms and idle_ms >= IDLE_MS:
        something = "something is due, and " if found["due"] else ""
        yield Concern(
            "act" if found["due"] else "watch",
            "jobs",
            f"{something}nothing has changed the market for {idle_ms // 60_000} minutes",
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
    present = modes.state(txn)
    if present.mode == "dry_run" and present.reason is not None:
        yield Concern(
            "act" if imports.stopped_paying(txn) else "watch",
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
    burned_ct = _burned_ct(txn)
    if burned_ct:
        yield Concern(
            "watch",
            "settlement",
            f"bonds of {burned_ct} CT were burned within the last hour",
            "`tb-cli log --event bond_burned --event bid_expired --since 1h` shows whose and why",
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
    headroom, estimate = found["capacity"]["headroom"], found["capacity"]["estimate"]
    if 10 * headroom < WINDOW_SECS * estimate:
        yield Concern(
            "watch",
            "jobs",
            "less than a tenth of the capacity of a minute is left: jobs are about to be refused",
            "it comes back within a minute; `tb-cli compute-market capacity show` shows the rest",
        )


def _offers(found: dict[str, Any]) -> Iterator[Concern]:
    if not found["offers"]["open"]:
        yield Concern(
            "watch",
            "offers",
            "no offer is open: no job can be placed",
            "`tb-cli compute offer post` posts one",
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
    waiting = sparing.part(lambda: documents.waiting(txn, BUNDLES_ASKED)) or []
    failing = sum(each.get("attempts", 0) > 0 for each in waiting)
    if failing:
        yield Concern(
            "watch",
            "courier",
            f"{_counted(failing, 'bundle has', 'bundles have')} not arrived at the first attempt",
            "`tb-cli compute courier list --pending` shows the errors",
        )


def _files(txn: Txn, files: Files) -> Iterator[Concern]:
    if files.map_used > MAP_USED_MAX:
        yield Concern(
            "act",
            "store",
            f"the data file has used {files.map_used:.0%} of what it may grow to",
            "`tb-cli state info` shows it; set a larger `map_size_gib`, and start the server anew",
        )
    age_ms = txn.now_ms - files.backup_ms
    if txn.number("event_seq") and age_ms >= BACKUP_AGE_MS:
        last = f"the last backup is {age_ms // 3_600_000} hours old"
        yield Concern(
            "watch",
            "store",
            last if files.backup_ms else "there is no backup",
            "`tb-cli state backup DIR` makes one, on another disk",
        )


def _burned_ct(txn: Txn) -> int:
    """CT of the bonds that were burned lately, as far back as the log is asked."""
    since_ms = txn.now_ms - BURNED_WITHIN_MS
    burned = Selection(names=("bond_burned", "bid_expired"), since_ms=since_ms)
    found = events.recent(txn, burned, LOOKED_AT, LOOKED_AT)
    return sum(
        each.event.detail.get("ct", 0) or each.event.detail.get("burned_ct", 0) for each in found
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
