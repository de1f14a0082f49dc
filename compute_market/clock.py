"""Market time: what the system's clocks say, whether that is believed, and what time made due.

Market time is the wall clock as long as that is believed, and never goes back. It is not believed
when it is more than `clock_tolerance_secs` behind market time, when within one boot it moved ahead
of the boot clock by more than that, or after a restore. Then market time stands where it was, and
nothing that time alone causes happens, until the clock is right again or is accepted as it is.

A gap in market time of more than `outage_secs` is an outage: whoever missed a deadline that fell
into it is not at fault. The last one is kept, since it may take many commands to fail its jobs.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal

from msgspec import DecodeError, Struct, msgpack

from compute_market import events
from compute_market.errors import BusyError
from compute_market.learned import learned
from compute_market.records import replace
from compute_market.store.schema import DEADLINES, META, unpack_u64
from compute_market.store.table import damaged, encode
from compute_market.store.txn import Txn
from compute_market.text import counted

# Why the clock is not believed: behind market time, ahead of the boot clock, after a restore.
Doubt = Literal["behind", "ahead", "held"]

# A number of `meta`: market time of the last change, in milliseconds.
LAST_RUN: Final = "last_run_ms"
# Its key in `meta` is there from a restore on until somebody says what the time is.
TIME_HELD: Final = b"time_held"
_KEPT: Final = b"clock"

EARLIEST_MS: Final = 1_577_836_800_000  # 2020-01-01
LATEST_MS: Final = 7_258_118_400_000  # 2200-01-01
# The two clocks are read one after the other, and one is corrected as it goes: less is no change.
_SAME_OFFSET_MS: Final = 1000


class Reading(Struct, frozen=True, gc=False):
    """What the system's clocks say at one moment; without a boot clock the wall clock alone."""

    wall_ms: int  # unix time
    boot_id: str | None = None
    boot_ms: int | None = None  # since boot, sleep included


# What reads the clock. Unix milliseconds alone stand for a reading without a boot clock.
Clock = Callable[[], Reading | int]


class Kept(Struct, frozen=True, array_like=True, gc=False):
    """What the market keeps of the clock from one command to the next."""

    boot_id: str | None = None  # of the last reading with a boot clock that was believed
    offset_ms: int = 0  # its wall clock less its boot clock
    ahead_ms: int = 0  # by which market time goes ahead of a clock that was set back and accepted
    away_from_ms: int = 0  # the last outage
    away_until_ms: int = 0

    def was_away(self, second: int) -> bool:
        """Whether a deadline fell into the last outage: nobody could keep it."""
        return self.away_from_ms // 1000 <= second <= self.away_until_ms // 1000


class Time(Struct, frozen=True, gc=False):
    """Market time, and what it was made of."""

    now_ms: int
    reading: Reading
    kept: Kept
    doubt: Doubt | None = None
    off_ms: int = 0  # how far the clock is behind or went ahead

    @property
    def text(self) -> str:
        """Why the clock is not believed and where to look, in one line; empty when it is."""
        return f"{self.why}; see `tb-cli compute-market clock`" if self.why else ""

    @property
    def why(self) -> str:
        """Why the clock is not believed; empty when it is."""
        if self.doubt is None:
            return ""
        said = {
            "behind": f"the clock is {self.off_ms // 1000} s behind market time",
            "ahead": f"the clock went ahead by {self.off_ms // 1000} s",
            "held": "time is held since a restore",
        }[self.doubt]
        return f"{said}: nothing falls due"


