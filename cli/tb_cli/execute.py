"""Verbs that do the work of jobs: execute, prove."""

import sys
from typing import Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import (
    AlreadyDoneError,
    IntegrityError,
    MarketError,
    RefusedError,
    UsageError,
)
from compute_market.jobs import jobs, lifecycle
from compute_market.records import Job, Slice, check_id
from compute_market.store.store import Txn
from compute_market.workloads.runner import Runner
from compute_market.workloads.tasks import Result
from compute_market.workloads.workloads import BUILT_IN
from tb_cli.frame import backend as hashing
from tb_cli.frame import bulk
from tb_cli.frame.options import BACKEND, EXECUTOR, JOB_ID, JOB_IDS, JSONL
from tb_cli.frame.progress import Progress
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session, now_ms
from tb_cli.frame.verbs import argument, number, takes
from tb_cli.network.executors import executor

# Proofs are submitted after so many slices, so many bytes or so long, whichever comes first: what a
# killed process has to do again.
_PROOFS_PER_COMMIT = 1000
_BYTES_PER_COMMIT = 2**30
_MS_PER_COMMIT = 10_000


@takes(JOB_IDS, BACKEND, EXECUTOR, JSONL)
def execute(
    session: Session,
    job_ids: list[str],
    *,
    backend: str | None,
    workers: int | None,
    where: str,
    cluster_timeout: int,
    jsonl: bool,
) -> int:
    """Runs the slices that are not proven yet, and submits their proofs.

    A run that was stopped is run again: it goes on at the first unproven slice. Ctrl-C and SIGTERM
    submit the proofs that are there; a kill loses the last ten seconds and what is under way.
    """
    ids = bulk.read_ids(job_ids, "job id")
    said = bulk.Report(session, len(ids), jsonl=jsonl)
    with (
        executor(where, workers, cluster_timeout, backend) as pool,
        hashing.hasher(session, backend, here=pool is None) as hasher,
        Runner(workers, pool, hasher=hasher) as runner,
    ):
        session.open()  # What is wrong with the home is wrong with no job.
        for job_id in ids:
            said.add(_execute_one(session, runner, job_id))
            sys.stdout.flush()
    return said.end()


@takes(
    JOB_ID,
    number("index", "INDEX", "Slice number, from 0.", least=0, most=AMOUNT_MAX),
    argument("digest", "HEX", "The output, 64 hex digits."),
)
def prove(session: Session, job_id: str, index: int, digest: str) -> None:
    """The slice was run elsewhere, and this is what came out."""
    check_id(job_id, "job id")
    proof = _digest(digest)

    def act(txn: Txn) -> tuple[lifecycle.Proven | lifecycle.InvalidProof, dict[str, Any]]:
        verdict = lifecycle.prove(txn, session.config, job_id, [(index, proof)])[0]
        return verdict, jobs.document(txn, jobs.get(txn, job_id))

    verdict, document = session.update(act)
    if isinstance(verdict, lifecycle.InvalidProof):
        raise IntegrityError(verdict.message, reason="invalid_proof")
    document["changed"] = verdict.changed
    text = f"proved slice {index} of job {job_id}" if verdict.changed else "proven before"
    emit(session, document, f"{text}: {_progress(verdict.job)}")


def _execute_one(session: Session, runner: Runner, job_id: str) -> bulk.Outcome:
    """Run what a job has left, commit by commit; the outcome tells how far it came."""
    job = None
    try:
        job, left = session.view(lambda txn: _unproven(txn, job_id))
        if job.state == "completed":
            changed = False
        else:
            _check_runs(job)
            job = _run_and_prove(session, runner, job, left)
            changed = True
    except MarketError as error:
        return bulk.failed(job_id, error, changed=_has_grown(session, job))
    document = session.view(lambda txn: jobs.document(txn, job)) | {"changed": changed}
    text = f"executed job {job_id}" if changed else f"job {job_id} exists, unchanged"
    return bulk.Outcome(job_id, f"{text}: {_progress(job)}", document)


def _unproven(txn: Txn, job_id: str) -> tuple[Job, list[tuple[int, Slice]]]:
    job = jobs.get(txn, job_id)
    entries = enumerate(jobs.slices(txn, job_id))
    return job, [(index, entry) for index, entry in entries if entry.proven_ms is None]


def _run_and_prove(
    session: Session, runner: Runner, job: Job, left: list[tuple[int, Slice]]
) -> Job:
    proofs: list[tuple[int, bytes]] = []
    unsaved = 0
    saved_ms = now_ms()

    def commit() -> Job:
        nonlocal proofs, unsaved, saved_ms
        # If they cannot be saved, they are not tried again.
        taken, proofs, unsaved = proofs, [], 0
        verdicts = session.update(
            lambda txn: lifecycle.prove(txn, session.config, job.job_id, taken)
        )
        saved_ms = now_ms()
        return verdicts[-1].job

    length = sum(entry.length for _, entry in left)
    silent = job.workload not in BUILT_IN
    with Progress(length, color=session.color, silent=silent) as progress:
        paths = [entry.path for _, entry in left]
        results = runner.run(job.workload, paths, now_ms=now_ms(), progress=progress)
        try:
            for (index, entry), result in zip(left, results, strict=True):
                _check_unchanged(job, index, entry, result)
                proofs.append((index, result.digest))
                unsaved += result.length
                # A dry run has one transaction: what it rolled back could not be built upon.
                full = len(proofs) >= _PROOFS_PER_COMMIT or unsaved >= _BYTES_PER_COMMIT
                is_due = full or now_ms() - saved_ms >= _MS_PER_COMMIT
                if is_due and not session.dry_run:
                    job = commit()
        except BaseException:
            # Whatever stopped the run, a signal too: what was proven before is worth keeping.
            if proofs:
                commit()
            raise
    return commit() if proofs else job


def _has_grown(session: Session, before: Job | None) -> bool:
    """Whether a job that failed in the middle has more proofs than before."""
    if before is None or session.dry_run:
        return False
    after = session.view(lambda txn: jobs.get(txn, before.job_id))
    return after.slices_proven > before.slices_proven


def _check_runs(job: Job) -> None:
    if job.state in ("cancelled", "failed"):
        raise AlreadyDoneError(f"job {job.job_id} is {job.state}")
    if job.state != "active":
        raise RefusedError(
            f"job {job.job_id} is {job.state}, only an active job can be run",
            hint="see `tb-cli compute queue`",
            reason="not_active",
        )


def _check_unchanged(job: Job, index: int, entry: Slice, result: Result) -> None:
    """A slice that is not what was submitted is the buyer's fault and costs nobody a point."""
    if result.error is not None:
        raise result.error
    if (result.length, result.digest) != (entry.length, entry.reference):
        raise IntegrityError(
            f"slice {index} of job {job.job_id} has changed since submission: {entry.path}",
            hint="restore the file, or cancel the job",
            reason="slice_changed",
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
