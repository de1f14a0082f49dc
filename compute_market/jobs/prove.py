"""Proofs: an output that equals the reference of its slice is credited to the provider."""

from collections.abc import Iterable

from msgspec import Struct

from compute_market import events
from compute_market.errors import AlreadyDoneError, ConflictError, IntegrityError, RefusedError
from compute_market.jobs import demand, jobs
from compute_market.jobs.work import work
from compute_market.offers.standing import record_outcome
from compute_market.records import Job, Slice
from compute_market.store.txn import Txn


class Proven(Struct, frozen=True, gc=False):
    job: Job
    slice_index: int
    changed: bool

    def accepted(self) -> bool:
        """Whether the proof is a new one."""
        return self.changed


class InvalidProof(Struct, frozen=True, gc=False):
    """A verdict: the output is wrong. It cost the provider a point and left the slice open.

    What would be right is not told: whoever proves could hand it in without having done the work.
    """

    job: Job
    slice_index: int
    message: str

    def accepted(self) -> bool:
        """Raises IntegrityError (`invalid_proof`)."""
        raise IntegrityError(self.message, reason="invalid_proof")


def prove(
    txn: Txn, job_id: str, proofs: Iterable[tuple[int, bytes]]
) -> list[Proven | InvalidProof]:
    """Submit proofs, (slice index, digest) each, of one active job; the last one completes it.

    A proof that was accepted before is a no-op. Raises NotFoundError, UsageError for an index the
    job does not have, AlreadyDoneError and RefusedError when the job takes no proofs, and
    ConflictError for another output of a proven slice, all before anything is written.
    """
    job = jobs.get(txn, job_id)
    given = list(proofs)
    known = [(index, digest, jobs.slice_at(txn, job, index)) for index, digest in given]
    fresh: dict[int, Slice] = {}
    wrong = []
    for index, digest, entry in known:
        if digest != entry.reference:
            wrong.append(index)
        if entry.proven_ms is None and index not in fresh:
            check_takes_proofs(txn, job)
            if digest == entry.reference:
                fresh[index] = entry
        elif digest != entry.reference:
            raise ConflictError(f"slice {index} of job {job_id} is proven with another output")
    # After this point every proof gets a verdict.
    for index in wrong:
        seq = events.note(
            txn,
            "proof_refused",
            job_id=job_id,
            owner=job.placed.provider,
            before=job.event_seq,
            slice=index,
        )
        job = jobs.with_event(txn, job, seq)
        record_outcome(txn, job.placed.provider, -1)
    if fresh:
        before = job.units_proven
        job = jobs.prove_slices(txn, job, fresh)
        demand.note_proven(txn, job.placed.provider, job.units_proven - before)
    if job.state == "active" and job.slices_proven == job.slices:
        job = jobs.close(txn, job, "completed", "provider", "all_proven")
        record_outcome(txn, job.placed.provider, +1)
        work(txn)
    if len(fresh) == len(known):  # Most often: each is the first and right.
        return [Proven(job, index, True) for index in fresh]
    return _verdicts(job, known, wrong, set(fresh))


def check_active(job: Job) -> None:
    """Raise AlreadyDoneError or RefusedError (`not_active`) unless a job can be worked on."""
    if job.state in ("completed", "cancelled", "failed"):
        raise AlreadyDoneError(f"job {job.job_id} is {job.state}")
    if job.state != "active":
        raise RefusedError(
            f"job {job.job_id} is {job.state}, only an active job can be run",
            hint="see `tb-cli compute queue`",
            reason="not_active",
        )


def check_takes_proofs(txn: Txn, job: Job) -> None:
    """The same, and RefusedError (`deadline`) once its deadline has passed."""
    check_active(job)
    if jobs.is_overdue(txn, job):
        raise RefusedError(
            f"the deadline {job.deadline} of job {job.job_id} has passed", reason="deadline"
        )


def _verdicts(
    job: Job, known: list[tuple[int, bytes, Slice]], wrong: list[int], fresh: set[int]
) -> list[Proven | InvalidProof]:
    found: list[Proven | InvalidProof] = []
    for index, digest, entry in known:
        if digest != entry.reference:
            message = f"slice {index} of job {job.job_id}: {digest.hex()} is not its output"
            found.append(InvalidProof(job, index, message))
        else:
            found.append(Proven(job, index, index in fresh))
            fresh.discard(index)
    return found
