"""Jobs that may go over to another provider: a rival that has earned enough, and its offer."""

from typing import Any

from compute_market.offers.standing import record_outcome
from compute_market.records import Offer
from compute_market.settlement import modes
from tests.support.market import Market

DELTA = 10


def earn(market: Market, provider: str, by: int) -> None:
    """Let a provider earn or lose so many points."""
    sign = 1 if by > 0 else -1
    market.update(lambda txn: [record_outcome(txn, provider, sign) for _ in range(abs(by))])


def rival(market: Market, offer_id: str = "better", *, earned: int = DELTA, **fields: Any) -> Offer:
    """Post the offer of `other`, who has earned so much."""
    offer = market.post("other", offer_id=offer_id, **fields)
    earn(market, "other", earned)
    return offer


def preempting(market: Market, *lengths: int, real: bool = False, **fields: Any) -> Market:
    """A market that allows it, in which `prov` has a job; `other` may post a better offer."""
    market.configure(enable_preempt=True, preempt_min_delta=DELTA)
    for party in ("buyer", "prov", "other"):
        market.deposit(party, ct=1000, it=1000)
    if real:
        market.update(lambda txn: modes.arm(txn, 0))
        market.update(lambda txn: None)
    market.post(offer_id="present", **fields)
    market.submit(lengths=lengths or (1, 1, 1, 1), consumer_bond=20)
    return market
