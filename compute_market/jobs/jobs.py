"""Job records: how they are read, shown and moved from state to state. The only writer of jobs.

The actions that decide about these moves are in `lifecycle`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from compute_market import metrics
from compute_market.amounts import split, units_of
from compute_market.config.settings import Config
from compute_market.errors import NotFoundError, UsageError
from compute_market.offers import offers
from compute_market.records import (
    LIVE_STATES,
    Actor,
    Job,
    JobState,
    Offer,
    Settlement,
    Slice,
    Token,
    replace,
)
from compute_market.scheduler import queue
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import decode, pack_u64
from compute_market.store.store import Txn

PRIORITY_MISS_MS = 5_000


def get(txn: Txn, job_id: str) -> Job:
    """The job. Raises NotFoundError."""
    job = find(txn, job_id)
    if job is None:
        raise NotFoundError(f"job {job_id} does not exist", hint="see `tb-cli compute list`")
    return job


def find(txn: Txn, job_id: str) -> Job | None:
    job: Job | None = txn.read("jobs", job_id.encode())
    return job


def page(
    txn: Txn, after: bytes, limit: int, wanted: Callable[[Job], bool]
) -> tuple[list[Job], bytes | None]:
    """Look at `limit` jobs by id from after the key `after` on; those wanted, and the last key.

    The key is None when the table ends: a listing of any length runs in short transactions.
    """
    entries = txn.collect("jobs", limit, start=after + b"\0" if after else None)
    found = [job for key, value in entries if wanted(job := decode("jobs", key, value))]
    return found, entries[-1][0] if len(entries) == limit else None


def slices(txn: Txn, job_id: str) -> Iterator[Slice]:
    """The slices of a job in order."""
    return txn.records("slices", _slice_prefix(job_id))


def slice_at(txn: Txn, job: Job, index: int) -> Slice:
    """One slice. Raises UsageError for an index the job does not have."""
    found: Slice | None = txn.read("slices", _slice_key(job.job_id, index)) if index >= 0 else None
    if found is None:
        raise UsageError(
            f"job {job.job_id} has no slice {index}", hint=f"slices are 0…{job.slices - 1}"
        )
    return found


def live(txn: Txn) -> Iterator[Job]:
    """Every pending, queued and active job."""
    for line in ("pending", *queue.TABLES.values()):
        for _, value in txn.scan(line):
            yield get(txn, value[8:].decode())
    for key, _ in txn.scan("active"):
        yield get(txn, key.decode())


def keep_pending(txn: Txn, job: Job, inputs: list[Slice]) -> Job:
    """Store a job that has no match yet."""
    job = _store_new(txn, job, inputs)
    txn.put("pending", _pending_key(job), pack_u64(txn.now_ms) + job.job_id.encode())
    return job


def pending_ids(txn: Txn) -> list[str]:
    """Ids of jobs without a match, in order of priority, then submission."""
    return [value[8:].decode() for _, value in txn.scan("pending")]


def enqueue(txn: Txn, job: Job, offer: Offer, *, funded: bool, inputs: list[Slice] | None) -> Job:
    """Give a job to an offer: units reserved, money locked if funded, a place in the queue.

    `inputs` are the slices of a job that is not stored yet. The caller has checked the funds.
    """
    if inputs is None:
        txn.delete("pending", _pending_key(job))
    else:
        job = _store_new(txn, job, inputs)
    job = replace(
        job,
        state="queued",
        offer_id=offer.offer_id,
        provider=offer.provider,
        price_per_unit=offer.price_per_unit,
        fee_pct_ct=offer.fee_pct_ct,
        provider_bond=offer.provider_bond,
        funded=funded,
        queue_seq=txn.next_number("queue_seq"),
        queued_ms=txn.now_ms,
    )
    offers.reserve(txn, offer, job.units)
    if funded:
        _lock_money(txn, job)
    queue.enter(txn, job)
    _write(txn, job)
    return job


def start(txn: Txn, job: Job) -> Job:
    """Give a queued job a slot."""
    queue.leave(txn, job)
    queue.take_slot(txn, job)
    if job.priority != "low" and txn.now_ms - job.queued_ms > PRIORITY_MISS_MS:
        metrics.count(txn, "scheduler_priority_miss_total")
    job = replace(job, state="active", started_at=txn.now)
    _write(txn, job)
    return job


def prove_slice(txn: Txn, job: Job, index: int, proven: Slice) -> Job:
    """Credit a slice whose proof was accepted to the provider that holds the job."""
    units = units_of(proven.length)
    txn.write("slices", _slice_key(job.job_id, index), replace(proven, proven_ms=txn.now_ms))
    offers.prove(txn, job.offer_id or "", units)
    metrics.count(txn, "industrial_units_total", by=units)
    job = replace(job, slices_proven=job.slices_proven + 1, units_proven=job.units_proven + units)
    _write(txn, job)
    return job


def close(
    txn: Txn,
    config: Config,
    job: Job,
    state: JobState,
    ended_by: Actor,
    cause: str,
    *,
    burn_ct: int = 0,
    burn_event: str = "",
) -> Job:
    """End a live job: slot, queue place and units given back, receipt, payment, refunds, bonds.

    `burn_ct` of a funded job's provider bond is burned under `burn_event`.
    """
    _leave_lines(txn, job)
    settled: Settlement | None = None
    if job.offer_id is not None and job.provider is not None:
        offers.release(txn, job.offer_id, job.units - job.units_proven)
        if job.units_proven:
            receipt, _ = receipts.issue(txn, job, job.provider, job.units_proven)
            settled = settlement.settle(txn, config, job, receipt)
    job = replace(job, state=state, ended_at=txn.now, ended_by=ended_by, cause=cause)
    if job.funded:
        job = _settle_money(txn, job, settled, burn_ct, burn_event)
    _write(txn, job)
    return job


def mark_paid(txn: Txn, job: Job, settled: Settlement) -> None:
    """Show on the job what its receipt, which had waited, was paid."""
    _write(txn, _paid(job, settled))


def balance_document(txn: Txn, owner: str) -> dict[str, Any]:
    """`wallet balance`: what a party has, and what its jobs hold of it.

    The escrow of an ended job counts while its receipt waits to be paid.
    """
    escrow: dict[Token, int] = {"CT": 0, "IT": 0}
    bonds = 0
    ended = (get(txn, waiting.job_id) for waiting in settlement.pending(txn))
    for job in (*live(txn), *ended):
        if job.buyer == owner:
            for token in ledger.TOKENS:
                escrow[token] += ledger.balance(txn, ledger.escrow(job.job_id), token)
            bonds += ledger.balance(txn, ledger.bond(job.job_id, "buyer"), "CT")
        if job.provider == owner:
            bonds += ledger.balance(txn, ledger.bond(job.job_id, "provider"), "CT")
    wallet = ledger.wallet(owner)
    return {
        "owner": owner,
        "ct": ledger.balance(txn, wallet, "CT"),
        "it": ledger.balance(txn, wallet, "IT"),
        "escrow": {"ct": escrow["CT"], "it": escrow["IT"]},
        "bonds": {"ct": bonds},
    }


def lines_of(job: Job) -> Iterator[tuple[str, bytes]]:
    """The (table, key) pairs a job's state demands; for the audit."""
    if job.state not in LIVE_STATES:
        return
    yield "deadlines", _deadline_key(job)
    if job.state == "pending":
        yield "pending", _pending_key(job)
    elif job.state == "queued":
        yield queue.TABLES[job.priority], pack_u64(job.queue_seq)
    else:
        yield "active", job.job_id.encode()
        if job.priority == "low":
            yield "active_low", job.job_id.encode()


