"""The log: one append-only table that answers what happened at 03:12, and who asked for it.

An action notes its events while it runs. They are stored once, at the end of its transaction, in
entries of at most `ENTRY_EVENTS`: one write for an action, none for a posting. Events have
sequence numbers without gaps. Each event of a job knows the one before it, and the job its last
one, so that the history of one job needs no walk through the log. The only writer of its table.
"""

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any

from msgspec import DecodeError, Raw, Struct

from compute_market.errors import IntegrityError
from compute_market.learned import decoder
from compute_market.records import Asked, Event, EventName, Job, LogEntry
from compute_market.store.schema import EVENTS, pack_u64, unpack_u64
from compute_market.store.table import damaged
from compute_market.store.txn import Txn

ENTRY_EVENTS = 1000
# What a listing shows of an event.
COLUMNS = ("seq", "at_ms", "event", "job_id", "offer_id", "owner", "detail", "user", "command")
# Entries looked at for the last word about a job that was never stored.
LOOK_BACK_ENTRIES = 10_000

NOBODY = Asked()
# What is the last event of a job that has ended.
_LAST: tuple[EventName, ...] = ("job_completed", "job_cancelled", "job_failed", "job_paid")


class Logged(Struct, frozen=True, gc=False):
    """One event as the log has it."""

    seq: int
    at_ms: int
    asked: Asked
    event: Event


class Selection(Struct, frozen=True, gc=False):
    """Which events are asked for; what is None or empty asks for all."""

    job_ids: tuple[str, ...] = ()
    offer_ids: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()  # also providers that an event of somebody else's job names
    names: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None  # not after it

    def wants(self, logged: Logged) -> bool:
        event = logged.event
        return (
            (not self.job_ids or event.job_id in self.job_ids)
            and (not self.offer_ids or event.offer_id in self.offer_ids)
            and (
                not self.owners
                or event.owner in self.owners
                or event.detail.get("provider") in self.owners
            )
            and (not self.names or event.event in self.names)
            and (self.since_ms is None or logged.at_ms >= self.since_ms)
            and (self.until_ms is None or logged.at_ms <= self.until_ms)
        )


def note(
    txn: Txn,
    event: EventName,
    *,
    job_id: str | None = None,
    offer_id: str | None = None,
    owner: str | None = None,
    before: int = 0,
    **detail: Any,
) -> int:
    """Note that something happened; returns the event's sequence number.

    `before` is the number of the last event of the same job. `detail` holds integers, texts and
    truth values that say what and why, as `records.Event` has them; None is left out.
    """
    if None in detail.values():
        detail = {name: value for name, value in detail.items() if value is not None}
    return add(txn, Event(event, job_id, offer_id, owner, detail, before))


def add(txn: Txn, event: Event) -> int:
    """Note an event that is made already; returns its sequence number.

    Its detail holds no None. What every job passes makes its own: to hand a detail over word by
    word takes longer than all else here.
    """
    txn.writes += 1
    if txn.noted_after is None:
        txn.noted_after = txn.number("event_seq")
    txn.noted.append(event)
    return txn.noted_after + len(txn.noted)


def note_once(txn: Txn, event: EventName, **detail: Any) -> None:
    """The same, unless the log's last `LOOK_BACK_ENTRIES` events tell of it already."""
    for logged in islice(back(txn), LOOK_BACK_ENTRIES):
        if (logged.event.event, logged.event.detail) == (event, detail):
            return
    note(txn, event, **detail)


def flush(txn: Txn, asked: Asked) -> None:
    """Store what was noted, and who asked for it. The end of a transaction calls this."""
    noted, after = txn.noted, txn.noted_after
    if not noted or after is None:
        return
    for start in range(0, len(noted), ENTRY_EVENTS):
        entry = LogEntry(txn.now_ms, asked, tuple(noted[start : start + ENTRY_EVENTS]))
        txn.write(EVENTS, pack_u64(after + start + 1), entry)
    txn.set_number("event_seq", after + len(noted))
    noted.clear()
    txn.noted_after = None


