"""What each page shows, as one document of one snapshot.

A page looks at a bounded part of the market: the first rows of a table that has an order, and the
newest of one that grows. A longer listing goes on behind the last row (`after`, `before`).

What is damaged takes nothing else away: a row says so, and a part that cannot be told is None.
"""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from compute_market import archived, concerns, events, overview, parties
from compute_market.admission import mempool
from compute_market.courier import documents as bundles
from compute_market.errors import NotFoundError, RefusedError, UsageError
from compute_market.events import Logged, Selection
from compute_market.exposition import Files
from compute_market.jobs import documents, jobs, lanes, present
from compute_market.offers import board, offers, standing
from compute_market.records import LANES, PRIORITIES, Job, check_id
from compute_market.scheduler import queue
from compute_market.settlement import modes, receipts, settlement
from compute_market.store import sparing
from compute_market.store.schema import (
    BUNDLES_PENDING,
    DELIVERIES,
    JOBS,
    OFFERS,
    PENDING,
    UNSETTLED,
    unpack_u64,
)
from compute_market.store.sparing import part
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy

# Rows of a table that is one of many on its page, and of one that is the page.
FEW: Final = 8
SOME: Final = 20
MANY: Final = 50
# Jobs that wait, looked at for the place of one of them.
PLACES_MAX: Final = 1_000
EPOCHS_MAX: Final = 60
# Events looked at for those of an offer.
LOOKED_AT: Final = 1_000


class Asked(Struct, frozen=True, gc=False):
    """What is asked of a page: the id in its path, and where a listing goes on."""

    name: str = ""
    after: str | None = None
    before: int | None = None
    all: bool = False
    files: Files | None = None  # what those of the home tell


def home(txn: Txn, asked: Asked) -> dict[str, Any]:
    """The market at a glance."""
    found = overview.document(txn)
    shown = {
        "market": found,
        "waits_ms": {each: queue.oldest_wait_ms(txn, each) for each in PRIORITIES},
        "backlog": jobs.backlog_units(txn),
        "settlement": modes.document(txn),
        "threshold": txn.config.comfort_threshold_p90,
        "fees": part(lambda: mempool.fees_of(txn)),
        "prices": _prices(txn),
        "parties": part(lambda: parties.largest(txn, FEW)),
        "queued": part(lambda: present.queued(txn, FEW)),
        "unplaced": part(lambda: present.unplaced(txn, FEW)),
        "receipts": part(lambda: _receipts(txn, FEW)),
        "bundles": bundles.newest(txn, FEW),
        "events": _newest(txn, FEW),
    }
    told = concerns.of(txn, found, asked.files)
    if _is_damaged(shown) and not any(each.about == "receipts" for each in told):
        told.insert(0, concerns.DAMAGE)
    return shown | {"concerns": told}


def all_jobs(txn: Txn, asked: Asked) -> dict[str, Any]:
    """Those that live, and the last that ended; or all by id, from one on."""
    found: dict[str, Any] = {
        "count": txn.size(JOBS),
        "counts": {
            "active": queue.active_jobs(txn),
            "queued": sum(queue.depth(txn, priority) for priority in PRIORITIES),
            "pending": txn.size(PENDING),
        },
        "rows": MANY,
    }
    if asked.all:
        after = _key(asked.after, "job id")
        keys = list(islice(sparing.keys(txn, JOBS, after), MANY))
        listed = [
            sparing.row({"job_id": each.decode()}, partial(_listed_job, txn, each)) for each in keys
        ]
        return found | {"listed": listed, "next": _last(keys)}
    return found | {
        "listed": None,
        "running": part(lambda: present.running(txn, MANY)),
        "queued": part(lambda: present.queued(txn, MANY)),
        "unplaced": part(lambda: present.unplaced(txn, MANY)),
        "ended": present.ended(txn, SOME),
    }


