"""What becomes of the money of receipts: paid at once, waiting for the mode, or never.

The only writer of `settlements` and `unsettled`.
"""

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from compute_market.amounts import payment
from compute_market.records import Job, Placement
from compute_market.settlement import escrow, modes
from compute_market.store.schema import SETTLEMENTS, UNSETTLED, pack_u64, unpack_u64
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.receipt_records import Receipt, Settlement


class Waiting(Struct, frozen=True, gc=False):
    """A receipt that waits to be paid."""

    seq: int
    key: bytes


def due_to(placement: Placement) -> tuple[int, int]:
    """(CT, IT) that the provider of a placement is due for what it has proven."""
    return payment(0, placement.price_per_unit * placement.units_proven, placement.fee_pct_ct)


def settle(txn: Txn, job: Job, placement: Placement, receipt: "Receipt") -> "Settlement":
    """Decide what becomes of a new receipt, and pay it at once when the mode is real.

    The receipt of a job that was not funded never moves money. A key that was paid before is not
    paid again, even if its receipt was lost to damage since.
    """
    before = of(txn, receipt.idempotency_key)
    if before is not None:
        return before
    ct, it = due_to(placement)
    settled = SETTLEMENTS.kind(  # Most commands prove nothing, and never import it.
        "recorded" if receipt.dry_run else "pending",
        ct,
        it,
        None,
        job.job_id,
        job.buyer,
        receipt.provider,
    )
    if not receipt.dry_run:
        if modes.is_real(txn):
            settled = escrow.pay(txn, settled)
        else:
            txn.put(UNSETTLED, pack_u64(receipt.seq), receipt.idempotency_key)
    txn.write(SETTLEMENTS, receipt.idempotency_key, settled)
    return settled


def apply(txn: Txn, waiting: Waiting) -> "Settlement":
    """Pay one receipt that waited for the mode to be real."""
    settled = escrow.pay(txn, txn.must_read(SETTLEMENTS, waiting.key))
    txn.write(SETTLEMENTS, waiting.key, settled)
    txn.remove(UNSETTLED, pack_u64(waiting.seq))
    return settled


def waiting(txn: Txn) -> list[Waiting]:
    """Receipts that wait to be paid, in order of issue."""
    return [Waiting(unpack_u64(seq), key) for seq, key in txn.scan(UNSETTLED)]


def moves(txn: Txn) -> list[dict[str, Any]]:
    """What paying all receipts that wait would move, as documents, in the order of paying."""
    found = []
    for each in waiting(txn):
        due = txn.must_read(SETTLEMENTS, each.key)
        debit, credit = escrow.ends_of(due)
        for token, amount in escrow.amounts_of(due):
            if amount:
                found.append({"token": token, "from": debit, "to": credit, "amount": amount})
    return found


def plan(txn: Txn) -> dict[str, Any]:
    """`settle plan`: those moves, and the root of the state that they were made of."""
    from compute_market.settlement import state_root  # Few commands need it.

    return {
        "root": state_root.root(txn).hex(),
        "pending": len(waiting(txn)),
        "moves": moves(txn),
    }


def of(txn: Txn, key: bytes) -> "Settlement | None":
    return txn.read(SETTLEMENTS, key)
