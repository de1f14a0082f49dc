"""Schema steps: what an older release stored, brought up to date by the first writer of this one.

Each step takes the store from one schema to the next, in the one transaction in which the writer
then acts: a home is of the old schema or of the new one, never in between.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.msgpack import Decoder

from compute_market import metrics
from compute_market.archive import counted
from compute_market.jobs import jobs, listed
from compute_market.offers import offers
from compute_market.receipt_records import Settlement
from compute_market.records import (
    Actor,
    Asked,
    Capability,
    Cause,
    Event,
    EventName,
    Job,
    JobState,
    Lane,
    LogEntry,
    Placement,
    Priority,
    Score,
    replace,
)
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.settlement import escrow, receipts
from compute_market.store import schema
from compute_market.store.rewriting import drop, rewrite, stored_entries
from compute_market.store.schema import pack_sum, pack_u64, unpack_u64
from compute_market.store.table import Table, damaged, encode
from compute_market.store.txn import Txn


def bring_up_to_date(txn: Txn, stored: int) -> None:
    """Take every step from the schema that a store was written with."""
    for number, step in _STEPS.items():
        if number > stored:
            step(txn)


# Schema 2: values have checksums; a job has placements; offers know their shelf; the log of events.


_Cause1 = Literal[
    "all slices proven",
    "cancelled by the client",
    "cancelled by the provider",
    "deadline missed",
    "deadline passed before a start",
]
_Verdict1 = Literal["admitted", "pending", "refused"]


class _Job1(Struct, array_like=True):
    job_id: str
    seq: int
    state: JobState
    buyer: str
    workload: str
    capability: Capability
    slices: int
    units: int
    max_price_per_unit: int
    consumer_bond: int
    deadline: int
    deadline_secs: int | None
    priority: Priority
    lane: Lane
    submitted_at: int
    offer_id: str | None
    provider: str | None
    price_per_unit: int
    fee_pct_ct: int
    provider_bond: int
    funded: bool
    queue_seq: int
    queued_ms: int
    started_at: int | None
    slices_proven: int
    units_proven: int
    paid_ct: int
    paid_it: int
    refunded_ct: int
    refunded_it: int
    ended_at: int | None
    ended_by: Actor | None
    cause: _Cause1 | None


class _Settlement1(Struct, array_like=True):
    status: Any
    ct: int
    it: int
    applied_ms: int | None


class _Decision1(Struct, array_like=True):
    seq: int
    at_ms: int
    job_id: str
    buyer: str
    units: int
    verdict: _Verdict1
    reason: str
    detail: str


_CAUSES1: dict[_Cause1, Cause] = {
    "all slices proven": "all_proven",
    "cancelled by the client": "cancelled_by_client",
    "cancelled by the provider": "cancelled_by_provider",
    "deadline missed": "deadline_missed",
    "deadline passed before a start": "never_started",
}
_VERDICTS1: dict[_Verdict1, EventName] = {
    "admitted": "job_queued",
    "pending": "job_pending",
    "refused": "job_refused",
}
_STANDING1 = Table("standing", bytes, key="", writer="")
_PROVIDER_PRICES1 = Table("provider_prices", bytes, key="", writer="")
_DECISIONS1 = Table("decisions", bytes, key="", writer="")
# Tables whose values only got a checksum.
_UNCHANGED1 = (
    schema.META,
    schema.COUNTERS.table,
    schema.POSTINGS,
    schema.WALLET_POSTINGS,
    schema.TAPS,
    schema.USAGE,
    schema.THROUGHPUT,
    schema.SLICES,
    schema.DEADLINES,
    schema.PENDING,
    schema.QUEUE_HIGH,
    schema.QUEUE_NORMAL,
    schema.QUEUE_LOW,
    schema.ACTIVE,
    schema.ACTIVE_LOW,
    schema.PROVIDER_CANCELS,
    schema.EFFECTIVE_PRICES,
    schema.RECEIPT_CLAIMS,
    schema.RECEIPTS,
    schema.RECEIPT_CHAIN,
    schema.SETTLE_STATE,
    schema.QUARANTINE,
    schema.CANCELLATIONS,
    schema.REPUTATION,
    schema.OFFERS,
)


def _to_2(txn: Txn) -> None:
    for table in _UNCHANGED1:
        rewrite(txn, table, lambda _, value: value)
    rewrite(
        txn,
        schema.ACCOUNTS.table,
        lambda _, value: pack_sum(int.from_bytes(value, "big", signed=True)),
    )
    rewrite(txn, schema.UTILIZATION.table, lambda _, value: pack_sum(unpack_u64(value)))
    rewrite(txn, schema.UNSETTLED, lambda _, value: value[:32])
    rewrite(txn, schema.JOBS, _job_from_1)
    _settlements_from_1(txn)
    _scores_from_1(txn)
    _offers_from_1(txn)
    _recent_from_1(txn)
    _sums_from_1(txn)
    _log_from_1(txn)
    for table in (_STANDING1, _PROVIDER_PRICES1, _DECISIONS1):
        drop(txn, table)


def _job_from_1(key: bytes, value: bytes) -> bytes:
    old = _decoded1(schema.JOBS, _job1, key, value)
    names = {*Job.__struct_fields__} & {*_Job1.__struct_fields__}
    kept = {name: getattr(old, name) for name in names}
    placement = None
    if old.offer_id is not None and old.provider is not None:
        placement = Placement(
            old.offer_id,
            old.provider,
            old.price_per_unit,
            old.fee_pct_ct,
            old.provider_bond,
            old.funded,
            old.units_proven,
        )
    cause = None if old.cause is None else _CAUSES1[old.cause]
    return encode(Job(**(kept | {"placement": placement, "cause": cause})))


def _settlements_from_1(txn: Txn) -> None:
    owed: dict[bytes, tuple[str, str, str]] = {}
    for job in txn.records(schema.JOBS):
        if job.placement is not None:
            receipt_key = receipts.key_of_placement(job, job.placement)
            if receipt_key is not None:
                owed[receipt_key] = job.job_id, job.buyer, job.placement.provider

    def convert(key: bytes, value: bytes) -> bytes:
        old = _decoded1(schema.SETTLEMENTS, _settlement1, key, value)
        if key not in owed:
            raise damaged(schema.SETTLEMENTS, key, "no job has this receipt")
        return encode(Settlement(old.status, old.ct, old.it, old.applied_ms, *owed[key]))

    rewrite(txn, schema.SETTLEMENTS, convert)


def _scores_from_1(txn: Txn) -> None:
    entries = txn.collect(schema.REPUTATION, txn.size(schema.REPUTATION))
    for key, payload in entries:
        old = schema.REPUTATION.decode(key, payload)
        score: Score = replace(old, barred=old.score < 0)
        txn.write(schema.REPUTATION, key, score)
        txn.put(schema.SCORES_RECENT, reputation.recent_key(key.decode(), score))


def _offers_from_1(txn: Txn) -> None:
    for table in (schema.BOOK, schema.HEADS):
        txn.clear(table)
    for key, payload in txn.collect(schema.OFFERS, txn.size(schema.OFFERS)):
        old = schema.OFFERS.decode(key, payload)
        offer = replace(old, shelf=offers.shelf_of(txn, old))
        offers.store_indexed(txn, offer)


def _recent_from_1(txn: Txn) -> None:
    # The market as a whole had no usage: its window begins empty.
    for key, payload in txn.scan(schema.USAGE):
        usage = schema.USAGE.decode(key, payload)
        txn.put(schema.USAGE_RECENT, pack_u64(usage.at_ms) + key)
    for key, value in txn.scan(schema.EFFECTIVE_PRICES):
        txn.put(schema.EFFECTIVE_PRICES_RECENT, value[:8] + key)


def _sums_from_1(txn: Txn) -> None:
    for job in txn.records(schema.JOBS):
        if job.state in ("queued", "active"):
            txn.add(schema.BACKLOG, b"units", job.units - job.units_proven)
        escrow.recount(txn, job)


def _log_from_1(txn: Txn) -> None:
    """The decisions of the old log as events; who asked was not kept."""
    seq = 0
    last: dict[str, int] = {}  # job id → its last event
    for old in _decisions1(txn):
        seq += 1
        detail = {"reason": old.reason, "message": old.detail, "units": old.units}
        before = last.get(old.job_id, 0)
        event = Event(_VERDICTS1[old.verdict], old.job_id, None, old.buyer, detail, before)
        last[old.job_id] = seq
        entry = LogEntry(old.at_ms, Asked(), (event,))
        txn.write(schema.EVENTS, pack_u64(seq), entry)
    for job_id, of_job in last.items():
        job = jobs.find(txn, job_id)
        if job is not None:  # Those that were refused are not stored.
            jobs.with_event(txn, job, of_job)
    txn.set_number("event_seq", seq)


def _decisions1(txn: Txn) -> Iterator[_Decision1]:
    for key, value in stored_entries(txn, _DECISIONS1):
        yield _decoded1(_DECISIONS1, _decision1, key, value)


_job1: Final = Decoder(_Job1)
_settlement1: Final = Decoder(_Settlement1)
_decision1: Final = Decoder(_Decision1)


def _decoded1(table: Table[Any], decoder: Any, key: bytes, value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except ValueError as error:
        raise damaged(table, key, str(error)) from error


# Schema 3: what every party holds of the slots; waiting jobs by party; offers by their bond.


def _to_3(txn: Txn) -> None:
    for key, _ in txn.collect(schema.ACTIVE, txn.size(schema.ACTIVE)):
        queue.count_slot(txn, jobs.named(txn, key))
    for table in queue.TABLES.values():
        for _, value in txn.collect(table, txn.size(table)):
            queue.enter(txn, jobs.named(txn, value[8:]))
    for table in (schema.BOOK, schema.HEADS):
        txn.clear(table)
    for offer in txn.records(schema.OFFERS):
        offers.index_anew(txn, offer)


# Schema 4: sealed bids and imports. Nothing changes of what is there; an older release would not
# read their events, nor let a bid expire.


def _to_4(txn: Txn) -> None:
    """There is nothing to convert."""


# Schema 5: bundles, and scores that time changes. An older release would not let a score decay.
# What a provider advertised has epoch 0.


def _to_5(txn: Txn) -> None:
    if txn.size(schema.REPUTATION):
        for key, payload in txn.collect(schema.REPUTATION, txn.size(schema.REPUTATION)):
            score = schema.REPUTATION.decode(key, payload)
            if score.score == score.seed:
                txn.write(schema.REPUTATION, key, replace(score, epoch=0))
        reputation.take_terms(txn)


# Schema 6: lanes, the consumer pool, parameters by proposal, epochs of the subsidy.


def _to_6(txn: Txn) -> None:
    # An earlier step may have counted some already.
    counts = Counter({key: -number for key, number in txn.sums(schema.LANE_JOBS).items()})
    for table in (schema.PENDING, *queue.TABLES.values()):
        for _, value in txn.scan(table):
            counts.update(queue.counted(jobs.named(txn, value[8:])))
    for key, number in counts.items():
        txn.add(schema.LANE_JOBS, key, number)
    _begin_epochs(txn)


def _begin_epochs(txn: Txn) -> None:
    """The first epoch begins where the last change left the market; older work earns nothing."""
    txn.set_number(schema.EPOCH_FROM, txn.number("height_seen"))
    txn.set_number(schema.UNITS_BEFORE_EPOCHS, metrics.value(txn, "industrial_units_total"))


# Schema 7: ended jobs in the order of ends, archives, and burned bonds counted. An older release
# lists no job that ends, and takes the id of an archived one for a new one.


def _to_7(txn: Txn) -> None:
    for job in txn.records(schema.JOBS):
        if job.ended_at is not None:
            txn.put(schema.ENDED, jobs.listed_key(job.ended_at, job.job_id))
    burned: Counter[tuple[str, ...]] = Counter()
    for posting in txn.records(schema.POSTINGS):
        for names, by in counted.of_posting(posting):
            if names[0] == "bonds_burned_total":
                burned[names] += by
    for names, by in burned.items():
        metrics.count(txn, *names, by=by - metrics.value(txn, *names))


# Schema 8: jobs in the order of submission, and by party. An older release lists no new job there.


def _to_8(txn: Txn) -> None:
    for job in txn.records(schema.JOBS):
        for table, key, value in listed.entries(job):
            txn.put(table, key, value)


_STEPS: dict[int, Callable[[Txn], None]] = {
    2: _to_2,
    3: _to_3,
    4: _to_4,
    5: _to_5,
    6: _to_6,
    7: _to_7,
    8: _to_8,
}
