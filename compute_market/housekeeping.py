"""What is due, and what every change of the market ends with."""

from functools import cache
from typing import TYPE_CHECKING, Any

from compute_market import chain, events
from compute_market.clock import Due
from compute_market.jobs import jobs
from compute_market.jobs.expire import expire
from compute_market.jobs.work import work
from compute_market.offers.standing import follow_time, follow_wallets
from compute_market.records import Asked
from compute_market.reputation import reputation
from compute_market.settlement import modes, receipts, settlement
from compute_market.store.schema import (
    BIDS_DUE_FROM,
    MEMPOOL_NEXT_BLOCK,
    PARAMETERS_SET,
    PENDING,
)
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.subsidy.subsidy import Closed

# What `tick` looks at at most beside what is due: entries of the log, and receipts.
TRIM_LIMIT = 10_000
SCRUB_LIMIT = 1_000
# Scores of which one change does at most what time has made of them.
SCORES_LIMIT = 256
# Bids that one change lets expire at most.
BIDS_LIMIT = 256


def housekeeping(txn: Txn, sweep_limit: int) -> Due:
    """What is due: every change of the market does it before its own effects.

    Keeps the height, writes down which proposals came into force, lets blocks take consumer
    transactions, closes epochs that have ended, before anything else changes what they were like,
    lets an armed settlement turn real, pays receipts that waited for it, fails at most
    `sweep_limit` overdue jobs, lets scores that barred return and forgets those that are over, lets
    bids expire that were not revealed in time, tries jobs that wait for an offer and works the
    queue. What time alone causes is left out while the clock is not believed.
    """
    height = chain.remember(txn)
    parameters: tuple[str, ...] = ()
    if txn.timely and txn.number(PARAMETERS_SET):
        from compute_market.governance import governance  # Most markets have no proposals.

        parameters = governance.activate(txn)
    transactions = 0
    if 0 < txn.number(MEMPOOL_NEXT_BLOCK) <= height:
        from compute_market.admission import mempool  # Most markets have no consumer pool.

        transactions = mempool.drain(txn, height)
    mode = modes.seed(txn).mode
    subsidies_it, epochs = 0, 0
    multipliers: tuple[int, ...] = ()
    if txn.timely and height >= chain.epoch_end(txn):
        closed: Closed = _subsidy().close(txn, height)
        subsidies_it, epochs, multipliers = closed.paid_it, closed.epochs, closed.multipliers
    activated = mode == "armed" and txn.timely and modes.activate(txn)
    paid = 0
    if mode == "real" or activated:
        for waiting in settlement.waiting(txn):
            receipts.quarantine_if_damaged(txn, waiting.key)
            jobs.mark_paid(txn, settlement.apply(txn, waiting))
            paid += 1
    expired = expire(txn, sweep_limit if txn.timely else 0)
    scores, restored, barred = 0, 0, 0
    if txn.timely and reputation.is_due(txn):
        scores, restored, barred = follow_time(txn, SCORES_LIMIT)
    bids, bids_burned_ct = 0, 0
    if txn.timely and 0 < txn.number(BIDS_DUE_FROM) <= height:
        from compute_market.bids import bids as sealed  # Most often no bid is overdue.

        bids, bids_burned_ct = sealed.expire(txn, BIDS_LIMIT)
    matched: list[str] = []
    if not txn.is_empty(PENDING):
        from compute_market.jobs.waiting import try_again  # Most often no job waits for an offer.

        matched = try_again(txn)
    work(txn)
    return Due(
        activated,
        paid,
        tuple(expired.job_ids),
        expired.burned_ct,
        expired.away,
        tuple(matched),
        bids,
        bids_burned_ct,
        scores,
        restored,
        barred,
        parameters,
        subsidies_it,
        epochs,
        multipliers,
        transactions,
    )


@cache
def _subsidy() -> Any:
    """The module. Most commands come while an epoch runs; an import takes longer each time."""
    import compute_market.subsidy.subsidy as subsidy

    return subsidy


def tick(txn: Txn, scrub_limit: int = SCRUB_LIMIT) -> None:
    """What `tick` does beside what is due.

    Old events go, at most so many receipts are looked at, and usage that a clock which was ahead
    has left in the future begins to fade.
    """
    from compute_market.admission import shares  # Few commands need it, and all import this module.

    before_ms = txn.now_ms - txn.config.log_retention_secs * 1000
    events.trim(txn, before_ms, TRIM_LIMIT)
    if scrub_limit:
        receipts.scrub(txn, scrub_limit)
    shares.bring_to_now(txn)


def conclude(txn: Txn, asked: Asked) -> None:
    """What follows from what was done: offers on the shelves they belong to, and the log."""
    follow_wallets(txn)
    if (txn.helped or txn.stirred) and not txn.is_empty(PENDING):
        from compute_market.jobs.waiting import mark

        mark(txn)
    events.flush(txn, asked)
