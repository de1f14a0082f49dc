"""`compute submit`: job files and options in, hashed slices, one transaction."""

import os
from collections.abc import Iterator
from typing import Any

from compute_market.errors import UsageError
from compute_market.jobs import jobs, lifecycle
from compute_market.records import Refused
from compute_market.requests import DEADLINE_MAX, JobRequest, build, parse_many
from compute_market.store.store import Txn
from compute_market.workloads.runner import Runner
from tb_cli.frame import bulk, files
from tb_cli.frame.job_files import Prepared, measure
from tb_cli.frame.options import (
    ATOMIC,
    CAPABILITY,
    CHUNK,
    JSONL,
    PRIORITY,
    amount,
    with_options,
)
from tb_cli.frame.session import Session
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
    CAPABILITY,
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
    prepared = list(_requests(paths, given, capability))
    if len(prepared) > 1 and "job_id" in given:
        raise UsageError(f"--job-id names one job, {len(prepared)} are given")

    def act(txn: Txn, item: Prepared) -> bulk.Outcome:
        if item.error is not None:
            raise item.error
        verdict = lifecycle.submit(txn, session.config, item.request, item.inputs, wait=wait)
        if isinstance(verdict, Refused):
            return bulk.failed(item.name, bulk.refusal(verdict), f"refused job {item.name}")
        document = jobs.document(txn, verdict.job) | {"changed": verdict.changed}
        return bulk.Outcome(item.name, _text(verdict), document)

    with Runner() as runner:

        def prepare(part: list[Prepared]) -> None:
            for item in part:
                measure(item, runner)

        return bulk.run(
            session,
            prepared,
            act,
            id_of=lambda item: item.name,
            prepare=prepare,
            chunk=chunk,
            atomic=atomic,
            jsonl=jsonl,
        )


def _requests(
    paths: list[str], given: dict[str, Any], capability: dict[str, Any]
) -> Iterator[Prepared]:
    if not paths:
        yield _request({}, given, capability, "options", "")
    for path in paths:
        source = files.source_of(path)
        directory = "" if path == "-" else os.path.dirname(path)
        for name, document in parse_many(files.read(path), source):
            yield _request(document, given, capability, name, directory)


def _request(
    document: dict[str, Any],
    given: dict[str, Any],
    capability: dict[str, Any],
    source: str,
    directory: str,
) -> Prepared:
    if "deadline_secs" in given:
        document = {name: value for name, value in document.items() if name != "deadline"}
    merged = with_options(document, given, capability)
    prepared = Prepared(build(merged, JobRequest, source), directory)
    for path in prepared.paths:
        files.check_text(path, f"{source}: the slice")
    return prepared


def _text(submitted: lifecycle.Submitted) -> str:
    job = submitted.job
    if not submitted.changed:
        return f"job {job.job_id} exists, unchanged: {job.state}"
    if job.state == "pending":
        return f"submitted job {job.job_id}: pending, no offer fits yet"
    units = "1 unit" if job.units == 1 else f"{job.units} units"
    return (
        f"submitted job {job.job_id}: {job.state}, {units} at {job.price_per_unit} "
        f"from {job.provider}"
    )