def forward(txn: Txn, after: int = 0) -> Iterator[Logged]:
    """Events from behind the sequence number `after` on, oldest first."""
    entry = _entry_of(txn, after + 1)
    start = pack_u64(after + 1) if entry is None else entry[0]
    for key, payload in txn.scan(EVENTS, start=start):
        first = unpack_u64(key)
        for logged in _events(first, EVENTS.decode(key, payload)):
            if logged.seq > after:
                yield logged


def back(txn: Txn, before: int | None = None) -> Iterator[Logged]:
    """Events with a sequence number below `before`, newest first; all of them without it."""
    for key, payload in txn.scan_back(EVENTS, None if before is None else pack_u64(before)):
        for logged in reversed(_events(unpack_u64(key), EVENTS.decode(key, payload))):
            if before is None or logged.seq < before:
                yield logged


def legible_back(txn: Txn, before: int | None = None) -> Iterator[tuple[int, Logged | None]]:
    """`back` for who only looks: seqs and events; an entry that is damaged is None, once."""
    from compute_market.store import sparing  # Commands walk the log as it has to be.

    for key in sparing.keys_back(txn, EVENTS, None if before is None else pack_u64(before)):
        try:
            entry = txn.must_read(EVENTS, key)
        except IntegrityError:
            yield unpack_u64(key), None
            continue
        for logged in reversed(_events(unpack_u64(key), entry)):
            if before is None or logged.seq < before:
                yield logged.seq, logged


def newest(txn: Txn, selection: Selection, limit: int) -> list[Logged]:
    """The last `limit` events of a selection, newest last."""
    found: list[Logged] = []
    if limit:
        until_ms = selection.until_ms
        behind = None if until_ms is None else before_instant(txn, until_ms + 1) + 1
        for logged in back(txn, behind):
            if selection.since_ms is not None and logged.at_ms < selection.since_ms:
                break
            if selection.wants(logged):
                found.append(logged)
                if len(found) == limit:
                    break
    return found[::-1]


def recent(txn: Txn, selection: Selection, limit: int, looked_at: int) -> list[Logged]:
    """Those of a selection among the last `looked_at` events, at most `limit`, newest first.

    For who only looks: what is damaged is left out.
    """
    since_ms = selection.since_ms or 0
    legible = (logged for _, logged in islice(legible_back(txn), looked_at) if logged is not None)
    recent_ones = takewhile(lambda logged: logged.at_ms >= since_ms, legible)
    return list(islice(filter(selection.wants, recent_ones), limit))


def page(txn: Txn, selection: Selection, after: int, limit: int) -> tuple[list[Logged], int | None]:
    """Those of the next `limit` events behind `after` that are in a selection, and the last seq.

    That is None when the log ends, or what is asked for. Oldest first.
    """
    found: list[Logged] = []
    for number, logged in enumerate(forward(txn, after), 1):
        if selection.until_ms is not None and logged.at_ms > selection.until_ms:
            break
        if selection.wants(logged):
            found.append(logged)
        if number == limit:
            return found, logged.seq
    return found, None


def before_instant(txn: Txn, at_ms: int) -> int:
    """The seq of the last event from before an instant, 0 when there is none.

    However long the log is, few entries of it are looked at.
    """
    from compute_market.store import search  # Few commands ask for a time.

    def is_there(key: bytes, payload: bytes) -> bool:
        return EVENTS.decode(key, payload).at_ms >= at_ms

    found = search.first_where(txn, EVENTS, is_there)
    if found is None:
        return 0
    first, last = found
    # Behind the last entry stand the others of its events.
    return first - 1 if first <= last else txn.number("event_seq")


def history(txn: Txn, job: Job, limit: int | None = None) -> list[Logged]:
    """What happened to a job, oldest first, as far back as the log goes; the last `limit` of it."""
    return _up_to(txn, job.event_seq, limit)


