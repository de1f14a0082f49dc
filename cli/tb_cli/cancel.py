"""`compute cancel`: one job or many."""

from collections.abc import Mapping
from typing import Any, Literal

from compute_market.errors import AlreadyDoneError, MarketError, NotFoundError, RefusedError
from compute_market.jobs.cancel import cancel as cancel_job
from compute_market.records import Job, check_reason
from compute_market.store.txn import Txn
from tb_cli.frame import bulk
from tb_cli.frame.ids import Ids
from tb_cli.frame.options import (
    ATOMIC,
    CHUNK,
    FAILED_TO,
    JOB_IDS_OR_NONE,
    JSONL,
    job_selection,
)
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import NOT_GIVEN, examples, flag, option, takes


@examples(
    "tb-cli compute cancel j-1 j-2",
    "tb-cli compute cancel --state queued --buyer acme --reason 'night is over'",
    "tb-cli compute cancel --overdue-in 1h --yes",
)
@takes(
    JOB_IDS_OR_NONE,
    option(
        "--by",
        "Who cancels: client or provider.",
        choices=("client", "provider"),
        default="client",
    ),
    option("--reason", "Why; the log keeps it, with each of the jobs.", metavar="TEXT"),
    CHUNK,
    ATOMIC,
    flag("--ignore-not-found", help="Unknown ids are no failure."),
    FAILED_TO,
    JSONL,
    rarely=job_selection,
)
def cancel(
    session: Session,
    job_ids: list[str],
    *,
    by: Literal["client", "provider"],
    reason: str | None,
    chunk: int | None,
    atomic: bool,
    ignore_not_found: bool,
    failed_to: str | None,
    jsonl: bool,
    filters: Mapping[str, Any] = NOT_GIVEN,
    selecting: Mapping[str, Any] = NOT_GIVEN,
) -> int:
    """Cancelling one again changes nothing.

    Refunds what was escrowed and not earned, and releases both bonds. For many ids, `-` reads them
    from stdin in one process. Jobs that options select are cancelled in one transaction, live ones
    unless --state says otherwise; on a terminal it asks first.
    """

    if reason is not None:
        check_reason(reason, "--reason")

    def act(txn: Txn, job_id: str) -> bulk.Outcome:
        try:
            cancelled = cancel_job(txn, job_id, by, reason)
        except (NotFoundError, RefusedError) as error:
            document = {"job_id": job_id, "outcome": error.token, "changed": False}
            unknown = isinstance(error, NotFoundError)
            text = "job not found" if unknown else error.message
            return bulk.Outcome(job_id, text, document, error, is_named=False)
        document = cancelled.document
        changed = cancelled.outcome == "cancelled"
        if session.json and not jsonl and isinstance(cancelled.job, Job):
            from compute_market.jobs import documents  # Most commands do not print it.

            document = documents.job_document(txn, cancelled.job) | document
        done: MarketError | None = None
        if cancelled.outcome == "already_done":
            done = AlreadyDoneError(cancelled.text, hint=f"see `tb-cli compute status {job_id}`")
        return bulk.Outcome(job_id, cancelled.text, document, done, is_named=changed)

    how: dict[str, Any] = {
        "chunk": chunk,
        "atomic": atomic,
        "jsonl": jsonl,
        "failed_to": failed_to,
    }
    if filters or selecting or not job_ids:
        from tb_cli.frame import selected  # A shell loop names its jobs.

        if selected.is_meant(job_ids, filters, selecting):
            from tb_cli.frame.listing.selections import asked_jobs, selected_jobs

            found = selected_jobs(asked_jobs(filters))
            return selected.run(session, found, act, doing="cancel", selecting=selecting, **how)
    ids = Ids(job_ids, "job id", keep=failed_to is not None)
    return bulk.run(session, ids, act, source=ids, ignore_not_found=ignore_not_found, **how)
