"""Money that is held: the buyer's escrow of a job, a bond of each side, and bonds of sealed bids.

Beside the accounts it keeps what is held of each owner, so that a wallet is shown without a walk
over jobs. The only mover of escrows and bonds, and the only writer of `holdings`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

from compute_market import events, metrics
from compute_market.amounts import split
from compute_market.errors import RefusedError
from compute_market.records import Job, Placement, Refused, Side, Token, replace
from compute_market.settlement import ledger
from compute_market.store.schema import HOLDINGS, JOBS, id_prefix
from compute_market.store.table import damaged
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.receipt_records import Settlement

Held = Literal["escrow_ct", "escrow_it", "bonds_ct"]
_HELD: tuple[Held, ...] = get_args(Held)
_ESCROWS: dict[Token, Held] = {"CT": "escrow_ct", "IT": "escrow_it"}


def missing_funds(txn: Txn, job: Job, placement: Placement) -> Refused | None:
    """Whether the buyer can pay escrow and bond; the matcher has seen to the provider's bond."""
    ct, it = split(job.units * placement.price_per_unit, placement.fee_pct_ct)
    try:
        wallet = ledger.wallet(job.buyer)
        ledger.require(txn, wallet, "CT", ct + job.consumer_bond)
        ledger.require(txn, wallet, "IT", it)
    except RefusedError as error:
        return Refused("insufficient_funds", error.message, error.hint)
    return None


def lock(txn: Txn, job: Job) -> None:
    """Take the escrow and both bonds of a job that was just placed."""
    placement = job.placed
    ct, it = split(job.units * placement.price_per_unit, placement.fee_pct_ct)
    _into_escrow(txn, job, "CT", ct)
    _into_escrow(txn, job, "IT", it)
    _lock_bond(txn, job, "buyer", job.buyer, job.consumer_bond)
    _lock_bond(txn, job, "provider", placement.provider, placement.provider_bond)


def check_hand_over(txn: Txn, job: Job, to: Placement, due: Iterable[tuple[int, int]]) -> None:
    """Whether the money is there to hand a running job over to another provider.

    `due` is what its providers are owed so far, (CT, IT) each. Raises RefusedError
    (`insufficient_funds`): another split of the price may need more of one token than is held.
    """
    needed = needed_for(job.units - job.units_proven, to, due)
    for token in ledger.TOKENS:
        more = needed[token] - ledger.balance(txn, ledger.escrow(job.job_id), token)
        ledger.require(txn, ledger.wallet(job.buyer), token, more)
    ledger.require(txn, ledger.wallet(to.provider), "CT", to.provider_bond)


def hand_over(txn: Txn, job: Job, to: Placement, due: Iterable[tuple[int, int]]) -> Job:
    """Change what a running job holds to what it will need with another provider.

    The caller has checked that the money is there. Returns the job with what was refunded.
    """
    needed = needed_for(job.units - job.units_proven, to, due)
    refunded: dict[Token, int] = {}
    for token in ledger.TOKENS:
        held = ledger.balance(txn, ledger.escrow(job.job_id), token)
        refunded[token] = max(0, held - needed[token])
        _into_escrow(txn, job, token, max(0, needed[token] - held))
        _refund(txn, job, token, refunded[token])
    released_ct = job.placed.provider_bond
    _release_bond(txn, job, "provider", job.placed.provider, released_ct)
    _lock_bond(txn, job, "provider", to.provider, to.provider_bond)
    _count_refunded(txn, refunded, released_ct)
    return _with_refunds(job, refunded)


def needed_for(units: int, on: Placement, due: Iterable[tuple[int, int]]) -> dict[Token, int]:
    """What the escrow of a running job holds: the price of `units` on a placement, and what is
    owed to the providers before it."""
    needed_ct, needed_it = split(units * on.price_per_unit, on.fee_pct_ct)
    for ct, it in due:
        needed_ct, needed_it = needed_ct + ct, needed_it + it
    return {"CT": needed_ct, "IT": needed_it}


def ends_of(due: "Settlement") -> tuple[str, str]:
    """The account that pays a receipt, the escrow of its job, and the one that is paid."""
    return ledger.escrow(due.job_id), ledger.wallet(due.provider)


def amounts_of(due: "Settlement") -> tuple[tuple[Token, int], ...]:
    """What a receipt is due, by token."""
    return ("CT", due.ct), ("IT", due.it)