def history_of_gone(
    txn: Txn, job_id: str, ended_at: int, limit: int | None = None
) -> list[Logged] | None:
    """The same of a job that is no more in the store, and ended in that second; None where the log
    has nothing of it any more."""
    for logged in back(txn):
        if logged.at_ms < ended_at * 1000:
            break
        if logged.event.job_id == job_id and logged.event.event in _LAST:
            return _up_to(txn, logged.seq, limit)
    return None


def _up_to(txn: Txn, seq: int, limit: int | None) -> list[Logged]:
    """What happened to a job up to one of its events."""
    found: list[Logged] = []
    entry: list[Logged] = []
    while seq and len(found) != limit:
        if not entry or not entry[0].seq <= seq <= entry[-1].seq:
            stored = _entry_of(txn, seq)
            entry = [] if stored is None else _events(unpack_u64(stored[0]), stored[1])
            if not entry or not entry[0].seq <= seq <= entry[-1].seq:
                break  # It was trimmed.
        logged = entry[seq - entry[0].seq]
        found.append(logged)
        seq = logged.event.before
    return found[::-1]


def last_decision(txn: Txn, job_id: str) -> Logged | None:
    """The last word of matching and admission about a job id, whether it was let in or not."""
    for number, (key, payload) in enumerate(txn.scan_back(EVENTS)):
        if number == LOOK_BACK_ENTRIES:
            break
        for logged in reversed(_events(unpack_u64(key), EVENTS.decode(key, payload))):
            if logged.event.job_id == job_id and logged.event.event in _VERDICTS:
                return logged
    return None


def trim(txn: Txn, before_ms: int, limit: int) -> int:
    """Drop at most `limit` of the oldest entries, those from before an instant; how many."""
    old = []
    # Who asked for it, and what happened then, is left as it is.
    decode = decoder(tuple[int, Raw, Raw]).decode
    # One by one: most often the first is not old, and an entry can be long.
    for key, payload in islice(txn.scan(EVENTS, start=pack_u64(0)), limit):
        try:
            at_ms, _, _ = decode(payload)
        except DecodeError as error:
            raise damaged(EVENTS, key, str(error)) from error
        if at_ms >= before_ms:
            break
        old.append(key)
    for key in old:
        txn.delete(EVENTS, key)
    return len(old)


def document(logged: Logged) -> dict[str, Any]:
    """The JSON form of an event."""
    event, asked = logged.event, logged.asked
    about = {"job_id": event.job_id, "offer_id": event.offer_id, "owner": event.owner}
    return {
        "seq": logged.seq,
        "at_ms": logged.at_ms,
        "event": event.event,
        **{name: value for name, value in about.items() if value is not None},
        "detail": event.detail,
        "user": asked.user,
        "host": asked.host,
        "pid": asked.pid,
        "command": asked.command,
    }


# The decisions of matching and admission that the log tells of, and what each says of a job.
_VERDICTS: dict[EventName, str] = {
    "job_queued": "admitted",
    "job_pending": "pending",
    "job_deferred": "pending",
    "job_refused": "refused",
}


def decision_document(txn: Txn, job_id: str) -> dict[str, Any] | None:
    """What matching and admission last said about a job id, as far back as the log goes."""
    last = last_decision(txn, job_id)
    if last is None:
        return None
    said = {name: value for name, value in last.event.detail.items() if name != "asked"}
    return {"verdict": _VERDICTS[last.event.event], "at": last.at_ms // 1000, **said}


def _events(first: int, entry: LogEntry) -> list[Logged]:
    return [
        Logged(seq, entry.at_ms, entry.asked, event)
        for seq, event in enumerate(entry.events, first)
    ]


def _entry_of(txn: Txn, seq: int) -> tuple[bytes, LogEntry] | None:
    """The last entry that begins at a sequence number or before it."""
    for key, payload in txn.scan_back(EVENTS, pack_u64(seq + 1)):
        return key, EVENTS.decode(key, payload)
    return None
