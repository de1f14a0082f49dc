"""The bill of a takeover: what it costs, and whom."""

from typing import Any

from msgspec import Struct

from compute_market.amounts import payment
from compute_market.jobs import jobs
from compute_market.records import Placement, Token
from compute_market.scheduler.preemption import Takeover
from compute_market.settlement import escrow, settlement
from compute_market.store.txn import Txn

Amounts = dict[Token, int]


class Bill(Struct, frozen=True, gc=False):
    """What becomes of the money of a job that goes over to another offer.

    All of it is true money if the job is funded; else it says what would have been, and none moves.
    """

    takeover: Takeover
    funded: bool
    kept: Amounts  # what the present provider is due for what it has proven
    lost: Amounts  # what the rest would have earned it
    offered: Amounts  # what the rest earns the next one
    refunded: Amounts  # to the buyer's wallet
    locked: Amounts  # from the buyer's wallet, where another split needs more of a token
    bond_released_ct: int  # of the present provider
    bond_locked_ct: int  # of the next one


def bill(txn: Txn, takeover: Takeover) -> Bill:
    """What a takeover comes to. Writes nothing."""
    job, offer = takeover.job, takeover.offer
    present, dues = job.placed, jobs.dues(txn, job)
    following = jobs.check_hand_over(txn, job, offer)
    with_present = takeover.units + present.units_proven
    before = escrow.needed_for(with_present, present, dues[:-1])
    after = escrow.needed_for(takeover.units, following, dues)
    return Bill(
        takeover,
        job.funded,
        kept=_amounts(settlement.due_to(present)),
        lost=_amounts(_more_for(present, takeover.units)),
        offered=_amounts(_more_for(following, takeover.units)),
        refunded={token: max(0, before[token] - after[token]) for token in before},
        locked={token: max(0, after[token] - before[token]) for token in before},
        bond_released_ct=present.provider_bond,
        bond_locked_ct=following.provider_bond,
    )


def document(bill: Bill) -> dict[str, Any]:
    """The JSON form."""
    takeover, present = bill.takeover, bill.takeover.job.placed
    offer = takeover.offer
    return {
        "job_id": takeover.job.job_id,
        "offer_id": offer.offer_id,
        "units": takeover.units,
        "units_proven": takeover.job.units_proven,
        "funded": bill.funded,
        "score_difference": takeover.difference,
        "from": {
            "provider": present.provider,
            "offer_id": present.offer_id,
            "score": takeover.score_from,
            "price_per_unit": present.price_per_unit,
            "kept": _lower(bill.kept),
            "lost": _lower(bill.lost),
            "bond_released_ct": bill.bond_released_ct,
        },
        "to": {
            "provider": offer.provider,
            "score": takeover.score_to,
            "price_per_unit": offer.price_per_unit,
            "offered": _lower(bill.offered),
            "bond_locked_ct": bill.bond_locked_ct,
        },
        "buyer": {
            "buyer": takeover.job.buyer,
            "refunded": _lower(bill.refunded),
            "locked": _lower(bill.locked),
        },
    }


def _more_for(placement: Placement, more: int) -> tuple[int, int]:
    """(CT, IT) that a provider gets for so many more units than it has proven."""
    done = placement.units_proven * placement.price_per_unit
    return payment(done, more * placement.price_per_unit, placement.fee_pct_ct)


def _amounts(of: tuple[int, int]) -> Amounts:
    return {"CT": of[0], "IT": of[1]}


def _lower(amounts: Amounts) -> dict[str, int]:
    return {token.lower(): amount for token, amount in amounts.items()}
