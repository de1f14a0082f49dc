"""Handoffs: a job goes over to an offer once the bundle that tells of it has arrived.

The bundle is spooled and forwarded outside of any transaction. That it was acknowledged, and that
the job goes over, is one transaction (`courier.record`), which decides anew. Whatever fails or is
killed in between leaves the job with its provider: a bundle that still waits is taken up by the
next flush, and is refused for good once the job would stay.
"""

from contextlib import suppress

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

    Raises what `preempt.decide` raises where the job stays, also when that comes out last, what
    spooling and forwarding raise, and PendingError (`handoff_failed`) when its bundle was not
    acknowledged. What fails once it is decided is counted and noted.
    """

    def begin(txn: Txn) -> tuple[bytes, str, Progress]:
        takeover = preempt.decide(txn, job_id, offer_id)
        job = takeover.job
        return handoff.bundle(txn, takeover), job.placed.provider, preempt.progress(job)

    text, sender, told = session.view(begin)
    stored: list[int] = []

    def send(txn: Txn) -> BundleReceipt:
        preempt.decide(txn, job_id, offer_id, told)
        dest = session.config.courier_dest
        sized = content.bundle_hash, content.size
        bundle = Bundle(*sized, sender, dest, "handoff", job_id, offer_id, told)
        receipt = courier.send(txn, bundle, bundles.random_ids())
        stored.append(receipt.receipt_id)
        return receipt

    try:
        with bundles.spooled(session, [text], room=len(text)) as content:
            receipt_id = session.update(send).receipt_id
    except (MarketError, OSError) as error:
        problem = _told(error)
        _note_failed(session, job_id, offer_id, problem, stored)
        raise problem from (None if problem is error else error)
    prepare_to_verify()
    forward(session, only=receipt_id)

    def end(txn: Txn) -> Bill | MarketError:
        found = bill.done(txn, job_id, offer_id, told.handovers)
        return _why_not(txn, job_id, offer_id, receipt_id) if found is None else found

    ended = session.view(end)
    if isinstance(ended, MarketError):
        raise ended
    return ended


def _note_failed(
    session: Session, job_id: str, offer_id: str, problem: MarketError, stored: list[int]
) -> None:
    """Note a handoff that failed before it had a receipt; what becomes of one notes itself.

    Of a transaction that failed it is not known whether its receipt is stored.
    """

    def act(txn: Txn) -> None:
        if all(courier.find(txn, each) is None for each in stored):
            preempt.note_failed(txn, job_id, offer_id, problem.reason or problem.token)

    with suppress(MarketError, OSError):  # What comes first is to be told.
        session.update(act)


def hand_over_best(session: Session, offer_id: str) -> tuple[str | None, Bill | MarketError] | None:
    """Hand the job over that a new offer takes, with what came of it; None if it takes none.

    The job is None where none could be looked for.
    """

    def choose(txn: Txn) -> str | None:
        found = preempt.proposed(txn, offers.get(txn, offer_id))
        return None if found is None else found.job.job_id

    job_id = None
    try:
        job_id = session.view(choose)
        return None if job_id is None else (job_id, hand_over(session, job_id, offer_id))
    except (MarketError, OSError) as error:
        return job_id, _told(error)


def _told(error: MarketError | OSError) -> MarketError:
    """What an operator is told of an error."""
    if isinstance(error, MarketError):
        return error.with_traceback(None)
    from tb_cli.frame.faults import answer_to

    return answer_to(error)


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
