"""The bill of a takeover: what it costs, and whom."""

from typing import Any

from msgspec import Struct

from compute_market import events
from compute_market.amounts import payment
from compute_market.jobs import handovers, jobs
from compute_market.records import Job, Placement, Token
from compute_market.scheduler.preemption import Takeover
from compute_market.settlement import escrow, settlement
from compute_market.store.txn import Txn

Amounts = dict[Token, int]


class Bill(Struct, frozen=True, gc=False):
    """What becomes of the money of a job that goes over to another offer.

    All of it is true money if the job is funded; else it says what would have been, and none moves.
    """

    job: Job
    present: Placement  # with what its provider has proven
    following: Placement
    score_from: int  # earned
    score_to: int
    units: int  # of what is left
    kept: Amounts  # what the present provider is due for what it has proven
    lost: Amounts  # what the rest would have earned it
    offered: Amounts  # what the rest earns the next one
    refunded: Amounts  # to the buyer's wallet
    locked: Amounts  # from the buyer's wallet, where another split needs more of a token


def proposed(txn: Txn, takeover: Takeover) -> Bill:
    """What a takeover would come to. Raises what `handovers.check` raises."""
    following, _ = handovers.check(txn, takeover.job, takeover.offer)
    placements = jobs.placements(txn, takeover.job)
    scores = takeover.score_from, takeover.score_to
    return _bill(takeover.job, placements, following, scores)


def done(txn: Txn, job_id: str, offer_id: str, since: int) -> Bill | None:
    """What the handover of a job to an offer has come to, None if it has not gone over.

    `since` is how many handovers it had before: it may have come to the same offer earlier.
    """
    job = jobs.get(txn, job_id)
    placements = jobs.placements(txn, job)
    for number in range(since + 1, len(placements)):
        if placements[number].offer_id == offer_id:
            scores = _scores(txn, job, number)
            return _bill(job, placements[:number], placements[number], scores)
    return None


def document(bill: Bill) -> dict[str, Any]:
    """The JSON form."""
    present, following = bill.present, bill.following
    return {
        "job_id": bill.job.job_id,
        "offer_id": following.offer_id,
        "units": bill.units,
        "units_proven": bill.job.units - bill.units,
        "funded": following.funded,
        "from": {
            "provider": present.provider,
            "offer_id": present.offer_id,
            "score": bill.score_from,
            "price_per_unit": present.price_per_unit,
            "kept": _lower(bill.kept),
            "lost": _lower(bill.lost),
            "bond_released_ct": present.provider_bond,
        },
        "to": {
            "provider": following.provider,
            "offer_id": following.offer_id,
            "score": bill.score_to,
            "price_per_unit": following.price_per_unit,
            "offered": _lower(bill.offered),
            "bond_locked_ct": following.provider_bond,
        },
        "buyer": {
            "buyer": bill.job.buyer,
            "refunded": _lower(bill.refunded),
            "locked": _lower(bill.locked),
        },
    }


def _bill(
    job: Job, placements: list[Placement], following: Placement, scores: tuple[int, int]
) -> Bill:
    """The bill of a job that goes from the last of `placements` over to the one that follows."""
    present = placements[-1]
    left = job.units - sum(each.units_proven for each in placements)
    dues = [settlement.due_to(each) for each in placements]
    before = escrow.needed_for(left + present.units_proven, present, dues[:-1])
    after = escrow.needed_for(left, following, dues)
    return Bill(
        job,
        present,
        following,
        *scores,
        left,
        kept=_amounts(dues[-1]),
        lost=_amounts(_more(present, present.units_proven, left)),
        offered=_amounts(_more(following, 0, left)),
        refunded={token: max(0, before[token] - after[token]) for token in before},
        locked={token: max(0, after[token] - before[token]) for token in before},
    )


def _scores(txn: Txn, job: Job, number: int) -> tuple[int, int]:
    """The earned scores at a handover, numbered from 1 on; zeros where the log has lost it."""
    told = [
        each.event.detail
        for each in events.history(txn, job)
        if each.event.event == "job_handed_over"
    ]
    # The newest are there if any are.
    place = number - job.placements_before - 1
    if -place > len(told):
        return 0, 0
    return told[place]["from_score"], told[place]["to_score"]


def _more(placement: Placement, proven: int, more: int) -> tuple[int, int]:
    """(CT, IT) that a provider gets for so many more units than it has proven."""
    price = placement.price_per_unit
    return payment(proven * price, more * price, placement.fee_pct_ct)


def _amounts(of: tuple[int, int]) -> Amounts:
    return {"CT": of[0], "IT": of[1]}


def _lower(amounts: Amounts) -> dict[str, int]:
    return {token.lower(): amount for token, amount in amounts.items()}
