"""What chances an offer had: which jobs came by, who took them, and what it lacked for the others.

The provider's side of `explain`. The log knows which jobs came and where they went, and the matcher
judges each of them by the offer as it stands now, units and standing and wallet included.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from compute_market import events
from compute_market.amounts import PPM
from compute_market.events import Logged
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.offers.prices import effective_price
from compute_market.records import Capability, Job, Offer, replace
from compute_market.scheduler.matching import judge
from compute_market.settlement import modes
from compute_market.store.schema import EVENTS
from compute_market.store.txn import Txn

# Events of the log that are looked at: the newest.
LOOKED_AT: Final = 20_000
_COME_BY: Final = ("job_queued", "job_pending", "job_refused", "job_handed_over")
_STANDING: Final = ("reputation", "provider_bond")


class _Tally(Struct):
    """What became of the jobs that came by; each counts once, but for what it lacked."""

    won: int = 0
    undercut: int = 0
    lacking: int = 0
    barred: int = 0
    unfunded: int = 0
    fits_now: int = 0
    unknown: int = 0


def chances(txn: Txn, offer_id: str, since_ms: int | None = None) -> dict[str, Any]:
    """Of the jobs that came while an offer was there, how many it won, and why not the others.

    Looks at the newest `LOOKED_AT` events, back to `since_ms` at most; `since_ms` of the answer is
    how far back that is. A job that came more than once counts as it came last. Raises
    NotFoundError.
    """
    offer = offers.get(txn, offer_id)
    # One that was withdrawn is asked about as it was.
    standing = replace(offer, state="open") if offer.state == "withdrawn" else offer
    start_ms = max(since_ms or 0, offer.posted_at * 1000)
    real = modes.is_real(txn)
    tally, lacked, winners = _Tally(), dict[str, int](), list[int]()
    seen: set[str] = set()
    looked = _Looked(start_ms)
    for logged in looked.at(txn):
        job_id = logged.event.job_id
        if job_id is None or job_id in seen or logged.event.event not in _COME_BY:
            continue
        seen.add(job_id)
        if logged.event.offer_id == offer_id:
            tally.won += 1
            continue
        job = jobs.find(txn, job_id) or _refused(logged)
        if job is None:
            tally.unknown += 1
            continue
        found = [each.condition for each in judge(txn, job, standing, real=real)]
        if missing := [each for each in found if each not in _STANDING]:
            tally.lacking += 1
            for condition in missing:
                lacked[condition] = lacked.get(condition, 0) + 1
        elif "reputation" in found:
            tally.barred += 1
        elif found:
            tally.unfunded += 1
        else:
            price = _winner(txn, logged)
            if price is not None and price <= offer.price_per_unit * offer.multiplier_ppm:
                tally.undercut += 1
                winners.append(price)
            else:
                tally.fits_now += 1
    return {
        "offer_id": offer_id,
        "seen": len(seen),
        "won": tally.won,
        "undercut": tally.undercut,
        "lacked": dict(sorted(lacked.items(), key=lambda each: (-each[1], each[0]))),
        "barred": tally.barred,
        "unfunded": tally.unfunded,
        "lacking": tally.lacking,
        "fits_now": tally.fits_now,
        "unknown": tally.unknown,
        "effective_price": _own_price(offer),
        "winner_price": effective_price(1, sorted(winners)[len(winners) // 2]) if winners else None,
        "state": offer.state,
        "shelf": offer.shelf,
        "since_ms": looked.since_ms,
        "is_cut": looked.is_cut,
    }


class _Looked:
    """How far back the log was looked at."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self.since_ms = start_ms
        self.is_cut = False  # there is more in the time asked for than was looked at

    def at(self, txn: Txn) -> Iterator[Logged]:
        """The events, newest first, to where they are older, or enough."""
        last: Logged | None = None
        for logged in islice(events.back(txn), LOOKED_AT):
            if logged.at_ms < self._start_ms:
                return
            last = logged
            yield logged
        # All that the log has, or all that is looked at. It begins with 1 unless it was trimmed.
        if last is not None and last.seq > 1:
            self.since_ms, self.is_cut = last.at_ms, True
        elif last is None and txn.number("event_seq") and txn.is_empty(EVENTS):
            self.since_ms, self.is_cut = txn.now_ms, True


def _refused(logged: Logged) -> Job | None:
    """What the log says of a job that was not let in; None where it says too little."""
    event = logged.event
    asked = event.detail.get("asked")
    if asked is None or event.job_id is None:
        return None
    needs = {name: asked[name] for name in Capability.__struct_fields__ if name in asked}
    if isinstance(needs.get("gpu"), list):
        needs["gpu"] = tuple(needs["gpu"])
    return Job(
        job_id=event.job_id,
        seq=0,
        state="pending",
        buyer=event.owner or "",
        workload="",
        capability=Capability(**needs),
        slices=0,
        units=event.detail["units"],
        max_price_per_unit=asked["max_price_per_unit"],
        consumer_bond=asked["consumer_bond"],
        deadline=0,
        deadline_secs=None,
        priority="normal",
        lane="industrial",
        submitted_at=0,
        provider_bond_min=asked["provider_bond_min"],
    )


def _winner(txn: Txn, logged: Logged) -> int | None:
    """The exact effective price a job went for, in millionths; None if it went nowhere."""
    event = logged.event
    winner, price = event.offer_id, event.detail.get("price_per_unit")
    if winner is None or price is None:
        return None
    offer = offers.find(txn, winner)
    return int(price) * (PPM if offer is None else offer.multiplier_ppm)


def _own_price(offer: Offer) -> int:
    return effective_price(offer.price_per_unit, offer.multiplier_ppm)
