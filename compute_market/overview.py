"""The market on one page, for a person: how it stands now, and what the next change would find due.

It walks what lives, never what has ended.
"""

from collections import Counter
from itertools import islice
from typing import Any, Final

from compute_market import chain, events
from compute_market.admission import capacity, comfort, mempool
from compute_market.amounts import MICRO
from compute_market.clock import LAST_RUN
from compute_market.errors import IntegrityError
from compute_market.governance import governance
from compute_market.jobs import jobs, waiting
from compute_market.offers import offers
from compute_market.records import OFFER_STATES, PRIORITIES, Token
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.settlement import escrow, ledger, modes
from compute_market.store.schema import (
    BIDS_DUE_FROM,
    BUNDLES_PENDING,
    DEADLINES,
    PARAMETERS_SET,
    PENDING,
    UNSETTLED,
    pack_u64,
)
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy

# Jobs without an offer that are asked why, and overdue ones that are counted, at most.
ASKED_MAX: Final = 256
OVERDUE_MAX: Final = 1_000
# Shelves of offers that are open and cannot be taken.
PROBLEMS: Final = ("barred", "unfunded")
# What one waits for that nothing keeps.
_NEXT_CHANGE: Final = "the next change"
# What the accounts of sealed bids begin with.
_SEALED: Final = "bid/"


def document(txn: Txn) -> dict[str, Any]:
    """The page as a document; amounts by token, units of capacity in units per second."""
    used = queue.active_jobs(txn)
    now = chain.status(txn)
    return {
        "settlement": modes.state(txn).mode,
        "height": now.height,
        "epoch": now.epoch,
        "guard": guard(txn),
        "slots": {"used": used, "free": max(0, txn.config.slots - used)},
        "queue": {priority: queue.depth(txn, priority) for priority in PRIORITIES},
        "queue_reasons": _queue_reasons(txn),
        "pending": _pending(txn),
        "held": {"jobs": queue.held_jobs(txn)},
        "offers": offers_by_state(txn),
        "capacity": {
            "estimate": capacity.estimate(txn),
            "headroom": capacity.headroom_micro(txn) // MICRO,
        },
        **balances(txn),
        "multiplier": subsidy.multiplier(txn),
        "bundles": {"pending": txn.size(BUNDLES_PENDING)},
        "last_command": _last_command(txn),
        "due": due(txn),
    }


def balances(txn: Txn) -> dict[str, dict[str, int]]:
    """Where the tokens are that were paid in and not out again, by token."""
    held, sealed = escrow.totals(txn), ledger.held_in(txn, _SEALED, "CT")
    return {
        "ct": _money(txn, "CT", held["escrow_ct"], held["bonds_ct"] - sealed, sealed),
        "it": _money(txn, "IT", held["escrow_it"]),
    }


def due(txn: Txn) -> dict[str, int]:
    """What the next change would do first: how much of each kind; what is not due is left out.

    Nothing that time alone causes while the clock is not believed. Overdue jobs are counted up to
    `OVERDUE_MAX`.
    """
    found = {"transactions": mempool.stored(txn).size - mempool.present(txn).size}
    if modes.is_real(txn):
        found["receipts"] = txn.size(UNSETTLED)
    if txn.timely:
        height = chain.height(txn)
        found |= {
            "overdue_jobs": _overdue(txn),
            "settlement": int(modes.is_due(txn)),
            "proposals": len(governance.standing(txn).due) if txn.number(PARAMETERS_SET) else 0,
            "epochs": sum(
                -((each.from_height - each.to_height - 1) // each.blocks)
                for each in subsidy.ended(txn)
            ),
            "scores": int(reputation.is_due(txn)),
            "bids": int(0 < txn.number(BIDS_DUE_FROM) <= height),
        }
    return {name: number for name, number in found.items() if number}


def guard(txn: Txn) -> dict[str, Any]:
    found = comfort.document(txn)
    pool = found.pop("consumer")
    return {**found, "pool": pool["size"]}


def _last_command(txn: Txn) -> dict[str, Any] | None:
    """Who asked for the last event. Of a log that is damaged there, when the last change was."""
    for _, last in events.legible_back(txn):
        if last is None:
            return {"at_ms": txn.number(LAST_RUN), "user": None, "command": None}
        return {"at_ms": last.at_ms, "user": last.asked.user, "command": last.asked.command}
    return None


def _queue_reasons(txn: Txn) -> dict[str, int]:
    """How many of those that wait for a slot are kept by what, without a look at any of them. Those
    on hold are all that are, whether they have an offer or not."""
    waiting = sum(queue.depth(txn, priority) for priority in PRIORITIES)
    slots = waiting if queue.is_full(txn) else 0
    cap = queue.depth(txn, "low") if not slots and queue.low_held_back(txn) else 0
    found = {
        "slots": slots,
        "cap": cap,
        _NEXT_CHANGE: waiting - slots - cap,
        "hold": queue.held_jobs(txn),
    }
    return {reason: number for reason, number in found.items() if number}


def _pending(txn: Txn) -> dict[str, Any]:
    """Jobs without an offer, and what they wait for; said of how many first, if not of all."""
    waiting = txn.size(PENDING)
    found: dict[str, Any] = {"jobs": waiting}
    if waiting > ASKED_MAX:
        found["reasons_of_first"] = ASKED_MAX
    return found | {"reasons": _reasons(txn)}


def _reasons(txn: Txn) -> dict[str, int]:
    """How many of the first jobs without an offer wait for what, and are damaged."""
    counted: Counter[str] = Counter()
    for job_id in islice(queue.pending_ids(txn), ASKED_MAX):
        try:
            job = jobs.named(txn, job_id.encode())
            counted[waiting.present_reason(txn, job).held_by or _NEXT_CHANGE] += 1
        except IntegrityError:
            counted["damaged"] += 1
    return dict(counted.most_common())


def offers_by_state(txn: Txn) -> dict[str, int]:
    """Offers by state, and of those that are open how many cannot be taken and why."""
    found = {state: offers.count_of(txn, f"state {state}") for state in OFFER_STATES}
    return found | {shelf: offers.count_of(txn, f"shelf {shelf}") for shelf in PROBLEMS}


def _money(
    txn: Txn, token: Token, escrowed: int, bonded: int = 0, sealed: int = 0
) -> dict[str, int]:
    held = {"escrowed": escrowed, "bonded": bonded, "sealed": sealed}
    burned = ledger.balance(txn, ledger.BURNED, token)
    total = ledger.in_circulation(txn, token)
    free = total - burned - sum(held.values())
    return {"in_circulation": total, "in_wallets": free, **held, "burned": burned}


def _overdue(txn: Txn) -> int:
    overdue = txn.collect(DEADLINES, OVERDUE_MAX)
    end = pack_u64(txn.now)
    return sum(key[:8] < end for key, _ in overdue)