def job(txn: Txn, asked: Asked) -> dict[str, Any]:
    found = jobs.get(txn, _named(asked, "job id"))
    place = None
    if found.state == "queued":
        waiting = islice(queue.in_order(txn), PLACES_MAX)
        place = next((n for n, job_id in enumerate(waiting, 1) if job_id == found.job_id), None)
    shown = min(found.slices, MANY)
    return {
        "job": documents.job_document(txn, found),
        "reason": present.reason(txn, found),
        "place": place,
        "placements": part(lambda: jobs.placements(txn, found)),
        "slices": [
            sparing.row({"index": index}, partial(_slice, txn, found, index))
            for index in range(shown)
        ],
        "receipts": part(lambda: _receipts_of(txn, found)),
        "history": part(lambda: _documents(txn, events.history(txn, found, MANY))),
    }


def all_offers(txn: Txn, asked: Asked) -> dict[str, Any]:
    """What cannot be taken and why, and all by id, from one on."""
    keys = list(islice(sparing.keys(txn, OFFERS, _key(asked.after, "offer id")), MANY))
    return {
        "counts": overview.offers_by_state(txn),
        "problems": part(
            lambda: [
                each
                for shelf in overview.PROBLEMS
                for each in standing.rows(txn, offers.ids_on_shelf(txn, shelf, MANY))
            ]
        ),
        "mode": modes.state(txn).mode,
        "count": txn.size(OFFERS),
        "rows": MANY,
        "after": asked.after,
        "listed": standing.rows(txn, keys),
        "next": _last(keys),
    }


def offer(txn: Txn, asked: Asked) -> dict[str, Any]:
    found = offers.get(txn, _named(asked, "offer id"))
    selection = Selection(offer_ids=(found.offer_id,))
    return {
        "offer": standing.document(txn, found),
        "events": _documents(txn, events.recent(txn, selection, MANY, LOOKED_AT)),
        "looked_at": LOOKED_AT,
    }


def all_parties(txn: Txn, asked: Asked) -> dict[str, Any]:
    return {
        "largest": part(lambda: parties.largest(txn, MANY)),
        "recent": part(lambda: parties.recent(txn, MANY)),
        "rows": MANY,
    }


def party(txn: Txn, asked: Asked) -> dict[str, Any]:
    name = _named(asked, "party")
    return {
        "party": parties.document(txn, name, SOME),
        "events": _documents(txn, events.recent(txn, Selection(owners=(name,)), SOME, LOOKED_AT)),
        "rows": SOME,
    }


def prices(txn: Txn, asked: Asked) -> dict[str, Any]:
    pool = mempool.present(txn)
    return {
        "prices": _prices(txn),
        "suggested": {lane: _suggested(txn, lane) for lane in LANES},
        "guard": overview.guard(txn),
        "age_p95_ms": mempool.age_ms(txn, pool.p95_ms),
        "threshold": txn.config.comfort_threshold_p90,
        "fees": part(lambda: mempool.fees_of(txn)),
    }


def settled(txn: Txn, asked: Asked) -> dict[str, Any]:
    """Whether money moves, where it is, what waits, and what epochs have paid."""
    waiting = txn.collect(UNSETTLED, MANY)
    return {
        "settlement": modes.document(txn),
        **overview.balances(txn),
        "waiting": [
            sparing.row({"receipt": unpack_u64(seq)}, partial(_settlement, txn, key))
            for seq, key in waiting
        ],
        "rows": MANY,
        "receipts": part(lambda: _receipts(txn, SOME)),
        "running": subsidy.document(txn, None),
        "epochs": part(lambda: subsidy.newest(txn, EPOCHS_MAX)),
    }


def couriered(txn: Txn, asked: Asked) -> dict[str, Any]:
    return {
        "counts": {"pending": txn.size(BUNDLES_PENDING), "received": txn.size(DELIVERIES)},
        "waiting": part(lambda: bundles.waiting(txn, MANY)),
        "newest": bundles.newest(txn, MANY),
        "rows": MANY,
    }


