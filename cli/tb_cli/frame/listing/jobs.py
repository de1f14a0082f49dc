"""Jobs as they are listed, and how options select them."""

from collections.abc import Callable, Mapping
from typing import Any

from compute_market.jobs import documents, jobs, pages
from compute_market.jobs.selection import Selection
from compute_market.records import JOB_STATES, LANES, LIVE_STATES, PRIORITIES, WAITING_STATES, Job
from compute_market.settlement import escrow
from compute_market.store.txn import Txn
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import Fetch, Reading
from tb_cli.frame.listing.selecting import chosen, window
from tb_cli.frame.options import job_filters


def _escrow(txn: Txn, job: Job) -> dict[str, int]:
    found: dict[str, int] = escrow.escrow_document(txn, job.job_id)
    return found


def _left(txn: Txn, job: Job) -> int | None:
    """The deadline of a job that has not ended."""
    return job.deadline if job.state in LIVE_STATES else None


def _held_by(txn: Txn, job: Job) -> str | None:
    """What keeps a job waiting that waits."""
    if job.state not in WAITING_STATES:
        return None
    from compute_market.jobs import present

    found: str = present.reason(txn, job)["held_by"]
    return found


JOB_LIST = Noun(
    "jobs",
    "job_id",
    (
        Column("job_id", "JOB", of="job_id"),
        Column("state", kind="state", of="state", order=JOB_STATES),
        Column("buyer", of="buyer"),
        Column("provider", of="placement.provider"),
        Column("offer_id", "OFFER", of="placement.offer_id"),
        Column("workload", of="workload"),
        Column("priority", "PRIO", of="priority", order=PRIORITIES),
        Column("lane", of="lane", order=LANES),
        Column("units", kind="number", of="units"),
        Column("units_proven", "DONE", "number", "units_proven"),
        Column("slices", kind="number", of="slices"),
        Column("slices_proven", "PROVEN", "number", "slices_proven"),
        Column("price_per_unit", "PRICE", "number", "placement.price_per_unit"),
        Column("max_price_per_unit", "MAX", "number", "max_price_per_unit"),
        Column("fee_pct_ct", "CT%", "number", "placement.fee_pct_ct"),
        Column("consumer_bond", "BOND", "number", "consumer_bond"),
        Column("provider_bond", "PBOND", "number", "placement.provider_bond"),
        Column("deadline", kind="due", of="deadline"),
        Column("submitted_at", "SUBMITTED", "at", "submitted_at"),
        Column("started_at", "STARTED", "at", "started_at"),
        Column("ended_at", "ENDED", "at", "ended_at"),
        Column("funded", of="funded"),
        Column("cause", of="cause"),
        Column(
            "escrow", kind="record", of=lambda txn, job: escrow.escrow_document(txn, job.job_id)
        ),
        Column("paid", kind="record"),
        Column("refunded", kind="record"),
        Column("ended_by", of=lambda txn, job: documents.ended_early_by(job)),
        Column("capability", kind="record"),
        Column("overdue", of=jobs.is_overdue),
        Column("provider_bond_min", "MIN PBOND", "number", "provider_bond_min"),
        Column("unreadable_slice", "UNREADABLE", "number", "unreadable_slice"),
        Column("held", of="held"),
        # For eyes: why a job waits, which for many is too much to find out.
        Column("held_by", of=_held_by),
        Column("left", kind="due", of=_left),
    ),
    shown=(
        *("job_id", "state", "priority", "buyer", "provider", "units", "units_proven"),
        *("price_per_unit", "deadline"),
    ),
    table=(
        *("job_id", "state", "priority", "units", "units_proven", "price_per_unit", "left"),
        *("buyer", "held_by", "provider"),
    ),
    document=documents.job_document,
)


# The same where some may have ended.
ALL_JOBS = JOB_LIST.with_table(
    *("job_id", "state", "priority", "units", "units_proven", "price_per_unit", "left"),
    *("ended_at", "buyer", "provider", "cause", "held_by"),
)


def selection(filters: Mapping[str, Any], *, utc: bool = False) -> Selection:
    """The jobs that options select. Raises UsageError for a value that cannot be."""
    values: dict[str, Any] = chosen(job_filters(), filters)
    since_ms, until_ms = window(filters, now_ms(), utc=utc)
    return Selection(
        states=values.get("state", ()),
        buyers=values.get("buyer", ()),
        providers=values.get("provider", ()),
        offer_ids=values.get("offer_id", ()),
        workloads=values.get("workload", ()),
        priorities=values.get("priority", ()),
        lanes=values.get("lane", ()),
        since_ms=since_ms,
        until_ms=until_ms,
        overdue_in_secs=filters.get("overdue_in"),
        unfunded=filters.get("unfunded", False),
        held=filters.get("held"),
    )


def reading(selected: Selection) -> Reading:
    """The jobs of a selection, in the order of submission."""

    def by_submission(newest_first: bool) -> Fetch[pages.Walk]:
        def fetch(
            txn: Txn, walk: pages.Walk | None, size: int
        ) -> tuple[list[Job], pages.Walk | None]:
            return pages.page(txn, selected, walk, size, newest_first=newest_first)

        return fetch

    def by_end(newest_first: bool) -> Fetch[Any]:
        from compute_market.jobs import by_end

        def fetch(txn: Txn, walk: Any, size: int) -> tuple[list[Job], Any]:
            return by_end.page(txn, selected, walk, size, newest_first=newest_first)

        return fetch

    def newest(txn: Txn, limit: int) -> list[Job]:
        found: list[Job] = []
        walk: pages.Walk | None = None
        while len(found) < limit:
            more, walk = pages.page(txn, selected, walk, limit - len(found), newest_first=True)
            found.extend(more)
            if walk is None:
                break
        return found[::-1]

    orders: dict[str, Callable[[bool], Fetch[Any]]] = {"submitted_at": by_submission}
    if selected.is_live:
        orders["ended_at"] = by_submission  # None of them has ended.
    elif not selected.may_be_few:  # A few are found sooner in another order, and sorted.
        orders["ended_at"] = by_end
    return Reading(by_submission(False), newest=newest, orders=orders)
