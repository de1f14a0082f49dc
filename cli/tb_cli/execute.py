"""Verbs that do the work of jobs: execute, prove."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import MarketError, UsageError
from compute_market.execution import COMMIT_AFTER, Left, Proofs, left_of, run_left
from compute_market.jobs import documents, jobs
from compute_market.jobs.faults import tell as tell_fault
from compute_market.jobs.prove import InvalidProof, Proven
from compute_market.jobs.prove import prove as prove_slices
from compute_market.records import Fault, Job, check_id
from compute_market.store.txn import Txn
from compute_market.workloads.runner import Runner
from compute_market.workloads.workloads import BUILT_IN
from tb_cli.frame import backend as hashing
from tb_cli.frame import bulk
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.ids import Ids
from tb_cli.frame.options import (
    BACKEND,
    EXECUTOR,
    FAILED_TO,
    JOB_ID,
    JOB_IDS_OR_NONE,
    JSONL,
    executed_selection,
)
from tb_cli.frame.progress import Progress
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import NOT_GIVEN, argument, examples, number, takes
from tb_cli.network.executors import executor

if TYPE_CHECKING:
    from tb_cli.frame.active_jobs import ActiveJobs


@examples(
    "tb-cli compute execute j-1 j-2",
    "tb-cli compute execute --all --until-empty",
    "tb-cli compute execute --provider farm --workers 8",
)
@takes(JOB_IDS_OR_NONE, BACKEND, EXECUTOR, FAILED_TO, JSONL, rarely=executed_selection)
def execute(
    session: Session,
    job_ids: list[str],
    *,
    backend: str | None,
    workers: int | None,
    where: str,
    cluster_timeout: int,
    failed_to: str | None,
    jsonl: bool,
    filters: Mapping[str, Any] = NOT_GIVEN,
    selecting: Mapping[str, Any] = NOT_GIVEN,
) -> int:
    """Runs the slices that are not proven yet, and submits their proofs.

    A job runs because somebody runs this: `active` says that it holds a slot. With --until-empty
    also what starts in a slot that becomes free. Jobs that options select are asked for first on a
    terminal, once.

    A run that was stopped is run again: it goes on at the first unproven slice. Ctrl-C and SIGTERM
    submit the proofs that are there; a kill loses the last ten seconds and what is under way.
    """
    active = None
    if not job_ids or filters or selecting:  # A shell loop names its jobs.
        active = _selected(session, job_ids, filters, selecting)
    ids = active or Ids(job_ids, "job id", keep=failed_to is not None)
    with (
        executor(where, workers, cluster_timeout, backend) as pool,
        hashing.hasher(session, backend, here=pool is None) as hasher,
        Runner(workers, pool, hasher=hasher) as runner,
    ):

        def one(part: list[bulk.Given[str]]) -> list[bulk.Outcome]:
            session.open()  # What is wrong with the home is wrong with no job.
            return [
                _failed(each.name, each.error)
                if each.error is not None
                else _execute_one(session, runner, each.name)
                for each in part
            ]

        code = bulk.in_chunks(
            session,
            ids,
            one,
            size=1,
            jsonl=jsonl,
            failed_to=failed_to,
            source=ids,
            selected=None if active is None else "job selected",
            fail_empty="fail_empty" in selecting,
        )
    if active is not None and not (session.json or jsonl):
        note(active.summary())
    return code


@examples(
    "tb-cli compute prove j-1 0 1148b4a1dc7e934c527d66e48242e7edbed960582dbed1b41a7e2cd558e602e9"
)
@takes(
    JOB_ID,
    number("index", "INDEX", "Slice number, from 0.", least=0, most=AMOUNT_MAX),
    argument("digest", "HEX", "The output, 64 hex digits."),
)
def prove(session: Session, job_id: str, index: int, digest: str) -> None:
    """The slice was run elsewhere, and this is what came out."""
    check_id(job_id, "job id")
    proof = _digest(digest)

    def act(txn: Txn) -> tuple[Proven | InvalidProof, dict[str, Any]]:
        verdict = prove_slices(txn, job_id, [(index, proof)])[0]
        return verdict, documents.job_document(txn, jobs.get(txn, job_id))

    verdict, document = session.update(act)
    changed = verdict.accepted()
    text = f"proved slice {index} of job {job_id}" if changed else "proven before"
    emit(session, document | {"changed": changed}, f"{text}: {_progress(verdict.job)}")


def _selected(
    session: Session, job_ids: list[str], filters: Mapping[str, Any], selecting: Mapping[str, Any]
) -> "ActiveJobs | None":
    """The jobs that options select; None where they are named."""
    from tb_cli.frame import selected

    if selected.is_meant(job_ids, filters, selecting):
        from tb_cli.frame.active_jobs import ActiveJobs
        from tb_cli.frame.listing.selections import asked_jobs

        asked = asked_jobs(filters, ("active",))
        active = ActiveJobs(session, asked, until_empty="until_empty" in selecting)
        active.ask(yes="yes" in selecting)
        return active
    if "until_empty" in selecting:
        raise UsageError("--until-empty goes with --all, or with options that select jobs")
    return None


class _Found(NamedTuple):
    """A job as a look or a commit found it. What a dry run has paid is gone afterwards."""

    job: Job
    document: dict[str, Any]


def _found(txn: Txn, job: Job) -> _Found:
    return _Found(job, documents.job_document(txn, job))


def _execute_one(session: Session, runner: Runner, job_id: str) -> bulk.Outcome:
    """Run what a job has left, commit by commit; the outcome tells how far it came."""
    steps: list[_Found] = []
    try:
        left, found = session.view(partial(_look, job_id=job_id))
        steps.append(found)
        changed = left.job.state != "completed"
        if changed:
            _run(session, runner, left, steps)
    except MarketError as error:
        has_changed = bool(steps) and steps[-1].job != steps[0].job
        return _failed(job_id, error, changed=has_changed)
    job, document = steps[-1]
    text = f"executed job {job_id}" if changed else f"job {job_id} exists, unchanged"
    text += f": {_progress(job)}"
    if changed and not job.funded:
        text += " (dry run: recorded, not paid)"
    return bulk.Outcome(job_id, text, document | {"changed": changed})


def _look(txn: Txn, job_id: str) -> tuple[Left, _Found]:
    left = left_of(txn, job_id)
    return left, _found(txn, left.job)


def _failed(job_id: str, error: MarketError, *, changed: bool = False) -> bulk.Outcome:
    from tb_cli.frame.failures import failed  # Most often nothing fails.

    return failed(job_id, error, changed=changed)


def _run(session: Session, runner: Runner, left: Left, steps: list[_Found]) -> None:
    """Run it, and add how each commit leaves the job."""
    job_id = left.job.job_id
    silent = left.job.workload not in BUILT_IN

    def submit(proofs: Proofs) -> Job:
        steps.append(
            session.update(lambda txn: _found(txn, prove_slices(txn, job_id, proofs)[-1].job))
        )
        return steps[-1].job

    def tell(fault: Fault, index: int) -> None:
        steps.append(session.update(lambda txn: _found(txn, tell_fault(txn, job_id, fault, index))))

    with Progress(left.length, color=session.color, silent=silent, name=job_id) as progress:
        run_left(
            left,
            runner,
            submit=submit,
            tell=tell,
            clock=now_ms,
            advance=progress,
            # A dry run has one transaction: what it rolled back could not be built upon.
            commit_after=None if session.dry_run else COMMIT_AFTER,
            slice_root=session.config.slice_root,
        )


def _progress(job: Job) -> str:
    return f"{job.slices_proven} of {job.slices} slices proven, {job.state}"


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise UsageError(f"{text!a} is not an output", hint="64 hex digits, a BLAKE3-256 digest")
    return digest
