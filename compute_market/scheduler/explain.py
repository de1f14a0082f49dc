"""Why offers do or do not fit a job: the matcher's own verdict on every one of them."""

from collections.abc import Iterator
from typing import Any

from compute_market.offers import offers
from compute_market.records import Job
from compute_market.scheduler.matching import STAGES, judge
from compute_market.settlement import modes
from compute_market.store.txn import Txn


def explain(txn: Txn, job: Job, *, offer_id: str | None = None) -> Iterator[dict[str, Any]]:
    """The verdict on every offer, or on one. Raises NotFoundError for an unknown one."""
    real = modes.is_real(txn)
    chosen = offers.listed(txn) if offer_id is None else iter((offers.get(txn, offer_id),))
    for offer in chosen:
        found = judge(txn, job, offer, real=real)
        yield {
            "offer_id": offer.offer_id,
            "provider": offer.provider,
            "fits": not found,
            "result": STAGES[min(s.stage for s in found)] if found else "success",
            "shortfalls": [
                {"condition": s.condition, "asked": s.asked, "offered": s.offered, "text": str(s)}
                for s in found
            ],
        }
