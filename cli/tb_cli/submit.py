"""`compute submit`: job files and options in, hashed slices, one transaction."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from compute_market.errors import RefusedError, UsageError
from compute_market.execution import (
    ASK_FROM_BYTES,
    bytes_to_hash,
    hashed,
    is_worth_hashing,
    known_slices,
    paths_of,
    unhashed,
)
from compute_market.jobs import documents, drafts, jobs
from compute_market.jobs.submit import Submitted, ask
from compute_market.jobs.submit import submit as submit_job
from compute_market.json_documents import NO_FILE, Document, NotJsonError
from compute_market.records import Refused, Slice
from compute_market.requests import JobRequest, build
from compute_market.store.txn import Txn
from compute_market.text import counted
from compute_market.workloads.runner import Runner
from compute_market.workloads.workloads import BUILT_IN
from tb_cli.frame import bulk, files, price_board
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.options import (
    ASKED,
    ATOMIC,
    CHUNK,
    FAILED_TO,
    JSONL,
    PRINTED,
    by_option,
    job_terms,
    with_options,
    with_party,
)
from tb_cli.frame.session import Session
from tb_cli.frame.terms import as_meant
from tb_cli.frame.verbs import argument, examples, flag, takes

if TYPE_CHECKING:
    from tb_cli.frame.compared_prices import Compared
    from tb_cli.frame.json_lines import JsonLines


@takes(
    argument(
        "paths", "[FILE…|-]", "JSON: a job, one per line, or a list.", required=False, many=True
    ),
    job_terms(),
    flag("--wait", help="Keep jobs without a match until an offer fits."),
    ASKED,
    CHUNK,
    ATOMIC,
    FAILED_TO,
    JSONL,
    PRINTED,
)
@examples(
    "tb-cli compute submit --example",
    "tb-cli compute submit job.json --wait",
)
def submit(
    session: Session,
    paths: list[str],
    *,
    given: dict[str, Any],
    wait: bool,
    capability: dict[str, Any],
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
    schema: bool,
    example: bool,
) -> int:
    """Options win over the fields of a file; the same job again changes nothing.

    Slices stay where they are and are hashed first, long ones only if the market would take the
    job. A reference that a file gives is checked.
    """
    if schema or example:
        from tb_cli.frame.schemas import tell

        tell(JobRequest, submit, schema=schema, given=bool(paths))
        return 0
    given = as_meant(given)

    compared = _compared(session) if session.dry_run and not (session.json or jsonl) else None

    def act(txn: Txn, item: _Asked) -> bulk.Outcome:
        job_id = item.request.job_id
        if compared is not None:
            compared.add(txn, item.request.lane, item.request.max_price_per_unit)
        verdict = submit_job(txn, item.request, item.inputs, wait=wait)
        if isinstance(verdict, Refused):
            from tb_cli.frame.failures import failed

            return failed(job_id, verdict.error(), f"{_REFUSAL} {job_id}: {verdict.reason}")
        document = documents.job_document(txn, verdict.job) | {"changed": verdict.changed}
        return bulk.Outcome(job_id, _text(verdict), document)

    for path in paths:
        files.check_readable(path)
    source = _source(paths, keep=failed_to is not None) if paths else None
    with Runner() as runner:

        def prepare(item: _Asked) -> None:
            """The slow part, outside any transaction."""
            item.inputs[:] = _prepared(session, runner, item, wait)
            price_board.expect(session)

        code = bulk.run(
            session,
            [_job(NO_FILE, given, capability)]
            if source is None
            else _jobs(source, given, capability),
            act,
            refusal=_REFUSAL,
            prepare=prepare,
            chunk=chunk,
            atomic=atomic,
            jsonl=jsonl,
            failed_to=failed_to,
            source=source,
        )
    if compared is not None:
        compared.tell()
    return code


_REFUSAL = "refused job"


class _Asked(NamedTuple):
    """A job on its way in; its slices are measured later."""

    request: JobRequest
    directory: str  # what the paths of its slices are relative to
    inputs: list[Slice]


def _prepared(session: Session, runner: Runner, item: _Asked, wait: bool) -> list[Slice]:
    """The slices of a job, hashed unless the market would not take it now.

    Raises what is wrong with them, and RefusedError for a job no market could take.
    """
    request = item.request
    known = known_slices(request, item.directory, session.config.slice_root)
    try:
        drafts.draft(request, known, now_ms() // 1000, session.config)
    except RefusedError:
        # It may be there already, and then nothing is asked for.
        if not (session.home.has_market() and session.view(partial(_exists, request.job_id))):
            raise
    length = bytes_to_hash(request.workload, known)
    if not is_worth_hashing(
        length, lambda: session.view(lambda txn: ask(txn, request, known, wait=wait))
    ):
        return unhashed(known)
    if length < ASK_FROM_BYTES:
        return hashed(request.workload, known, runner, now_ms=now_ms())
    from tb_cli.frame.progress import Progress  # Few slices take long enough for a bar.

    silent = request.workload not in BUILT_IN
    with Progress(length, color=session.color, silent=silent, name=request.job_id) as progress:
        return hashed(request.workload, known, runner, now_ms=now_ms(), progress=progress)


def _compared(session: Session) -> "Compared":
    """What compares prices with the price board, once that is loaded."""
    from tb_cli.frame.compared_prices import Compared

    price_board.load(session)
    return Compared()


def _exists(job_id: str, txn: Txn) -> bool:
    return jobs.find(txn, job_id) is not None


def _source(paths: list[str], *, keep: bool) -> "JsonLines":
    from tb_cli.frame.json_lines import JsonLines  # A job of options alone reads none.

    return JsonLines(paths, keep=keep)


def _jobs(
    source: "JsonLines", given: dict[str, Any], capability: dict[str, Any]
) -> Iterator[bulk.Given[_Asked]]:
    try:
        for number, (directory, document, place) in enumerate(source):
            if number and "job_id" in given:
                raise UsageError("--job-id names one job, and more are given")
            yield _job(document, given, capability, directory, place)
    except NotJsonError as error:
        raise _mistaken(error) from error


def _job(
    document: Document,
    given: dict[str, Any],
    capability: dict[str, Any],
    directory: str = "",
    place: bulk.Place | None = None,
) -> bulk.Given[_Asked]:
    """One job as it was asked for. What is wrong with it is its own outcome."""
    try:
        if document.error is not None:
            raise document.error
        asked = with_party(with_options(document.fields, given, capability), "buyer")
        request = build(asked, JobRequest, document.source)
        for path in paths_of(request, directory):
            files.check_text(path, f"{document.source}: the slice")
    except NotJsonError as error:
        return bulk.Given(document.source, None, _mistaken(error), place)
    except UsageError as error:
        alone = document is NO_FILE
        named = by_option(error, given, capability, submit, alone=alone)
        name = given.get("job_id", "") if alone else document.source
        return bulk.Given(name, None, named, place)
    return bulk.Given(request.job_id, _Asked(request, directory, []), None, place)


def _mistaken(error: UsageError) -> UsageError:
    """What to say of a file that is no JSON at all: it may be a slice."""
    return UsageError(error.message, hint="a file of jobs is JSON; slices are given with --slice")


def _text(submitted: Submitted) -> str:
    job = submitted.job
    if not submitted.changed:
        return f"job {job.job_id} exists, unchanged: {job.state}"
    if job.state == "pending":
        return f"submitted job {job.job_id}: pending, no offer fits yet"
    units = counted(job.units, "unit")
    on = job.placed
    text = f"submitted job {job.job_id}: {job.state}, {units} at {on.price_per_unit}"
    return f"{text} from {on.provider}" + ("" if on.funded else " (dry run: no money moves)")
