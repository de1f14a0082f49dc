"""A submission from the fields of a job file to the job: hashed first, then one transaction."""

from typing import Any

from compute_market.engine import Engine
from compute_market.execution import hashed_if, known_slices
from compute_market.jobs import documents
from compute_market.jobs.submit import ask, submit
from compute_market.records import Refused
from compute_market.requests import JobRequest, build
from compute_market.store.txn import Txn


def submitted(engine: Engine, fields: dict[str, Any], *, wait: bool) -> dict[str, Any]:
    """The job as a document, with `changed`.

    Raises UsageError for wrong fields, and RefusedError with the reason when the market says no,
    which it remembers.
    """
    request = build(fields, JobRequest, "job")
    known = known_slices(request, "", engine.config.slice_root)
    inputs = hashed_if(
        request.workload,
        known,
        lambda: engine.view(lambda txn: ask(txn, request, known, wait=wait)),
        now_ms=engine.wall_ms(),
    )

    def act(txn: Txn) -> dict[str, Any] | Refused:
        verdict = submit(txn, request, inputs, wait=wait)
        if isinstance(verdict, Refused):
            return verdict
        return documents.job_document(txn, verdict.job) | {"changed": verdict.changed}

    found = engine.update(act)
    if isinstance(found, Refused):
        raise found.error()
    return found
