"""Verbs on deadlines: sweep, extend."""

from compute_market.clock import Due, cost_of
from compute_market.jobs.extend import extend as extend_all
from compute_market.records import DEADLINE_MAX, replace
from compute_market.store.schema import DEADLINES
from compute_market.text import counted
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes

_CHUNK = 1000


@examples("tb-cli compute-market sla sweep -n")
def sweep(session: Session) -> None:
    """A job is overdue once its deadline has passed."""
    # What a dry run rolls back it would find again, so it does all at once.
    limit = session.view(lambda txn: txn.size(DEADLINES)) if session.dry_run else _CHUNK
    failed: list[str] = []
    due = Due()
    try:
        while True:
            session.update(lambda txn: None, sweep_limit=limit, tells=False)
            failed += session.market.due.failed
            due = due.plus(replace(session.market.due, failed=()))
            if not session.market.due.failed or session.dry_run:
                break
    finally:
        session.tell_of(due)
    lines = [f"failed job {job_id}" for job_id in failed]
    total = f"{counted(len(failed), 'job')} failed{cost_of(due.burned_ct, due.away)}"
    document = {"failed": failed, "burned_ct": due.burned_ct, "away": due.away}
    emit(session, document, [*lines, total])


@examples("tb-cli compute-market sla extend --by 2h")
@takes(
    option(
        "--by",
        "By how much every deadline moves.",
        kind="integer",
        unit="seconds",
        required=True,
        least=1,
        most=DEADLINE_MAX,
    )
)
def extend(session: Session, *, by: int) -> None:
    """For a planned stop, or after a restore: time that is held since then goes on. Overdue jobs
    are not failed first, so it is also for a stop nobody had planned.
    """
    extended = session.update(lambda txn: extend_all(txn, by), sweep_limit=0)
    text = f"{counted(extended, 'job')} extended by {by} s"
    emit(session, {"extended": extended, "by_secs": by}, text)