class Due(Struct, frozen=True, gc=False):
    """What was due and has been done."""

    activated: bool = False  # an armed mode turned real
    paid: int = 0  # receipts that had waited for it
    failed: tuple[str, ...] = ()  # ids of overdue jobs, the oldest deadline first
    burned_ct: int = 0  # of their providers' bonds
    away: int = 0  # of them failed without fault, their deadlines fell into an outage
    matched: tuple[str, ...] = ()  # ids of jobs that had waited for an offer
    bids: int = 0  # that were not revealed in time
    bids_burned_ct: int = 0  # of their bonds
    scores: int = 0  # that time has changed something of
    restored: int = 0  # providers that are barred no longer
    barred: int = 0  # providers whose score other settings let fade less
    parameters: tuple[str, ...] = ()  # what proposals have set, as `fair_share_cap 0.1`
    subsidies_it: int = 0  # paid for the work of epochs that ended
    epochs: int = 0  # of them, in which units were proven
    multipliers: tuple[int, ...] = ()  # of the subsidy before and after changes, in percent
    transactions: int = 0  # of consumers, that blocks have taken

    def plus(self, later: "Due") -> "Due":
        """What was due in this change and in a later one."""
        names = self.__struct_fields__[1:]
        sums = (getattr(self, name) + getattr(later, name) for name in names)
        return Due(self.activated or later.activated, *sums)

    @property
    def has_moved(self) -> bool:
        """Whether it was anything at all."""
        return bool(
            self.text or self.scores or self.epochs or self.multipliers or self.transactions
        )

    @property
    def text(self) -> str:
        """What it moved, in one line; empty when nothing was due but what passes all the time: a
        multiplier that was retuned, and what blocks have taken."""
        found = []
        if self.activated:
            found.append("the settlement mode turned real")
        found += (f"{each} in force" for each in self.parameters)
        if self.paid:
            found.append(f"{counted(self.paid, 'receipt')} that had waited paid")
        if self.failed:
            jobs = f"{counted(len(self.failed), 'overdue job')} failed"
            found.append(jobs + cost_of(self.burned_ct, self.away))
        if self.subsidies_it:
            found.append(f"{self.subsidies_it} IT of subsidies paid")
        if self.bids:
            found.append(f"{counted(self.bids, 'bid')} expired{cost_of(self.bids_burned_ct, 0)}")
        if self.restored:
            found.append(f"{counted(self.restored, 'provider')} in good standing again")
        if self.barred:
            found.append(f"{counted(self.barred, 'provider')} in bad standing by other settings")
        if self.matched:
            found.append(f"{counted(len(self.matched), 'waiting job')} placed")
        return ", ".join(found)


def cost_of(burned_ct: int, away: int) -> str:
    """How the text about jobs that failed, or bids that expired, goes on: what they cost, and what
    is nobody's fault."""
    burned = f", {burned_ct} CT of bonds burned" if burned_ct else ""
    return burned + (f", {away} without fault (the market was away)" if away else "")


def read(clock: Clock) -> Reading:
    """What a clock says now. Raises BusyError for one that was never set."""
    found = clock()
    reading = Reading(found) if isinstance(found, int) else found
    if EARLIEST_MS <= reading.wall_ms < LATEST_MS:
        return reading
    bound = "before 2020" if reading.wall_ms < EARLIEST_MS else "after 2199"
    raise BusyError(
        f"the system's clock stands at {reading.wall_ms // 1000} unix seconds, {bound}",
        hint="set the clock and try again; nothing was done",
        reason="clock",
    )


def judge(txn: Txn, reading: Reading) -> Time:
    """Market time at a reading of the clock. Writes nothing."""
    wall_ms = reading.wall_ms
    kept = stored(txn)
    last_ms = txn.number(LAST_RUN)
    if txn.get(META, TIME_HELD) is not None:
        return Time(last_ms or wall_ms, reading, kept, "held")
    tolerance_ms = txn.config.clock_tolerance_secs * 1000
    now_ms = wall_ms + _ahead_ms(kept, reading, last_ms) if kept.ahead_ms else wall_ms
    if last_ms - now_ms > tolerance_ms:
        return Time(last_ms, reading, kept, "behind", last_ms - now_ms)
    leap_ms = 0 if reading.boot_id is None else _leap_ms(kept, reading)
    if leap_ms > tolerance_ms:
        return Time(last_ms or wall_ms, reading, kept, "ahead", leap_ms)
    return Time(now_ms if now_ms > last_ms else last_ms, reading, kept)


def enter(txn: Txn, time: Time) -> None:
    """Let a transaction happen at a market time."""
    txn.now_ms = time.now_ms
    txn.now = time.now_ms // 1000
    txn.timely = time.doubt is None


def keep(txn: Txn, time: Time) -> None:
    """Remember market time, what the clock looked like if it is believed, and an outage."""
    last_ms = txn.number(LAST_RUN)
    txn.advance_number(LAST_RUN, last_ms, time.now_ms)
    if time.doubt is not None:
        return
    kept, reading = time.kept, time.reading
    ahead_ms = _ahead_ms(kept, reading, last_ms) if kept.ahead_ms else 0
    if reading.boot_id is not None:
        kept = _with_offset(kept, reading)
    if kept.ahead_ms != ahead_ms:
        kept = replace(kept, ahead_ms=ahead_ms)
    if last_ms and time.now_ms - last_ms > txn.config.outage_secs * 1000:
        kept = _with_outage(txn, kept, last_ms, time.now_ms)
    if kept is not time.kept and kept != time.kept:
        txn.put(META, _KEPT, encode(kept))


