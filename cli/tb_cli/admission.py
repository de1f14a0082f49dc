"""Verbs on the market as a whole: params, stats, match, audit, capacity record, sla sweep."""

import os
import sys
from typing import Annotated

import typer

from compute_market.admission import admission
from compute_market.jobs import lifecycle
from compute_market.store.store import Txn
from tb_cli.frame import plain as hot
from tb_cli.frame.render import emit, write_json
from tb_cli.frame.session import Session

_SWEEP_CHUNK = 1000


def params(ctx: typer.Context) -> int:
    """Print the admission parameters: units per second, a ratio, units, units per second."""
    return hot.params(Session.of(ctx))


def stats(ctx: typer.Context) -> None:
    """Print backlog, utilization of the last minute, units ever proven and the last price."""
    session = Session.of(ctx)
    write_json(session.view(lambda txn: lifecycle.demand(txn, session.config)))


def match(ctx: typer.Context) -> None:
    """Try the jobs that wait for an offer again, in queue order."""
    session = Session.of(ctx)

    def act(txn: Txn) -> tuple[list[str], int]:
        return lifecycle.match_pending(txn, session.config), txn.size("pending")

    matched, pending = session.update(act)
    lines = [f"matched job {job_id}" for job_id in matched]
    emit(
        session,
        {"matched": matched, "pending": pending},
        [*lines, f"{len(matched)} matched, {pending} still pending"],
    )


def record(
    ctx: typer.Context,
    units: Annotated[int, typer.Argument(metavar="N", min=0, max=10**15, help="Units per second.")],
) -> None:
    """Record a capacity sample; the estimate is the mean of the last eight."""
    session = Session.of(ctx)
    estimate = session.update(lambda txn: admission.record_capacity(txn, session.config, units))
    emit(
        session,
        {"recorded": units, "estimate": estimate},
        f"recorded {units} units/s, the estimate is {estimate} units/s",
    )


def sweep(ctx: typer.Context) -> None:
    """Fail every job whose deadline has passed."""
    session = Session.of(ctx)
    # What a dry run rolls back it would find again, so it does all at once.
    limit = session.view(lambda txn: txn.size("deadlines")) if session.dry_run else _SWEEP_CHUNK
    failed: list[str] = []
    while True:
        session.update(lambda txn: None, sweep_limit=limit)
        failed += session.swept
        if not session.swept or session.dry_run:
            break
    lines = [f"failed job {job_id}" for job_id in failed]
    emit(session, {"failed": failed}, [*lines, f"{len(failed)} jobs failed"])


def audit(ctx: typer.Context) -> int:
    """Check every law of the market: money, units, lines, receipts, counters, the log.

    Exits with 9 if anything is wrong, and names each violation.
    """
    # The audit walks everything, which most commands need not be able to do.
    from compute_market import audit as laws

    session = Session.of(ctx)
    session.follow_log()

    def check(txn: Txn) -> tuple[dict[str, object], list[laws.Violation]]:
        found = [*laws.check(txn, session.config), *laws.log_violations(txn, _log(session))]
        return laws.summary(txn, found), found

    document, violations = session.view(check)
    totals = f"receipts {document['receipts']} invalid {document['invalid']}"
    emit(session, document, [*map(str, violations), totals])
    sys.stdout.flush()
    return 9 if violations else 0


def _log(session: Session) -> bytes:
    try:
        with open(os.path.join(session.home, "cancellations.log"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
