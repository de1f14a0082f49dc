"""What would have to be otherwise for a job to fit: the nearest miss, and its cheapest change.

It is made of the shortfalls that the matcher itself finds. Each condition stands alone, so that an
offer fits once all that it fails are changed, and one change is enough where it fails one.
"""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from compute_market.offers import book
from compute_market.records import Capability, Job, replace
from compute_market.scheduler.explain import Verdict
from compute_market.scheduler.matching import Shortfall

# Who would have to be otherwise: the job asks, the offer has, and its provider stands and can pay.
Whose = Literal["job", "offer", "provider"]

# What no change would make fit: another offer would be another.
_FIXED = frozenset({"state", "job_id", "buyer"})
_WHOLE = 1 << 64  # how far one name is from another; amounts are at most so far from each other


class Change(Struct, frozen=True):
    """One thing that would have to be otherwise, exactly so much."""

    whose: Whose
    name: str  # of the job, offer or provider
    field: str
    now: int | str | None
    needed: int | str | None

    def __str__(self) -> str:
        now, needed = ("none" if each is None else each for each in (self.now, self.needed))
        if self.field == "score":
            return f"a score of {needed} instead of {now} for {self.name}"
        if self.field == "ct":
            return f"{needed} CT instead of {now} in the wallet of {self.name}"
        return f"{self.field} {needed} instead of {now}"


class Miss(Struct, frozen=True):
    """An offer that does not fit, and all that would have to change for it."""

    verdict: Verdict
    changes: tuple[Change, ...]


def nearest(job: Job, verdicts: Iterable[Verdict]) -> Miss | None:
    """The miss that lacks the fewest conditions, and of those the least of what is asked.

    How little is a share of the larger number; another name counts as all of it. Among equals it is
    the cheapest offer, then the oldest. None when something fits, or no change would help.
    """
    found: tuple[tuple[int, int, bytes], Verdict] | None = None
    for verdict in verdicts:
        if verdict.fits:
            return None
        if any(each.condition in _FIXED for each in verdict.shortfalls):
            continue
        away = sum(_distance(each) for each in verdict.shortfalls)
        place = len(verdict.shortfalls), away, book.order_of(verdict.offer)
        if found is None or place < found[0]:
            found = place, verdict
    if found is None:
        return None
    verdict = found[1]
    return Miss(verdict, tuple(_change(job, verdict, each) for each in verdict.shortfalls))


def changed(job: Job, change: Change) -> Job:
    """The job with a change made that is the job's to make."""
    fields: dict[str, Any] = {change.field: change.needed}
    if change.field in Capability.__struct_fields__:
        return replace(job, capability=replace(job.capability, **fields))
    return replace(job, **fields)


def document(miss: Miss) -> dict[str, Any]:
    """The JSON form of a miss."""
    return {
        "offer_id": miss.verdict.offer.offer_id,
        "provider": miss.verdict.offer.provider,
        "effective_price": miss.verdict.effective_price,
        "changes": [
            {
                "whose": each.whose,
                "name": each.name,
                "field": each.field,
                "now": each.now,
                "needed": each.needed,
                "text": str(each),
            }
            for each in miss.changes
        ],
    }


def _distance(shortfall: Shortfall) -> int:
    asked, offered = shortfall.asked, shortfall.offered
    if not isinstance(asked, int) or not isinstance(offered, int):
        return _WHOLE
    return abs(asked - offered) * _WHOLE // max(abs(asked), abs(offered))


def _change(job: Job, verdict: Verdict, shortfall: Shortfall) -> Change:
    """What would do away with a shortfall: the job asks for what there is, if it can."""
    offer, field = verdict.offer, shortfall.condition
    asked, offered = shortfall.asked, shortfall.offered
    if field == "reputation":
        return Change("provider", offer.provider, "score", offered, asked)
    if field == "provider_bond":
        return Change("provider", offer.provider, "ct", offered, asked)
    if field == "units" and not offered:
        return Change("offer", offer.offer_id, "units_left", offered, asked)
    if field == "gpu":
        # Of several models one will do.
        offered = next(iter(offer.capability.gpu_models), None)
    return Change("job", job.job_id, field, asked, offered)