def accept(txn: Txn, reading: Reading) -> bool:
    """Take the clock as it is, after it was set or a backup was restored.

    Market time goes ahead to it, and what was skipped counts as an outage. From a clock that was
    set back it goes on where it is, as far ahead of the clock as it is now. Returns whether there
    was anything to accept.
    """
    doubted = judge(txn, reading)
    if doubted.doubt is None:
        return False
    last_ms = txn.number(LAST_RUN)
    now_ms = max(last_ms, reading.wall_ms)
    kept = replace(_with_offset(doubted.kept, reading), ahead_ms=now_ms - reading.wall_ms)
    if now_ms > last_ms:
        kept = _with_outage(txn, kept, last_ms, now_ms)
    txn.put(META, _KEPT, encode(kept))
    txn.advance_number(LAST_RUN, last_ms, now_ms)
    release(txn)
    events.note(txn, "clock_accepted", doubt=doubted.doubt, from_ms=last_ms, to_ms=now_ms)
    return True


def release(txn: Txn) -> bool:
    """Let time go on after a restore; whether it was held."""
    return txn.delete(META, TIME_HELD)


def stored(txn: Txn) -> Kept:
    """What is kept of the clock. Raises IntegrityError when it is damaged."""
    payload = txn.get(META, _KEPT)
    if payload is None:
        return Kept()
    try:
        return _decoded(payload)
    except DecodeError as error:
        raise damaged(META, _KEPT, str(error)) from error


@lru_cache(maxsize=1)
def _decoded(payload: bytes) -> Kept:
    """It hardly ever changes."""
    return msgpack.decode(payload, type=learned(Kept))


def document(txn: Txn, time: Time) -> dict[str, Any]:
    """`compute-market clock`: the clocks, market time, and whether the clock is believed."""
    outage = {"from_ms": time.kept.away_from_ms, "until_ms": time.kept.away_until_ms}
    return {
        "wall_ms": time.reading.wall_ms,
        "boot_id": time.reading.boot_id,
        "boot_ms": time.reading.boot_ms,
        "market_ms": time.now_ms,
        "last_run_ms": txn.number(LAST_RUN),
        "believed": time.doubt is None,
        "doubt": time.doubt,
        "off_ms": time.off_ms,
        "ahead_ms": time.kept.ahead_ms,
        "last_outage": outage if time.kept.away_until_ms else None,
    }


def _ahead_ms(kept: Kept, reading: Reading, last_ms: int) -> int:
    """How far market time goes ahead of the clock. In another boot the clock may have been put
    right, and it is once it has caught up."""
    same_boot = reading.boot_id is not None and reading.boot_id == kept.boot_id
    return kept.ahead_ms if same_boot or reading.wall_ms < last_ms else 0


def _leap_ms(kept: Kept, reading: Reading) -> int:
    """How far the wall clock moved ahead of the boot clock since it was believed, if it can be
    told: within one boot."""
    offset_ms = _offset_ms(reading)
    if offset_ms is None or reading.boot_id != kept.boot_id:
        return 0
    return offset_ms - kept.offset_ms


def _offset_ms(reading: Reading) -> int | None:
    if reading.boot_id is None or reading.boot_ms is None:
        return None
    return reading.wall_ms - reading.boot_ms


def _with_offset(kept: Kept, reading: Reading) -> Kept:
    offset_ms = _offset_ms(reading)
    if offset_ms is None or (
        reading.boot_id == kept.boot_id and abs(offset_ms - kept.offset_ms) <= _SAME_OFFSET_MS
    ):
        return kept
    return replace(kept, boot_id=reading.boot_id, offset_ms=offset_ms)


def _with_outage(txn: Txn, kept: Kept, from_ms: int, until_ms: int) -> Kept:
    """With the outage that ends now; together with the one before while some of its jobs live."""
    first = txn.first(DEADLINES)
    if first is not None and kept.was_away(unpack_u64(first[0][:8])):
        from_ms = kept.away_from_ms
    return replace(kept, away_from_ms=from_ms, away_until_ms=until_ms)