def document(txn: Txn, job: Job) -> dict[str, Any]:
    """The JSON form of a job. `escrow` is what is still held for it; what it asks is null until
    an offer is found."""
    account = ledger.escrow(job.job_id)
    matched = job.offer_id is not None
    return {
        "job_id": job.job_id,
        "state": job.state,
        "buyer": job.buyer,
        "provider": job.provider,
        "offer_id": job.offer_id,
        "workload": job.workload,
        "priority": job.priority,
        "lane": job.lane,
        "units": job.units,
        "units_proven": job.units_proven,
        "slices": job.slices,
        "slices_proven": job.slices_proven,
        "price_per_unit": job.price_per_unit if matched else None,
        "max_price_per_unit": job.max_price_per_unit,
        "fee_pct_ct": job.fee_pct_ct if matched else None,
        "consumer_bond": job.consumer_bond,
        "provider_bond": job.provider_bond if matched else None,
        "deadline": job.deadline,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "funded": job.funded,
        "cause": job.cause,
        "escrow": {
            "ct": ledger.balance(txn, account, "CT"),
            "it": ledger.balance(txn, account, "IT"),
        },
        "paid": {"ct": job.paid_ct, "it": job.paid_it},
        "refunded": {"ct": job.refunded_ct, "it": job.refunded_it},
        "ended_by": job.ended_by,
        "capability": offers.capability_document(job.capability),
    }


