"""`compute submit`: job files and options in, hashed slices, one transaction."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from compute_market.errors import UsageError
from compute_market.execution import measured, paths_of
from compute_market.jobs import documents
from compute_market.jobs.submit import Submitted
from compute_market.jobs.submit import submit as submit_job
from compute_market.records import Refused, Slice
from compute_market.requests import DEADLINE_MAX, Document, JobRequest, build
from compute_market.requests import documents as read_documents
from compute_market.store.txn import Txn
from compute_market.workloads.runner import Runner
from tb_cli.frame import bulk, files
from tb_cli.frame.options import (
    ASKED,
    ATOMIC,
    CHUNK,
    JSONL,
    PRIORITY,
    amount,
    with_options,
)
from tb_cli.frame.session import Session, now_ms
from tb_cli.frame.verbs import argument, flag, group, option, takes


@takes(
    argument("paths", "[FILE…|-]", "JSON: a job, or one per line.", required=False, many=True),
    group(
        "given",
        option("--job-id", "The job's id."),
        option("--buyer", "Who pays."),
        option("--workload", "transcode, inference, gpu_hash or a registered one."),
        option("--slice", "A slice; repeatable.", name="slices", metavar="PATH", many=True),
        amount(
            "--max-price", "Highest quoted price of one unit to pay.", name="max_price_per_unit"
        ),
        amount("--bond", "CT bond of the buyer. [1]", name="consumer_bond"),
        option(
            "--deadline-secs",
            "Seconds until the deadline. [86400]",
            kind="integer",
            least=0,
            most=DEADLINE_MAX,
        ),
        PRIORITY,
        option("--lane", "industrial or consumer.", choices=("industrial", "consumer")),
    ),
    flag("--wait", help="Keep jobs without a match until an offer fits."),
    ASKED,
    CHUNK,
    ATOMIC,
    JSONL,
)
def submit(
    session: Session,
    paths: list[str],
    *,
    given: dict[str, Any],
    wait: bool,
    capability: dict[str, Any],
    chunk: int,
    atomic: bool,
    jsonl: bool,
) -> int:
    """Options win over the fields of a file; the same job again changes nothing.

    Slices stay where they are; those without a reference hash are hashed first.
    """
    if "slices" in given:
        given = given | {"slices": [os.path.abspath(path) for path in given["slices"]]}

    def act(txn: Txn, item: _Asked) -> bulk.Outcome:
        job_id = item.request.job_id
        verdict = submit_job(txn, item.request, item.inputs, wait=wait)
        if isinstance(verdict, Refused):
            return bulk.failed(job_id, verdict.error(), f"refused job {job_id}")
        document = documents.job_document(txn, verdict.job) | {"changed": verdict.changed}
        return bulk.Outcome(job_id, _text(verdict), document)

    with Runner() as runner:

        def prepare(item: _Asked) -> None:
            """The slow part, outside any transaction."""
            item.inputs[:] = measured(
                item.request,
                item.directory,
                runner,
                now_ms=now_ms(),
                slice_root=session.config.slice_root,
            )

        return bulk.run(
            session,
            _jobs(paths, given, capability),
            act,
            prepare=prepare,
            chunk=chunk,
            atomic=atomic,
            jsonl=jsonl,
        )


class _Asked(NamedTuple):
    """A job on its way in; its slices are measured later."""

    request: JobRequest
    directory: str  # what the paths of its slices are relative to
    inputs: list[Slice]


def _jobs(
    paths: list[str], given: dict[str, Any], capability: dict[str, Any]
) -> Iterator[bulk.Given[_Asked]]:
    if not paths:
        yield _job(Document("options", {}), given, capability, "")
    for path in paths:
        files.check_readable(path)
    count = 0
    for path in paths:
        directory = files.directory_of(path)
        for document in _documents(path, alone=len(paths) == 1):
            count += 1
            if count > 1 and "job_id" in given:
                raise UsageError("--job-id names one job, and more are given")
            yield _job(document, given, capability, directory)


def _documents(path: str, *, alone: bool) -> Iterator[Document]:
    """The jobs of a file. One that is wrong as a whole is one wrong job, unless it is alone."""
    source = files.source_of(path)
    try:
        yield from read_documents(files.lines(path), source)
    except UsageError as error:
        if alone:
            raise
        yield Document(source, {}, error)


def _job(
    document: Document, given: dict[str, Any], capability: dict[str, Any], directory: str
) -> bulk.Given[_Asked]:
    """One job as it was asked for. What is wrong with it is its own outcome."""
    fields = document.fields
    if "deadline_secs" in given:
        fields = {name: value for name, value in fields.items() if name != "deadline"}
    try:
        if document.error is not None:
            raise document.error
        request = build(with_options(fields, given, capability), JobRequest, document.source)
        for path in paths_of(request, directory):
            files.check_text(path, f"{document.source}: the slice")
    except UsageError as error:
        return bulk.Given(document.source, None, error)
    return bulk.Given(request.job_id, _Asked(request, directory, []))


def _text(submitted: Submitted) -> str:
    job = submitted.job
    if not submitted.changed:
        return f"job {job.job_id} exists, unchanged: {job.state}"
    if job.state == "pending":
        return f"submitted job {job.job_id}: pending, no offer fits yet"
    units = "1 unit" if job.units == 1 else f"{job.units} units"
    on = job.placed
    text = f"submitted job {job.job_id}: {job.state}, {units} at {on.price_per_unit}"
    return f"{text} from {on.provider}"
