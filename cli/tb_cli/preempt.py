"""`compute preempt`: a running job goes on with an offer whose provider has earned more."""

from typing import Any

from compute_market.jobs import bill, preempt
from compute_market.jobs.bill import Amounts, Bill
from compute_market.records import check_id
from compute_market.store.txn import Txn
from compute_market.text import counted
from tb_cli.frame.options import JOB_ID
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes


@examples("tb-cli compute preempt j-1 o-2 -n")
@takes(JOB_ID, argument("offer_id", "OFFER", "An offer id.", complete="offer"))
def hand_over(session: Session, job_id: str, offer_id: str) -> None:
    """The rules are those by which a new offer takes a job over: it fits what is left of the job
    at no more than the present price, and its provider has earned `preempt_min_delta` points more.
    With --dry-run nothing is sent, and the bill says who would gain and who would lose.
    """
    check_id(job_id, "job id")
    check_id(offer_id, "offer id")

    def decide(txn: Txn) -> Bill | None:
        if preempt.is_with(txn, job_id, offer_id):
            return None
        return bill.proposed(txn, preempt.decide(txn, job_id, offer_id))

    found = session.update(decide) if session.dry_run else session.view(decide)
    if found is None:
        document: dict[str, Any] = {"job_id": job_id, "offer_id": offer_id, "changed": False}
        emit(session, document, f"job {job_id} is with offer {offer_id} already, unchanged")
        return
    if not session.dry_run:
        from tb_cli.network import handoffs

        found = handoffs.hand_over(session, job_id, offer_id)
    emit(session, bill.document(found) | {"changed": True}, _lines(found))


def _lines(found: Bill) -> list[str]:
    present, following, job = found.present, found.following, found.job
    earlier = job.units - found.units - present.units_proven
    lines = [
        f"handed job {job.job_id} over to offer {following.offer_id}",
        f"{following.provider}, who has earned {found.score_to} points: {_text(found.offered)} for "
        f"{counted(found.units, 'unit')} at {following.price_per_unit}, a bond of "
        f"{following.provider_bond} CT locked",
        f"{present.provider}, who has earned {found.score_from} points: {_text(found.kept)} for "
        f"{counted(present.units_proven, 'unit')} proven, {_text(found.lost)} lost, its bond of "
        f"{present.provider_bond} CT released",
        f"{job.buyer}, the buyer: {_text(found.refunded)} back, {_text(found.locked)} more locked",
    ]
    if earlier:
        lines.append(f"providers before them: {counted(earlier, 'unit')} proven, which stay theirs")
    if not following.funded:
        lines.append("the job holds no money: none moves")
    return lines


def _text(amounts: Amounts) -> str:
    told = [f"{amount} {token}" for token, amount in amounts.items() if amount]
    return " and ".join(told) or "nothing"