def pay(txn: Txn, due: "Settlement") -> "Settlement":
    """Pay what a receipt is due, from the escrow of its job to its provider."""
    for token, amount in amounts_of(due):
        ledger.transfer(txn, token, amount, *ends_of(due), "settle", due.job_id)
        _hold(txn, due.buyer, _ESCROWS[token], -amount)
        metrics.count(txn, "compute_market_fee_split", token.lower(), "paid", by=amount)
    metrics.count(txn, "settle_applied_total")
    return replace(due, status="applied", applied_ms=txn.now_ms)


def close(
    txn: Txn,
    job: Job,
    settled: "Iterable[Settlement]",
    burn_ct: int,
    burn_event: str,
    burn_of: Side = "provider",
) -> Job:
    """Refund what is held for an ended job and owed to nobody; release both bonds.

    `burn_ct` of the bond of one side is burned under `burn_event`. What receipts still wait for
    stays. Returns the job with what was refunded.
    """
    kept: dict[Token, int] = {"CT": 0, "IT": 0}
    for due in settled:
        if due.status == "pending":
            for token, amount in amounts_of(due):
                kept[token] += amount
    escrowed = ledger.escrow(job.job_id)
    refunded: dict[Token, int] = {}
    for token, due_from_it in kept.items():
        held = ledger.balance(txn, escrowed, token)
        if held < due_from_it:
            problem = f"the escrow holds {held} {token}, and {due_from_it} are due"
            raise damaged(JOBS, job.job_id.encode(), problem)
        refunded[token] = held - due_from_it
        _refund(txn, job, token, refunded[token])
    placement = job.placed
    bonds: tuple[tuple[Side, str, int], ...] = (
        ("buyer", job.buyer, job.consumer_bond),
        ("provider", placement.provider, placement.provider_bond),
    )
    released_ct = 0
    for side, owner, amount in bonds:
        left = amount
        if side == burn_of and burn_ct:
            job = _burn_bond(txn, job, side, owner, burn_ct, burn_event)
            left -= burn_ct
        _release_bond(txn, job, side, owner, left)
        released_ct += left
    _count_refunded(txn, refunded, released_ct)
    return _with_refunds(job, refunded)


def lock_bid(txn: Txn, owner: str, bid_id: str, amount: int) -> None:
    """Take the bond of a sealed bid. Raises RefusedError (`insufficient_funds`)."""
    _move_bid_bond(txn, owner, bid_id, amount, "bid:lock")


def release_bid(txn: Txn, owner: str, bid_id: str, amount: int) -> None:
    """Give the bond of a bid back, since it was revealed."""
    _move_bid_bond(txn, owner, bid_id, amount, "bid:release")
    metrics.count(txn, "compute_market_fee_split", "ct", "refunded", by=amount)


def burn_bid(txn: Txn, owner: str, bid_id: str, amount: int) -> None:
    """Burn the bond of a bid that was not revealed in time."""
    _move_bid_bond(txn, owner, bid_id, amount, "bid:slash")
    metrics.count(txn, "compute_market_fee_split", "ct", "burned", by=amount)
    metrics.count(txn, "slashing_burn_ct_total", by=amount)
    metrics.count(txn, "bonds_burned_total", "bidder", by=int(amount > 0))


def held_of(txn: Txn, owner: str, what: Held) -> int:
    """What jobs and bids hold of an owner.

    An ended job holds what its receipt is due until it is paid.
    """
    return txn.sum(HOLDINGS, _holding_key(owner, what))


def totals(txn: Txn) -> dict[Held, int]:
    """What jobs and bids hold of all owners together: walks the owners, and not their jobs."""
    found = dict.fromkeys(_HELD, 0)
    for key, amount in txn.sums(HOLDINGS).items():
        what: Any = key.rpartition(b"\0")[2].decode()
        found[what] += amount
    return found


def recount(txn: Txn, job: Job) -> None:
    """Add what a stored job holds to sums that were never counted."""
    for account, token, owner, what in held_accounts(job):
        _hold(txn, owner, what, ledger.balance(txn, account, token))


def held_accounts(job: Job) -> list[tuple[str, Token, str, Held]]:
    """The accounts of a job with their token, whose money it is, and what it counts as."""
    found: list[tuple[str, Token, str, Held]] = [
        (ledger.escrow(job.job_id), "CT", job.buyer, "escrow_ct"),
        (ledger.escrow(job.job_id), "IT", job.buyer, "escrow_it"),
        (ledger.bond(job.job_id, "buyer"), "CT", job.buyer, "bonds_ct"),
    ]
    if job.placement is not None:
        bond = ledger.bond(job.job_id, "provider")
        found.append((bond, "CT", job.placement.provider, "bonds_ct"))
    return found