def _store_new(txn: Txn, job: Job, inputs: list[Slice]) -> Job:
    job = replace(job, seq=txn.next_number("job_seq"))
    for index, entry in enumerate(inputs):
        txn.write("slices", _slice_key(job.job_id, index), entry)
    txn.put("deadlines", _deadline_key(job))
    _write(txn, job)
    return job


def _lock_money(txn: Txn, job: Job) -> None:
    ct, it = split(job.units * job.price_per_unit, job.fee_pct_ct)
    buyer = ledger.wallet(job.buyer)
    escrow = ledger.escrow(job.job_id)
    ledger.transfer(txn, "CT", ct, buyer, escrow, "escrow:lock", job.job_id)
    ledger.transfer(txn, "IT", it, buyer, escrow, "escrow:lock", job.job_id)
    bond = ledger.bond(job.job_id, "buyer")
    ledger.transfer(txn, "CT", job.consumer_bond, buyer, bond, "bond:lock", job.job_id)
    provider = ledger.wallet(job.provider or "")
    bond = ledger.bond(job.job_id, "provider")
    ledger.transfer(txn, "CT", job.provider_bond, provider, bond, "bond:lock", job.job_id)


def _settle_money(
    txn: Txn, job: Job, settled: Settlement | None, burn_ct: int, burn_event: str
) -> Job:
    """Refund what was escrowed and is not owed, and release both bonds less what is burned."""
    if settled is not None and settled.status == "applied":
        job = _paid(job, settled)
        settled = None
    kept = {"CT": settled.ct if settled else 0, "IT": settled.it if settled else 0}
    buyer, provider = ledger.wallet(job.buyer), ledger.wallet(job.provider or "")
    escrow = ledger.escrow(job.job_id)
    refunded = {}
    for token in ledger.TOKENS:
        refunded[token] = ledger.balance(txn, escrow, token) - kept[token]
        ledger.transfer(txn, token, refunded[token], escrow, buyer, "escrow:refund", job.job_id)
    bond = ledger.bond(job.job_id, "buyer")
    ledger.transfer(txn, "CT", job.consumer_bond, bond, buyer, "bond:release", job.job_id)
    bond = ledger.bond(job.job_id, "provider")
    ledger.transfer(txn, "CT", burn_ct, bond, ledger.BURNED, burn_event, job.job_id)
    returned = job.provider_bond - burn_ct
    ledger.transfer(txn, "CT", returned, bond, provider, "bond:release", job.job_id)
    refunds_ct = refunded["CT"] + job.consumer_bond + returned
    metrics.count(txn, "compute_market_fee_split", "ct", "refunded", by=refunds_ct)
    metrics.count(txn, "compute_market_fee_split", "it", "refunded", by=refunded["IT"])
    metrics.count(txn, "compute_market_fee_split", "ct", "burned", by=burn_ct)
    metrics.count(txn, "slashing_burn_ct_total", by=burn_ct)
    return replace(job, refunded_ct=refunded["CT"], refunded_it=refunded["IT"])


def _paid(job: Job, settled: Settlement) -> Job:
    return replace(job, paid_ct=job.paid_ct + settled.ct, paid_it=job.paid_it + settled.it)


def _leave_lines(txn: Txn, job: Job) -> None:
    txn.delete("deadlines", _deadline_key(job))
    if job.state == "active":
        queue.free_slot(txn, job)
    elif job.state == "queued":
        queue.leave(txn, job)
    else:
        txn.delete("pending", _pending_key(job))


def _write(txn: Txn, job: Job) -> None:
    txn.write("jobs", job.job_id.encode(), job)


def _slice_prefix(job_id: str) -> bytes:
    return job_id.encode() + b"\0"


def _slice_key(job_id: str, index: int) -> bytes:
    return _slice_prefix(job_id) + pack_u64(index)


def _deadline_key(job: Job) -> bytes:
    return pack_u64(job.deadline) + job.job_id.encode()


def _pending_key(job: Job) -> bytes:
    return queue.rank_byte(job.priority) + pack_u64(job.seq)
