"""Events of the log as they are listed."""

from typing import Any

from compute_market import events
from compute_market.events import Logged, Selection
from compute_market.jobs import jobs
from compute_market.store.txn import Txn
from compute_market.text import clipped
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted

# On a terminal the command line is clipped; pipes and JSON have all of it.
_COMMAND_MAX = 60


def _what(txn: Txn, logged: Logged) -> dict[str, Any]:
    """What an event is about, and how, in one."""
    document = events.document(logged)
    ids = ("job_id", "offer_id", "owner")
    about = {name.removesuffix("_id"): document[name] for name in ids if name in document}
    found: dict[str, Any] = about | document["detail"]
    return found


def _who(txn: Txn, logged: Logged) -> str:
    return f"{logged.asked.user}: {clipped(logged.asked.command, _COMMAND_MAX)}"


def _document(txn: Txn, logged: Logged) -> dict[str, Any]:
    return events.document(logged)


EVENTS = Noun(
    "events",
    "seq",
    (
        Column("seq", "#", "number", "seq"),
        Column("at_ms", "TIME", "ms", "at_ms"),
        Column("event", of="event.event"),
        Column("job_id", "JOB", of="event.job_id"),
        Column("offer_id", "OFFER", of="event.offer_id"),
        Column("owner", of="event.owner"),
        Column("detail", kind="record", of="event.detail"),
        Column("user", of="asked.user"),
        Column("host", of="asked.host"),
        Column("pid", kind="number", of="asked.pid"),
        Column("command", kind="long", of="asked.command"),
        Column("what", kind="record", of=_what),
        Column("who", kind="long", of=_who),
    ),
    shown=events.COLUMNS,
    table=("at_ms", "event", "what", "who"),
    document=_document,
)


def of_job(job_id: str, wanted: Wanted | None = None) -> Reading:
    """What happened to a job, one that was archived too. Raises NotFoundError as it is read."""

    def history(txn: Txn, limit: int | None = None) -> list[Logged]:
        job = jobs.find(txn, job_id)
        return (
            _history_of_archived(txn, job_id, limit)
            if job is None
            else events.history(txn, job, limit)
        )

    if wanted is None:
        return Reading(lambda txn, after, size: (history(txn), None), newest=history)
    return Reading(
        lambda txn, after, size: ([each for each in history(txn) if wanted(txn, each)], None)
    )


def _history_of_archived(txn: Txn, job_id: str, limit: int | None) -> list[Logged]:
    """What the log still has of it. Raises NotFoundError when that is nothing."""
    from compute_market import archived  # Most jobs that are asked for are there.

    left = archived.job(txn, job_id)
    found = None if left is None else events.history_of_gone(txn, job_id, left.ended_at, limit)
    if found is None:
        raise archived.missing(txn, job_id)
    return found


def of_log(selection: Selection, start: int = 0, *, until_seq: int | None = None) -> Reading:
    """What the log has of a selection from behind a sequence number on, and up to another."""

    def those(found: list[Logged]) -> list[Logged]:
        return [each for each in found if until_seq is None or each.seq <= until_seq]

    def page(txn: Txn, after: int, size: int) -> tuple[list[Logged], int | None]:
        found, last = events.page(txn, selection, after, size)
        return those(found), last

    return Reading(
        page, start, newest=lambda txn, limit: those(events.newest(txn, selection, limit))
    )
