"""The gate that every job passes: the comfort guard before it is matched, then capacity, then the
fair shares and bursts of its parties."""

from msgspec import Struct

from compute_market import metrics
from compute_market.admission import capacity, shares
from compute_market.admission.shares import Party
from compute_market.records import Job, Refused
from compute_market.store.schema import MEMPOOL_NEXT_BLOCK
from compute_market.store.txn import Txn

# Reasons to refuse a job that are the present load alone.
DEFERRING = ("capacity", "comfort_guard")


class Admitted(Struct, frozen=True, gc=False):
    """A verdict of "yes", and what there is to record for it."""

    market: Party
    parties: tuple[Party, Party]
    demand: int
    burst_micro: int  # what each party takes out of its burst bucket


def mode(txn: Txn) -> str:
    """Whether the comfort guard is `loose` or `tight` now."""
    if not txn.number(MEMPOOL_NEXT_BLOCK):
        return "loose"
    from compute_market.admission import comfort  # Most markets have no consumer pool.

    return comfort.mode(txn)


def gate(txn: Txn, job: Job) -> Refused | None:
    """What the comfort guard says of a job, before it is matched: why it may not enter now."""
    if job.lane != "industrial" or not txn.number(MEMPOOL_NEXT_BLOCK):
        return None
    from compute_market.admission import comfort

    return comfort.gate(txn)


def admit(txn: Txn, buyer: str, provider: str, demand: int) -> Admitted | Refused:
    """Whether a job of `demand` units may enter now, and if not, why and for how long.

    Checks in order: the estimate against `min_capacity`, the demand against the headroom, both
    fair shares, both burst buckets. Writes nothing.
    """
    now = capacity.estimate(txn)
    market = capacity.whole_market(txn)
    full = capacity.check(txn, now, market, demand)
    if full is not None:
        return full
    parties = shares.party(txn, "buyer", buyer), shares.party(txn, "provider", provider)
    burst_micro = shares.decide(txn, parties, demand, now)
    if isinstance(burst_micro, Refused):
        return burst_micro
    return Admitted(market, parties, demand, burst_micro)


def charge(txn: Txn, admitted: Admitted) -> None:
    """Record what an admitted job uses, in the transaction that admits it."""
    shares.charge(txn, admitted.market, admitted.demand, 0)
    for party in admitted.parties:
        shares.charge(txn, party, admitted.demand, admitted.burst_micro)
    metrics.count(txn, "industrial_admitted_total")


def give_back(
    txn: Txn, buyer: str, provider: str, demand: int, burst_micro: int, charged_ms: int
) -> None:
    """Take back what `charge` recorded at an instant for a job that used nothing after all."""
    shares.give_back(txn, "market", capacity.WHOLE_MARKET, demand, 0, charged_ms)
    shares.give_back(txn, "buyer", buyer, demand, burst_micro, charged_ms)
    shares.give_back(txn, "provider", provider, demand, burst_micro, charged_ms)
    txn.helped = True


def count_refusal(txn: Txn, refused: Refused) -> None:
    metrics.count(txn, "industrial_rejected_total", refused.reason)
    if refused.reason in DEFERRING:
        count_deferral(txn)


def count_deferral(txn: Txn) -> None:
    """Count a job that the present load alone keeps out, also one that goes on waiting."""
    metrics.count(txn, "industrial_deferred_total")
