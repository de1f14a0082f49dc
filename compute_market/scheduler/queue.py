"""Who waits, and who is next. Decides only; `jobs` starts and ends jobs.

Three tables, one per priority, hold the waiting jobs in order of arrival, and `active` holds the
running ones: their sizes are the queue depths and the number of active jobs, so there is no
counter that could drift. `queue_pairs` holds the waiting ones by buyer and provider, and
`slots_held` how many slots each party has: nobody is to hold them all. `pending` holds those that
wait for an offer. Of those that wait `lane_jobs` counts what their tables do not tell: those of the
consumer lane, and the deferred. So a job of the industrial lane, which most are, comes and goes
without it. A job that is held has left the tables of those that wait, and its place is kept in its
record; `lane_jobs` knows which are held. The only writer of these tables.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from compute_market.records import PRIORITIES, Job, Lane, Priority, Side
from compute_market.store.schema import (
    ACTIVE,
    ACTIVE_LOW,
    JOBS,
    LANE_JOBS,
    PENDING,
    QUEUE_HIGH,
    QUEUE_LOW,
    QUEUE_NORMAL,
    QUEUE_PAIRS,
    SLOTS_HELD,
    id_prefix,
    pack_u64,
    unpack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn

TABLES: Final[dict[Priority, Table[bytes]]] = {
    "high": QUEUE_HIGH,
    "normal": QUEUE_NORMAL,
    "low": QUEUE_LOW,
}
# Bytes of a key of `queue_pairs` that number an arrival, those with the priority, and what sorts
# behind every priority.
_ARRIVAL = 8
_PAIR_REST = 1 + _ARRIVAL
_BEHIND = b"\xff"
_HELD = b"held\0"
# What keeps a waiting job from starting now.
HeldBy = Literal["hold", "slots", "cap"]


def enter(txn: Txn, job: Job) -> None:
    """Put a job, whose `queue_seq` and `queued_ms` are set, behind those of its priority."""
    (_, key, value), (_, pair_key, _) = entries(job)
    txn.put(TABLES[job.priority], key, value)
    txn.put(QUEUE_PAIRS, pair_key, value)
    count(txn, job, +1)


def leave(txn: Txn, job: Job) -> None:
    (_, key, _), (_, pair_key, _) = entries(job)
    txn.remove(TABLES[job.priority], key)
    txn.remove(QUEUE_PAIRS, pair_key)
    count(txn, job, -1)


def enter_pending(txn: Txn, job: Job) -> None:
    """Let a job wait for an offer, behind those of its priority."""
    txn.put(*pending_entry(job, txn.now_ms))
    count(txn, job, +1)


def leave_pending(txn: Txn, job: Job) -> None:
    _, key, _ = pending_entry(job, 0)
    txn.remove(PENDING, key)
    count(txn, job, -1)


def enter_again(txn: Txn, job: Job) -> None:
    """Put a job that was held back where it waited before, queued or pending."""
    if job.state == "queued":
        enter(txn, job)
    else:
        enter_pending(txn, job)


def leave_waiting(txn: Txn, job: Job) -> None:
    """Take a job from among those that wait, queued or pending, held or not."""
    if job.held:
        count(txn, job, -1)
    elif job.state == "queued":
        leave(txn, job)
    else:
        leave_pending(txn, job)


def count(txn: Txn, job: Job, by: int) -> None:
    """Count a job that begins (1) or ceases (-1) to wait in the state that it has."""
    for key in counted(job):
        txn.add(LANE_JOBS, key, by)


def counted(job: Job) -> list[bytes]:
    """The keys under which a job counts while it waits; also for the laws."""
    if job.held:
        return [_HELD + job.job_id.encode()]
    found = []
    if job.lane == "consumer" and job.state in ("queued", "pending"):
        found.append(lane_key(job.state, job.lane))
    if job.deferred:
        found.append(lane_key("deferred", job.lane))
    return found


def take_slot(txn: Txn, job: Job) -> None:
    txn.put(ACTIVE, job.job_id.encode())
    if job.priority == "low":
        txn.put(ACTIVE_LOW, job.job_id.encode())
    count_slot(txn, job)


def free_slot(txn: Txn, job: Job) -> None:
    txn.remove(ACTIVE, job.job_id.encode())
    if job.priority == "low":
        txn.remove(ACTIVE_LOW, job.job_id.encode())
    for key in slot_holders(job):
        txn.add(SLOTS_HELD, key, -1)


def prefer_active(txn: Txn, job: Job, priority: Priority) -> None:
    """Let the slot of an active job count as one of another priority."""
    if job.priority == "low":
        txn.remove(ACTIVE_LOW, job.job_id.encode())
    if priority == "low":
        txn.put(ACTIVE_LOW, job.job_id.encode())


def hand_slot_over(txn: Txn, job: Job, provider: str) -> None:
    """Let the slot of an active job count as that of its next provider."""
    txn.add(SLOTS_HELD, _holder("provider", job.placed.provider), -1)
    txn.add(SLOTS_HELD, _holder("provider", provider), +1)


def count_slot(txn: Txn, job: Job) -> None:
    """Count the slot of an active job as held by both its parties."""
    for key in slot_holders(job):
        txn.add(SLOTS_HELD, key, +1)


def slot_holders(job: Job) -> tuple[bytes, bytes]:
    """The keys under which the slot of an active job counts."""
    return _holder("buyer", job.buyer), _holder("provider", job.placed.provider)


def depth(txn: Txn, priority: Priority) -> int:
    return txn.size(TABLES[priority])


def oldest_wait_ms(txn: Txn, priority: Priority) -> int:
    """How long the first of those that wait for a slot has done so, 0 without any."""
    found = txn.first(TABLES[priority])
    return 0 if found is None else max(0, txn.now_ms - unpack_u64(found[1][:8]))


def oldest_pending_ms(txn: Txn, priority: Priority) -> int:
    """How long the first of those that wait for an offer has done so, 0 without any."""
    found = txn.first(PENDING, rank_byte(priority))
    return 0 if found is None else max(0, txn.now_ms - unpack_u64(found[1][:8]))


def active_jobs(txn: Txn) -> int:
    return txn.size(ACTIVE)


def active_ids(txn: Txn, limit: int) -> list[str]:
    """Ids of the first `limit` jobs that run, by id."""
    return [key.decode() for key, _ in txn.collect(ACTIVE, limit)]


def slots_of(txn: Txn, side: Side, identity: str) -> int:
    """How many slots a party holds."""
    return txn.sum(SLOTS_HELD, _holder(side, identity))


def next_to_start(txn: Txn) -> str | None:
    """The id of the job that takes the next slot, or None when none may start.

    Jobs go in order of priority, then arrival; a low job held back by its cap blocks nobody behind
    it, so while the cap holds the low jobs are left out as a whole. One whose buyer or provider has
    its share of the slots lets those of others pass; when there is none, no slot is left idle.
    """
    # Most often nobody waits, which is found out with the least.
    if txn.is_empty(QUEUE_PAIRS) or is_full(txn):
        return None
    # In each table those who came first come first, whatever aging makes of them.
    heads = [
        (priority, head)
        for priority, table in TABLES.items()
        if (head := txn.first(table)) is not None and (priority != "low" or not low_held_back(txn))
    ]
    if not heads:
        return None
    first = min(_place(txn, priority, *head) for priority, head in heads)[-1]
    if txn.size(QUEUE_PAIRS) > 1:
        job = txn.must_read(JOBS, first.encode())
        if _has_its_share(txn, "buyer", job.buyer) or _has_its_share(
            txn, "provider", job.placed.provider
        ):
            return _first_of_others(txn, [priority for priority, _ in heads]) or first
    return first


def takes_at_once(txn: Txn, job: Job) -> bool:
    """Whether a job that is not in the queue yet would be the next one to start: nobody waits."""
    return (
        txn.is_empty(QUEUE_PAIRS)
        and not is_full(txn)
        and (job.priority != "low" or not low_held_back(txn))
    )


def in_order(txn: Txn) -> Iterator[str]:
    """Ids of all queued jobs as they would start, caps aside; held ones stand in their place."""
    from heapq import merge  # Few commands list the queue, and most import this module.

    on_hold = sorted(
        _place(txn, job.priority, pack_u64(job.queue_seq), _waiting(job))
        for job in held(txn)
        if job.state == "queued"
    )
    waiting = (_of_priority(txn, priority) for priority in PRIORITIES)
    for _, _, job_id in merge(on_hold, *waiting):
        yield job_id


def held(txn: Txn) -> Iterator[Job]:
    """The jobs that are held, by id."""
    for key in txn.sums(LANE_JOBS, _HELD):
        yield txn.must_read(JOBS, key[len(_HELD) :])


def held_jobs(txn: Txn) -> int:
    """How many jobs are held."""
    return len(txn.sums(LANE_JOBS, _HELD))


def is_full(txn: Txn) -> bool:
    return active_jobs(txn) >= txn.config.slots


def low_held_back(txn: Txn) -> bool:
    """The cap on active low jobs, a share of the slots: with nothing active one always starts."""
    cap = txn.config.low_priority_cap_pct * txn.config.slots
    return (txn.size(ACTIVE_LOW) + 1) * 100 > cap and not txn.is_empty(ACTIVE)


def held_by(txn: Txn, job: Job) -> HeldBy | None:
    """What keeps a queued job waiting, beside those ahead of it."""
    if job.held:
        return "hold"
    if is_full(txn):
        return "slots"
    return "cap" if job.priority == "low" and low_held_back(txn) else None


def document(txn: Txn, job: Job, place: int, held: str | None) -> dict[str, Any]:
    """The JSON form of one waiting job."""
    return {
        "place": place,
        "job_id": job.job_id,
        "state": job.state,
        "priority": job.priority,
        "units": job.units,
        "held_by": held,
    }


def entries(job: Job) -> tuple[tuple[Table[bytes], bytes, bytes], ...]:
    """The tables, keys and values of a queued job; also for the laws."""
    waiting = _waiting(job)
    arrival = pack_u64(job.queue_seq)
    pair = id_prefix(job.buyer) + id_prefix(job.placed.provider)
    return (
        (TABLES[job.priority], arrival, waiting),
        (QUEUE_PAIRS, pair + rank_byte(job.priority) + arrival, waiting),
    )


def pending_entry(job: Job, since_ms: int) -> tuple[Table[bytes], bytes, bytes]:
    """The table, key and value of a job that waits for an offer; also for the laws."""
    key = rank_byte(job.priority) + pack_u64(job.seq)
    return PENDING, key, pack_u64(since_ms) + job.job_id.encode()


def pending_ids(txn: Txn) -> Iterator[str]:
    """Ids of jobs without a match that are not held, in order of priority, then submission."""
    for _, value in txn.scan(PENDING):
        yield value[8:].decode()


def pending_in_order(txn: Txn) -> Iterator[str]:
    """The same with those that are held, in their place."""
    from heapq import merge

    on_hold = sorted(
        (pending_entry(job, 0)[1], job.job_id) for job in held(txn) if job.state == "pending"
    )
    waiting = ((key, value[8:].decode()) for key, value in txn.scan(PENDING))
    for _, job_id in merge(on_hold, waiting):
        yield job_id


def lane_key(state: str, lane: Lane) -> bytes:
    return f"{state}\0{lane}".encode()


def rank_byte(priority: Priority) -> bytes:
    """One byte that sorts by priority, the highest first."""
    return bytes([PRIORITIES.index(priority)])


def _waiting(job: Job) -> bytes:
    """What the tables of those that are queued say of a job."""
    return pack_u64(job.queued_ms) + job.job_id.encode()


def _has_its_share(txn: Txn, side: Side, identity: str) -> bool:
    """Whether a party holds `party_slots_pct` of the slots."""
    share = txn.config.party_slots_pct * txn.config.slots
    return slots_of(txn, side, identity) * 100 >= share


def _first_of_others(txn: Txn, priorities: list[Priority]) -> str | None:
    """The first waiting job that need not let others pass, None when all of them must.

    Looks at the first of each buyer and provider, however many jobs they have.
    """
    heads = list(_heads_of_pairs(txn, priorities))
    waiting: dict[Side, set[str]] = {
        "buyer": {buyer for _, buyer, _ in heads},
        "provider": {provider for _, _, provider in heads},
    }
    # Who has to let others pass: of whom there are any.
    holds_back = {
        (side, identity)
        for side, identities in waiting.items()
        if len(identities) > 1
        for identity in identities
        if _has_its_share(txn, side, identity)
    }
    places = [
        place
        for place, buyer, provider in heads
        if not {("buyer", buyer), ("provider", provider)} & holds_back
    ]
    return min(places)[-1] if places else None


def _heads_of_pairs(
    txn: Txn, priorities: list[Priority]
) -> Iterator[tuple[tuple[int, bytes, str], str, str]]:
    """(place, buyer, provider) of the first job of each priority of each two that deal."""
    found = txn.first(QUEUE_PAIRS)
    while found is not None:
        pair = found[0][:-_PAIR_REST]
        buyer, provider, _ = pair.decode().split("\0")
        for priority in priorities:
            head = txn.first(QUEUE_PAIRS, pair + rank_byte(priority))
            if head is not None:
                yield _place(txn, priority, head[0][-_ARRIVAL:], head[1]), buyer, provider
        found = txn.first(QUEUE_PAIRS, start=pair + _BEHIND)


def _holder(side: Side, identity: str) -> bytes:
    return f"{side}\0{identity}".encode()


def _of_priority(txn: Txn, priority: Priority) -> Iterator[tuple[int, bytes, str]]:
    """The places of those of one priority, sorted: who came first waited longest."""
    for key, value in txn.scan(TABLES[priority]):
        yield _place(txn, priority, key, value)


def _place(txn: Txn, priority: Priority, key: bytes, value: bytes) -> tuple[int, bytes, str]:
    """(rank after aging, arrival, job id) of an entry of a queue."""
    rank = PRIORITIES.index(priority)
    aging_ms = txn.config.priority_aging_secs * 1000
    if aging_ms:
        waited_ms = max(0, txn.now_ms - unpack_u64(value[:8]))
        rank = max(0, rank - waited_ms // aging_ms)
    return rank, key, value[8:].decode()
