"""Verbs on matching: stats, match. What only one of them needs it imports itself."""

from compute_market.store.schema import PENDING
from compute_market.store.txn import Txn
from tb_cli.frame.render import emit, fields, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, takes


@examples("tb-cli compute stats --effective")
@takes(flag("--effective", help="Only the last effective price."))
def stats(session: Session, *, effective: bool) -> None:
    """They are the outcomes of the last 100 matches, what runs and what waits."""
    from compute_market.scheduler import outcomes

    document = session.view(outcomes.statistics)
    if not effective:
        emit(session, document, fields(document))
    elif document["effective_price"] is None:
        note("missing effective_price")
    else:
        emit(session, document["effective_price"], str(document["effective_price"]))


@examples("tb-cli compute-market match -n")
def match(session: Session) -> None:
    """Pending jobs wait for an offer; they are tried in queue order."""
    from compute_market.jobs.waiting import match_pending

    def act(txn: Txn) -> tuple[list[str], int]:
        return match_pending(txn), txn.size(PENDING)

    matched, pending = session.update(act)
    matched = [*session.market.due.matched, *matched]  # Some were tried because it was due.
    lines = [f"matched job {job_id}" for job_id in matched]
    emit(
        session,
        {"matched": matched, "pending": pending},
        [*lines, f"{len(matched)} matched, {pending} still pending"],
    )
