"""Running slices for the market: references before a submission, proofs of an active job.

All of it is slow work outside any transaction; proofs are submitted commit by commit.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from compute_market.errors import IntegrityError
from compute_market.hashing.files import check_inside, is_regular, open_slice
from compute_market.jobs import jobs
from compute_market.records import UNHASHED, Fault, Job, Slice
from compute_market.store.txn import Txn
from compute_market.text import quoted
from compute_market.workloads.runner import Runner
from compute_market.workloads.tasks import Result, run_slices
from compute_market.workloads.workloads import BUILT_IN, resolve

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

# Reasons of errors that may be gone the next time.
_MAY_COME_BACK = ("missing", "not_a_file", "unreadable", "slice_changed")
# Called with what is wrong with a slice, and its index.
Tell = Callable[[Fault, int], object]

# Asking the market about a job takes as long as hashing so much.
ASK_FROM_BYTES = 2**20


def paths_of(request: "JobRequest", directory: str) -> list[str]:
    """Where the slices of a job are; relative paths are relative to the directory of its file."""
    entries = request.slice_requests()
    return [os.path.abspath(os.path.join(directory, entry.path)) for entry in entries]


def known_slices(request: "JobRequest", directory: str, slice_root: str = "") -> list[Slice]:
    """What is known of the slices of a job before any is read: path, length, reference if given.

    Raises UsageError (`unknown_workload`, `broken_workload`), what `open_slice` raises, and
    RefusedError for a slice that is not below the `slice_root`.
    """
    for path in paths_of(request, directory) if slice_root else ():
        check_inside(path, slice_root)
    resolve(request.workload)
    return [
        Slice(path, _length(path), UNHASHED if given is None else bytes.fromhex(given))
        for path, given in zip(
            paths_of(request, directory),
            (entry.reference for entry in request.slice_requests()),
            strict=True,
        )
    ]


def bytes_to_hash(workload: str, known: list[Slice]) -> int:
    """How much `hashed` has to read: all of it, but for references that it takes as they are."""
    return sum(entry.length for entry in known if _is_run(workload, entry))


def unhashed(known: list[Slice]) -> list[Slice]:
    """The same for a job that the market would not take: nobody has checked what was given."""
    return [Slice(entry.path, entry.length, UNHASHED) for entry in known]


def hashed(
    workload: str,
    known: list[Slice],
    runner: Runner,
    *,
    now_ms: int,
    progress: Advance | None = None,
) -> list[Slice]:
    """The slices with their references, those that were given checked if the workload is ours.

    Raises what `Runner.run` gives for a slice that cannot be read, and IntegrityError
    (`reference_mismatch`).
    """
    paths = [entry.path for entry in known if _is_run(workload, entry)]
    results = runner.run(workload, paths, now_ms=now_ms, progress=progress)
    found: list[Slice] = []
    for index, entry in enumerate(known):
        if not _is_run(workload, entry):
            found.append(entry)
            continue
        result = next(results)
        if result.error is not None:
            raise result.error
        if entry.reference not in (UNHASHED, result.digest):
            raise IntegrityError(
                f"slice {index} does not give the reference of the job file: {quoted(entry.path)}",
                hint="leave the reference out, or restore the file",
                reason="reference_mismatch",
            )
        found.append(Slice(entry.path, result.length, result.digest))
    return found


class Left(Struct, frozen=True, gc=False):
    """A job, and the slices of it that are not proven yet, by index."""

    job: Job
    slices: list[tuple[int, Slice]]

    @property
    def length(self) -> int:
        """Bytes to run."""
        return sum(entry.length for _, entry in self.slices)


def is_worth_hashing(length: int, is_taken: Callable[[], bool]) -> bool:
    """Whether slices of so many bytes in all are hashed: long ones only if the market would take
    their job, which is asked for then."""
    return length < ASK_FROM_BYTES or is_taken()


def hashed_if(
    workload: str, known: list[Slice], is_taken: Callable[[], bool], *, now_ms: int
) -> list[Slice]:
    """The slices of a job, hashed where that is worth it, and else as they are known."""
    if not is_worth_hashing(bytes_to_hash(workload, known), is_taken):
        return unhashed(known)
    with Runner() as runner:
        return hashed(workload, known, runner, now_ms=now_ms)


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
    tell: Tell,
    clock: Callable[[], int],
    advance: Advance | None = None,
    commit_after: CommitAfter | None = COMMIT_AFTER,
    slice_root: str = "",
) -> Job:
    """Run the slices a job has left and hand their proofs to `submit`; the job as it is then.

    Whatever stops a run, a signal too: what was proven before is submitted. Without `commit_after`
    all proofs are submitted at the end. A slice that is not what was submitted, or cannot be read,
    is handed to `tell` after that. Raises AlreadyDoneError, RefusedError (`not_active`),
    IntegrityError (`slice_changed`), what `Runner.run` gives for a slice that cannot be read, and,
    before any of them is run, RefusedError for one that is not below the `slice_root`.
    """
    from compute_market.jobs.prove import check_active  # A submission proves nothing.

    check_active(left.job)
    unsaved = _Unsaved(left.job, submit, clock, commit_after)
    paths = [entry.path for _, entry in left.slices]
    for path in paths if slice_root else ():
        check_inside(path, slice_root)  # A link may lead elsewhere by now.
    results = runner.run(left.job.workload, paths, now_ms=clock(), progress=advance)
    fault: Fault | None = None
    try:
        for (index, entry), result in zip(left.slices, results, strict=True):
            found = _looked_at_again(left.job, entry, result)
            fault = _fault_of(left.job, entry, found)
            if fault is not None:
                break
            if found.error is not None:
                raise found.error
            unsaved.add(index, found)
    except BaseException:
        unsaved.commit()
        raise
    unsaved.commit()
    if fault is not None:
        tell(fault, index)
        raise found.error or _changed(left.job, index, entry, fault)
    return unsaved.job


def _looked_at_again(job: Job, entry: Slice, result: Result) -> Result:
    """The result of a slice; one that may end the job is not believed before it is run again, here.

    Whatever was at fault, a device or another machine: the buyer is not to pay for it.
    """
    if result.error is None and result.digest != entry.reference and job.workload in BUILT_IN:
        ((result, _),) = run_slices(job.workload, [entry.path])
    return result


def _fault_of(job: Job, entry: Slice, result: Result) -> Fault | None:
    """What is wrong with a slice that is not what was submitted, or cannot be read."""
    if result.error is not None:
        return "slice_unreadable" if result.error.reason in _MAY_COME_BACK else None
    if (result.length, result.digest) == (entry.length, entry.reference):
        return None
    # What a workload of a package gives may have changed with the package.
    is_changed = result.length != entry.length or job.workload in BUILT_IN
    return "slice_changed" if is_changed else "slice_unreadable"


def _changed(job: Job, index: int, entry: Slice, fault: Fault) -> IntegrityError:
    return IntegrityError(
        f"slice {index} of job {job.job_id} has changed since submission: {quoted(entry.path)}",
        hint="the job has failed; its buyer may submit it again under another id"
        if fault == "slice_changed"
        else f"or workload {job.workload} gives something else here than where it was submitted",
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


def _is_run(workload: str, entry: Slice) -> bool:
    """Whether a slice is run before submission: to get its reference, or to check the given one."""
    return entry.reference == UNHASHED or workload in BUILT_IN


def _length(path: str) -> int:
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if is_regular(status.st_mode):
            return status.st_size
    # It is not to be had, and this says why.
    descriptor, status = open_slice(path)
    os.close(descriptor)
    return status.st_size
