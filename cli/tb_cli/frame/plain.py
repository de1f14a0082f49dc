"""The verbs that shell loops call most, and a short way in that leaves the option parser out.

Importing the parser takes longer than all the rest of such a command. `run` understands only the
plainest spelling, ids and `--json`; whatever else is on the line goes the usual way, to the same
functions.
"""

import os
from typing import Literal

from compute_market.admission.admission import MICRO
from compute_market.amounts import PPM
from compute_market.errors import AlreadyDoneError, MarketError, NotFoundError, RefusedError
from compute_market.jobs import jobs, lifecycle
from compute_market.records import check_id
from compute_market.store.store import Txn
from tb_cli.frame import bulk
from tb_cli.frame.render import emit, fields, write_json
from tb_cli.frame.session import Session


def cancel(
    session: Session,
    job_ids: list[str],
    *,
    by: Literal["client", "provider"] = "client",
    chunk: int = 1000,
    atomic: bool = False,
    ignore_not_found: bool = False,
    failed_to: str | None = None,
    jsonl: bool = False,
) -> int:
    """`compute cancel`; see there."""

    def act(txn: Txn, job_id: str) -> bulk.Outcome:
        try:
            cancelled = lifecycle.cancel(txn, session.config, job_id, by)
        except (NotFoundError, RefusedError) as error:
            document = {"job_id": job_id, "outcome": error.token, "changed": False}
            unknown = isinstance(error, NotFoundError)
            text = "job not found" if unknown else error.message
            return bulk.Outcome(job_id, text, document, error)
        changed = cancelled.outcome == "cancelled"
        document = {"job_id": job_id, "outcome": cancelled.outcome, "changed": changed}
        if session.json and not jsonl:
            document = jobs.document(txn, cancelled.job) | document
        done: MarketError | None = None
        if cancelled.outcome == "already_done":
            done = AlreadyDoneError(cancelled.text, hint=f"see `tb-cli compute status {job_id}`")
        return bulk.Outcome(job_id, cancelled.text, document, done)

    return bulk.run(
        session,
        bulk.read_ids(job_ids, "job id"),
        act,
        chunk=chunk,
        atomic=atomic,
        jsonl=jsonl,
        ignore_not_found=ignore_not_found,
        failed_to=failed_to,
    )


def status(session: Session, job_id: str) -> int:
    """`compute status`."""
    check_id(job_id, "job id")
    document = session.view(lambda txn: jobs.document(txn, jobs.get(txn, job_id)))
    emit(session, document, fields(document))
    return 0


def params(session: Session) -> int:
    """`compute-market params`: units per second, a ratio, units, units per second."""
    config = session.config
    write_json(
        {
            "min_capacity": config.min_capacity,
            "fair_share_cap": config.fair_share_cap_ppm / PPM,
            "burst_quota": config.burst_quota_micro / MICRO,
            "burst_refill_rate": config.burst_refill_rate_micro / MICRO,
        }
    )
    return 0


def run(arguments: list[str]) -> int | None:
    """Run a plainly spelled hot verb to its exit code, or return None: not for here."""
    if "_TB_CLI_COMPLETE" in os.environ:
        return None
    verb, words = arguments[:2], arguments[2:]
    names = [word for word in words if word != "--json"]
    if any(name.startswith("-") and name != "-" for name in names):
        return None
    with Session.begin({"json": len(names) < len(words)}) as session:
        if verb == ["compute", "cancel"] and names:
            return cancel(session, names)
        if verb == ["compute", "status"] and len(names) == 1:
            return status(session, names[0])
        if verb == ["compute-market", "params"] and not names:
            return params(session)
    return None