def balance_document(txn: Txn, owner: str) -> dict[str, Any]:
    """`wallet balance`: what a party has, and what its jobs and bids hold of it."""
    wallet = ledger.wallet(owner)
    return {
        "owner": owner,
        "ct": ledger.balance(txn, wallet, "CT"),
        "it": ledger.balance(txn, wallet, "IT"),
        "escrow": {
            "ct": held_of(txn, owner, "escrow_ct"),
            "it": held_of(txn, owner, "escrow_it"),
        },
        "bonds": {"ct": held_of(txn, owner, "bonds_ct")},
    }


def escrow_document(txn: Txn, job_id: str) -> dict[str, int]:
    """What is still held of the buyer's money for a job."""
    account = ledger.escrow(job_id)
    return {"ct": ledger.balance(txn, account, "CT"), "it": ledger.balance(txn, account, "IT")}


def _into_escrow(txn: Txn, job: Job, token: Token, amount: int) -> None:
    if amount == 0:
        return
    ends = ledger.wallet(job.buyer), ledger.escrow(job.job_id)
    ledger.transfer(txn, token, amount, *ends, "escrow:lock", job.job_id)
    _hold(txn, job.buyer, _ESCROWS[token], amount)


def _refund(txn: Txn, job: Job, token: Token, amount: int) -> None:
    if amount == 0:
        return
    ends = ledger.escrow(job.job_id), ledger.wallet(job.buyer)
    ledger.transfer(txn, token, amount, *ends, "escrow:refund", job.job_id)
    _hold(txn, job.buyer, _ESCROWS[token], -amount)


def _lock_bond(txn: Txn, job: Job, side: Side, owner: str, amount: int) -> None:
    ends = ledger.wallet(owner), ledger.bond(job.job_id, side)
    ledger.transfer(txn, "CT", amount, *ends, "bond:lock", job.job_id)
    _hold(txn, owner, "bonds_ct", amount)


def _release_bond(txn: Txn, job: Job, side: Side, owner: str, amount: int) -> None:
    if amount == 0:
        return
    ends = ledger.bond(job.job_id, side), ledger.wallet(owner)
    ledger.transfer(txn, "CT", amount, *ends, "bond:release", job.job_id)
    _hold(txn, owner, "bonds_ct", -amount)


def _count_refunded(txn: Txn, refunded: dict[Token, int], released_ct: int) -> None:
    """Count what was given back of the escrow of a job and of its bonds."""
    metrics.count(
        txn, "compute_market_fee_split", "ct", "refunded", by=refunded["CT"] + released_ct
    )
    metrics.count(txn, "compute_market_fee_split", "it", "refunded", by=refunded["IT"])


def _burn_bond(txn: Txn, job: Job, side: Side, owner: str, amount: int, event: str) -> Job:
    """Burn some of a bond; the job with the event that tells of it."""
    ends = ledger.bond(job.job_id, side), ledger.BURNED
    ledger.transfer(txn, "CT", amount, *ends, event, job.job_id)
    _hold(txn, owner, "bonds_ct", -amount)
    metrics.count(txn, "compute_market_fee_split", "ct", "burned", by=amount)
    metrics.count(txn, "slashing_burn_ct_total", by=amount)
    metrics.count(txn, "bonds_burned_total", side)
    seq = events.note(
        txn,
        "bond_burned",
        job_id=job.job_id,
        owner=owner,
        before=job.event_seq,
        ct=amount,
        cause=event,
    )
    return replace(job, event_seq=seq)


def _move_bid_bond(
    txn: Txn,
    owner: str,
    bid_id: str,
    amount: int,
    event: Literal["bid:lock", "bid:release", "bid:slash"],
) -> None:
    wallet, bond = ledger.wallet(owner), ledger.bid_bond(bid_id)
    debit, credit = {
        "bid:lock": (wallet, bond),
        "bid:release": (bond, wallet),
        "bid:slash": (bond, ledger.BURNED),
    }[event]
    ledger.transfer(txn, "CT", amount, debit, credit, event, bid_id)
    if amount:
        _hold(txn, owner, "bonds_ct", amount if event == "bid:lock" else -amount)


def _with_refunds(job: Job, refunded: dict[Token, int]) -> Job:
    return replace(
        job,
        refunded_ct=job.refunded_ct + refunded["CT"],
        refunded_it=job.refunded_it + refunded["IT"],
    )


def _hold(txn: Txn, owner: str, what: Held, by: int) -> None:
    txn.add(HOLDINGS, _holding_key(owner, what), by)


def _holding_key(owner: str, what: Held) -> bytes:
    return id_prefix(owner) + what.encode()
