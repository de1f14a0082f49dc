"""Handoffs: a job goes over to an offer once the bundle that tells of it has arrived.

The bundle is spooled and forwarded outside of any transaction. That it was acknowledged, and that
the job goes over, is one transaction (`courier.record`), which decides anew. Whatever fails or is
killed in between leaves the job with its provider: a bundle that still waits is taken up by the
next flush, and is refused for good once the job would stay.
"""

from compute_market.courier import courier
from compute_market.courier.courier import Bundle
from compute_market.courier_records import BundleReceipt, Progress
from compute_market.errors import MarketError, PendingError
from compute_market.jobs import bill, handoff, preempt
from compute_market.jobs.bill import Bill
from compute_market.offers import offers
from compute_market.store.txn import Txn
from tb_cli.frame import bundles
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.network.forwarding import forward


def hand_over(session: Session, job_id: str, offer_id: str) -> Bill:
    """Hand an active job over to an offer; the bill of what that came to.

    Raises what `preempt.decide` raises where the job stays, also when that comes out last, and
    PendingError (`handoff_failed`) when its bundle was not acknowledged.
    """

    def begin(txn: Txn) -> tuple[bytes, str, Progress]:
        takeover = preempt.decide(txn, job_id, offer_id)
        job = takeover.job
        return handoff.bundle(txn, takeover), job.placed.provider, preempt.progress(job)

    text, sender, told = session.view(begin)
    with bundles.spooled(session, [text], room=len(text)) as content:

        def send(txn: Txn) -> BundleReceipt:
            preempt.decide(txn, job_id, offer_id, told)
            return courier.send(
                txn,
                Bundle(
                    content.bundle_hash,
                    content.size,
                    sender,
                    session.config.courier_dest,
                    "handoff",
                    job_id,
                    offer_id,
                    told,
                ),
                bundles.random_ids(),
            )

        receipt_id = session.update(send).receipt_id
    prepare_to_verify()
    forward(session, only=receipt_id)

    def end(txn: Txn) -> Bill | MarketError:
        found = bill.done(txn, job_id, offer_id, told.handovers)
        return _why_not(txn, job_id, offer_id, receipt_id) if found is None else found

    ended = session.view(end)
    if isinstance(ended, MarketError):
        raise ended
    return ended


def hand_over_best(session: Session, offer_id: str) -> tuple[str, Bill | MarketError] | None:
    """Hand the job over that a new offer takes, with what came of it; None if it takes none."""

    def choose(txn: Txn) -> str | None:
        found = preempt.proposed(txn, offers.get(txn, offer_id))
        return None if found is None else found.job.job_id

    job_id = session.view(choose)
    if job_id is None:
        return None
    try:
        return job_id, hand_over(session, job_id, offer_id)
    except MarketError as error:
        return job_id, error.with_traceback(None)


def _why_not(txn: Txn, job_id: str, offer_id: str, receipt_id: int) -> MarketError:
    """Why a job has not gone over: it must stay by now, or its bundle has not arrived."""
    receipt = courier.get(txn, receipt_id)
    problem = preempt.why_not(txn, job_id, offer_id, receipt.told)
    if problem is not None:
        return problem
    if receipt.state == "pending":
        problem_text, hint = "another flush has its bundle", "see `tb-cli compute courier show`"
    else:
        problem_text = receipt.last_error or "its bundle was not taken"
        hint = f"try again with `tb-cli compute preempt {job_id} {offer_id}`"
    return PendingError(
        f"the handoff of job {job_id} to offer {offer_id} failed: {problem_text}",
        hint=hint,
        reason="handoff_failed",
    )
