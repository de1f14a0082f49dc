"""What counters and offers say of a job, a receipt or a posting, whether it is kept or archived.

The audit adds it up over what is stored; what was archived is in
sums of its own (`compute_market.archived`).
"""

from typing import Final

from compute_market.receipt_records import Settlement
from compute_market.records import Job, Posting
from compute_market.settlement import ledger

# The name of a counter and its label values, and by how much it was incremented.
Count = tuple[tuple[str, ...], int]

# What a posting is counted as. Burns are told by the account they enter.
_KINDS: Final = {
    "settle": "paid",
    "escrow:refund": "refunded",
    "bond:release": "refunded",
    "bid:release": "refunded",
}


_BURNED_OF = frozenset(("provider", "buyer", "bidder"))


def of_posting(posting: Posting) -> list[Count]:
    is_burned = posting.credit == ledger.BURNED
    kind = "burned" if is_burned else _KINDS.get(posting.event)
    if kind is None:  # Most often: what was locked.
        return []
    found: list[Count] = [
        (("compute_market_fee_split", posting.token.lower(), kind), posting.amount)
    ]
    if is_burned:
        found.append((("slashing_burn_ct_total",), posting.amount))
        is_bid = ledger.is_bid_bond(posting.debit)
        of = "bidder" if is_bid else posting.debit.rpartition("/")[2]
        if of in _BURNED_OF:  # Else it is damaged, which a law of its own tells.
            found.append((("bonds_burned_total", of), 1))
    return found


def of_job(job: Job) -> list[Count]:
    found: list[Count] = [
        (("industrial_units_total",), job.units_proven),
        (("scheduler_cancel_total", "preempted"), job.placements_before),
        (("scheduler_preempt_total", "success"), job.placements_before),
    ]
    if job.state == "cancelled":
        found.append((("scheduler_cancel_total", job.ended_by or ""), 1))
    if job.cause == "deadline_missed":
        found.append((("industrial_rejected_total", "SLA"), 1))
    return found


def of_settlement(settled: Settlement) -> tuple[Count, Count]:
    dry_run = settled.status == "recorded"
    return (
        (("matches_total", "true" if dry_run else "false"), 1),
        (("settle_applied_total",), int(settled.status == "applied")),
    )