def log(txn: Txn, asked: Asked) -> dict[str, Any]:
    """The log, newest first, from an event back."""
    found = _newest(txn, MANY, asked.before)
    return {
        "events": found,
        "before": asked.before,
        "next": found[-1]["seq"] if len(found) == MANY else None,
    }


def _named(asked: Asked, what: str) -> str:
    """The id in a path. Raises NotFoundError for what can be none."""
    try:
        return check_id(asked.name, what)
    except UsageError as error:
        raise NotFoundError(error.message) from error


def _prices(txn: Txn) -> dict[str, dict[str, Any] | None]:
    """By lane the bands and the window they are of; None where there is no price."""
    found: dict[str, dict[str, Any] | None] = {}
    for lane in LANES:
        bands = board.document(txn, lane)
        found[lane] = None if bands is None else bands | {"window": board.window(txn, lane)}
    return found


def _suggested(txn: Txn, lane: Any) -> dict[str, Any] | None:
    try:
        return board.suggested(txn, lane, lanes.waiting_in(txn, lane))
    except RefusedError:
        return None  # There is no price yet.


def _receipts(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The last receipts; of one that is damaged or was archived, its number."""
    found = []
    for seq, key, receipt in receipts.newest(txn, limit):
        due = part(partial(settlement.of, txn, key))
        if receipt is None and archived.receipt(txn, key) is not None:
            found.append({"seq": seq, "archived": True})
        elif receipt is None or due is None:
            found.append({"seq": seq, "damaged": True})
        else:
            found.append(receipts.document(receipt, due))
    return found


def _receipts_of(txn: Txn, of: Job) -> list[dict[str, Any]]:
    found = []
    for placement in jobs.placements(txn, of):
        key = receipts.key_of_placement(of, placement)
        receipt = None if key is None else receipts.find(txn, key)
        due = None if key is None else settlement.of(txn, key)
        if receipt is not None and due is not None:
            found.append(receipts.document(receipt, due))
    return found


def _listed_job(txn: Txn, key: bytes) -> dict[str, Any]:
    return documents.job_document(txn, jobs.named(txn, key))


def _slice(txn: Txn, of: Job, index: int) -> dict[str, Any]:
    return documents.slice_document(index, jobs.slice_at(txn, of, index))


def _settlement(txn: Txn, key: bytes) -> dict[str, Any]:
    due = settlement.of(txn, key)
    assert due is not None
    return {"job_id": due.job_id, "provider": due.provider, "ct": due.ct, "it": due.it}


def _newest(txn: Txn, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    return [
        {"seq": seq, "damaged": True} if logged is None else _event(txn, logged)
        for seq, logged in islice(events.legible_back(txn, before), limit)
    ]


def _documents(txn: Txn, found: Iterable[Logged]) -> list[dict[str, Any]]:
    return [_event(txn, each) for each in found]


def _event(txn: Txn, logged: Logged) -> dict[str, Any]:
    """An event, with whether what it is of can be shown: jobs that were refused are nowhere."""
    job_id, offer_id = logged.event.job_id, logged.event.offer_id
    return events.document(logged) | {
        "has_job": job_id is not None and _has(txn, JOBS, job_id),
        "has_offer": offer_id is not None and _has(txn, OFFERS, offer_id),
    }


def _has(txn: Txn, table: Table[Any], name: str) -> bool:
    return bool(txn.stored(table, name.encode()))  # A damaged one has a page that says so.


def _last(keys: list[bytes]) -> str | None:
    """Behind which key a listing goes on, None where it ends."""
    return keys[-1].decode() if len(keys) == MANY else None


def _is_damaged(shown: dict[str, Any]) -> bool:
    """Whether a part of a page is damaged, or a row of one."""
    rows = [row for part in shown.values() if isinstance(part, list) for row in part]
    return None in shown.values() or any(type(row) is dict and "damaged" in row for row in rows)


def _key(after: str | None, what: str) -> bytes | None:
    return None if after is None else check_id(after, what).encode()
