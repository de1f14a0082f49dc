"""Running slices for the market: references before a submission, proofs of an active job.

All of it is slow work outside any transaction; proofs are submitted commit by commit.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from compute_market.errors import IntegrityError
from compute_market.hashing.files import check_inside, open_slice
from compute_market.jobs import jobs
from compute_market.jobs.prove import check_active
from compute_market.records import Job, Slice
from compute_market.store.txn import Txn
from compute_market.workloads.runner import Runner
from compute_market.workloads.tasks import Result
from compute_market.workloads.workloads import resolve

if TYPE_CHECKING:
    from compute_market.requests import JobRequest

# Called with the bytes done so far.
Advance = Callable[[int], None]
Proofs = list[tuple[int, bytes]]  # slice index, digest


class CommitAfter(Struct, frozen=True, gc=False):
    """Proofs are submitted after so many slices, so many bytes or so long, whichever comes first:
    what a killed process has to do again."""

    slices: int = 1000
    length: int = 2**30  # bytes
    ms: int = 10_000


COMMIT_AFTER = CommitAfter()


def paths_of(request: "JobRequest", directory: str) -> list[str]:
    """Where the slices of a job are; relative paths are relative to the directory of its file."""
    entries = request.slice_requests()
    return [os.path.abspath(os.path.join(directory, entry.path)) for entry in entries]


def measured(
    request: "JobRequest", directory: str, runner: Runner, *, now_ms: int, slice_root: str = ""
) -> list[Slice]:
    """Path, length and reference of every slice of a job; those without a reference are run.

    Raises what `Runner.run` gives for a slice that cannot be read, and RefusedError for one that is
    not below the `slice_root`.
    """
    entries = request.slice_requests()
    paths = paths_of(request, directory)
    for path in paths if slice_root else ():
        check_inside(path, slice_root)
    unknown = [path for path, entry in zip(paths, entries, strict=True) if entry.reference is None]
    resolve(request.workload)
    hashed = runner.run(request.workload, unknown, now_ms=now_ms)
    found: list[Slice] = []
    for path, entry in zip(paths, entries, strict=True):
        if entry.reference is not None:
            found.append(Slice(path, _length(path), bytes.fromhex(entry.reference)))
            continue
        result = next(hashed)
        if result.error is not None:
            raise result.error
        found.append(Slice(path, result.length, result.digest))
    return found


class Left(Struct, frozen=True, gc=False):
    """A job, and the slices of it that are not proven yet, by index."""

    job: Job
    slices: list[tuple[int, Slice]]

    @property
    def length(self) -> int:
        """Bytes to run."""
        return sum(entry.length for _, entry in self.slices)


def left_of(txn: Txn, job_id: str) -> Left:
    """What a job has left. Raises NotFoundError."""
    job = jobs.get(txn, job_id)
    entries = enumerate(jobs.slices(txn, job_id))
    return Left(job, [(index, entry) for index, entry in entries if entry.proven_ms is None])


def run_left(
    left: Left,
    runner: Runner,
    *,
    submit: Callable[[Proofs], Job],
    clock: Callable[[], int],
    advance: Advance | None = None,
    commit_after: CommitAfter | None = COMMIT_AFTER,
    slice_root: str = "",
) -> Job:
    """Run the slices a job has left and hand their proofs to `submit`; the job as it is then.

    Whatever stops a run, a signal too: what was proven before is submitted. Without `commit_after`
    all proofs are submitted at the end. Raises AlreadyDoneError, RefusedError (`not_active`), and
    IntegrityError (`slice_changed`) for a slice that is not what was submitted; and, before any of
    them is run, RefusedError for one that is not below the `slice_root`.
    """
    check_active(left.job)
    unsaved = _Unsaved(left.job, submit, clock, commit_after)
    paths = [entry.path for _, entry in left.slices]
    for path in paths if slice_root else ():
        check_inside(path, slice_root)  # A link may lead elsewhere by now.
    results = runner.run(left.job.workload, paths, now_ms=clock(), progress=advance)
    try:
        for (index, entry), result in zip(left.slices, results, strict=True):
            check_unchanged(left.job, index, entry, result)
            unsaved.add(index, result)
    except BaseException:
        unsaved.commit()
        raise
    unsaved.commit()
    return unsaved.job


def check_unchanged(job: Job, index: int, entry: Slice, result: Result) -> None:
    """A slice that is not what was submitted is the buyer's fault and costs nobody a point."""
    if result.error is not None:
        raise result.error
    if (result.length, result.digest) != (entry.length, entry.reference):
        raise IntegrityError(
            f"slice {index} of job {job.job_id} has changed since submission: {entry.path}",
            hint="restore the file, or cancel the job",
            reason="slice_changed",
        )


class _Unsaved:
    """Proofs of one run that are not submitted yet."""

    def __init__(
        self,
        job: Job,
        submit: Callable[[Proofs], Job],
        clock: Callable[[], int],
        after: CommitAfter | None,
    ) -> None:
        self.job = job
        self._submit = submit
        self._clock = clock
        self._after = after
        self._proofs: Proofs = []
        self._length = 0
        self._saved_ms = clock()

    def add(self, index: int, result: Result) -> None:
        self._proofs.append((index, result.digest))
        self._length += result.length
        after = self._after
        if after is not None and (
            len(self._proofs) >= after.slices
            or self._length >= after.length
            or self._clock() - self._saved_ms >= after.ms
        ):
            self.commit()

    def commit(self) -> None:
        # If they cannot be saved, they are not tried again.
        taken, self._proofs, self._length = self._proofs, [], 0
        if taken:
            self.job = self._submit(taken)
            self._saved_ms = self._clock()


def _length(path: str) -> int:
    descriptor, status = open_slice(path)
    os.close(descriptor)
    return status.st_size
