"""Why offers do or do not fit a job: the matcher's own verdict on every one of them."""

from typing import Any

from msgspec import Struct

from compute_market.offers import book, offers
from compute_market.offers.prices import effective_price
from compute_market.records import Job, Offer
from compute_market.scheduler.matching import STAGES, Shortfall, judge
from compute_market.settlement import modes
from compute_market.store.txn import Txn


class Verdict(Struct, frozen=True):
    """What the matcher says of one offer."""

    offer: Offer
    shortfalls: list[Shortfall]  # none when it fits
    effective_price: int  # for this job: an accelerator costs its premium
    rank: int | None  # of those that fit, from 1: the job goes to the first

    @property
    def fits(self) -> bool:
        return not self.shortfalls

    @property
    def result(self) -> str:
        """How far the offer came, as the statistics count it."""
        return STAGES[min(s.stage for s in self.shortfalls)] if self.shortfalls else "success"


def explain(txn: Txn, job: Job) -> list[Verdict]:
    """The verdict on every offer: those that fit in the order the matcher has them, then the rest
    by id."""
    real = modes.is_real(txn)
    accelerated = job.capability.accelerator is not None
    fitting: list[tuple[Offer, int]] = []
    others = []
    for offer in offers.listed(txn):
        found = judge(txn, job, offer, real=real)
        price = effective_price(offer.price_per_unit, offer.multiplier_ppm, accelerated)
        if found:
            others.append(Verdict(offer, found, price, None))
        else:
            fitting.append((offer, price))
    fitting.sort(key=lambda each: book.order_of(each[0]))
    ranked = [Verdict(offer, [], price, rank) for rank, (offer, price) in enumerate(fitting, 1)]
    return [*ranked, *others]


def document(verdict: Verdict) -> dict[str, Any]:
    """The JSON form of a verdict."""
    offer = verdict.offer
    return {
        "offer_id": offer.offer_id,
        "provider": offer.provider,
        "fits": verdict.fits,
        "result": verdict.result,
        "shortfalls": [
            {"condition": s.condition, "asked": s.asked, "offered": s.offered, "text": str(s)}
            for s in verdict.shortfalls
        ],
        "price_per_unit": offer.price_per_unit,
        "effective_price": verdict.effective_price,
        "rank": verdict.rank,
        "wins": verdict.rank == 1,
    }
