"""Verbs that list jobs, or what a job has: list, queue, slices, history."""

from collections.abc import Mapping
from typing import Any

from compute_market.errors import UsageError
from compute_market.records import LIVE_STATES, check_id
from tb_cli.frame.listing import jobs as listed_jobs
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.columns import Noun
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.options import JOB_ID, job_filters, waiting_filters
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, takes


def _waiting(given: Mapping[str, Any]) -> Noun:
    from tb_cli.frame.listing import waiting

    return waiting.WAITING


def _slices(given: Mapping[str, Any]) -> Noun:
    from tb_cli.frame.listing import slices as listed_slices

    return listed_slices.noun(references=bool(given.get("references")))


def _events(given: Mapping[str, Any]) -> Noun:
    from tb_cli.frame.listing import events as listed_events

    return listed_events.EVENTS


@takes(
    flag("--all", help="Those that have ended too."),
    job_filters(),
    LISTED,
)
@examples(
    "tb-cli compute list",
    "tb-cli compute list --state failed,cancelled --since 1d",
    "tb-cli compute list --all --buyer alice --sort -units --limit 10",
    "tb-cli compute list --overdue-in 1h -q | tb-cli compute cancel -",
)
@columns_of(listed_jobs.JOB_LIST)
def list_(session: Session, *, all: bool, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """Those that live, the oldest first: in the order of their submission. A state that is asked
    for is listed whether it is of the living or not.
    """
    if not all and "state" not in filters:
        filters = filters | {"state": list(LIVE_STATES)}
    chosen = listed_jobs.selection(filters, utc=listing.get("utc", False))
    noun = listed_jobs.JOB_LIST if chosen.is_live else listed_jobs.ALL_JOBS
    lists.show(session, noun, listing, listed_jobs.reading(chosen))


@examples("tb-cli compute queue", "tb-cli compute queue --buyer alice --state queued")
@takes(waiting_filters(), LISTED)
@columns_of(_waiting)
def queue(session: Session, *, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """Those still without an offer come last. What holds a job is told as it is now, and its place
    is the one among all, whichever are asked for.
    """
    from tb_cli.frame.listing import waiting

    chosen = listed_jobs.selection(filters, utc=listing.get("utc", False))
    limit = None if listing.get("sort") else listing.get("limit")
    lists.show(session, _waiting({}), listing, waiting.reading(chosen, limit))


@examples("tb-cli compute slices j-1 --unproven", "tb-cli compute slices j-1 --b3sum")
@takes(
    JOB_ID,
    flag("--unproven", help="Only slices that are not proven yet."),
    flag("--references", help="Also what each slice must give: the buyer's own view."),
    flag("--b3sum", help="Print what `b3sum --check` takes, of slices whose digest is told."),
    LISTED,
)
@columns_of(_slices)
def slices(
    session: Session,
    job_id: str,
    *,
    unproven: bool,
    references: bool,
    b3sum: bool,
    listing: dict[str, Any],
) -> None:
    """The digest of a slice is told once it is proven. Before that it is what proves the work: the
    buyer, who knows it, asks for it with --references.
    """
    from tb_cli.frame.listing import slices as listed_slices

    check_id(job_id, "job id")
    if b3sum:
        if session.json or listing.keys() - {"limit"}:
            raise UsageError("--b3sum prints lines of text", hint="leave out the other options")
        selected = listed_slices.reading(job_id, unproven=unproven, proven=not references)
        listed_slices.write_sums(session, selected, listing.get("limit"))
    else:
        noun = _slices({"references": references})
        lists.show(session, noun, listing, listed_slices.reading(job_id, unproven=unproven))


@examples("tb-cli compute history j-1", "tb-cli compute history j-1 --since 1h")
@takes(JOB_ID, DATED, LISTED)
@columns_of(_events)
def history(
    session: Session, job_id: str, *, filters: dict[str, Any], listing: dict[str, Any]
) -> None:
    """It is the log of one job, oldest first, as far back as the log goes."""
    from tb_cli.frame.listing import events as listed_events

    check_id(job_id, "job id")
    noun, utc = _events({}), listing.get("utc", False)
    selected = wanted(noun, DATED, filters, dated="at_ms", utc=utc) if filters else None
    lists.show(session, noun, listing, listed_events.of_job(job_id, selected))
