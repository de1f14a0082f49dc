"""A job as it is asked for: what it would be, and whether it is the one that is there already."""

from typing import Any

from msgspec import UNSET

from compute_market.amounts import checked, units_of
from compute_market.config.settings import Config
from compute_market.errors import ConflictError, RefusedError, check_same
from compute_market.jobs import jobs
from compute_market.records import DEADLINE_MAX, UNHASHED, Job, Slice, capability_document
from compute_market.requests import DEADLINE_SECS_DEFAULT, JobRequest
from compute_market.store.schema import ARCHIVED_JOBS
from compute_market.store.txn import Txn


def draft(request: JobRequest, inputs: list[Slice], now: int, config: Config) -> Job:
    """The job as asked for, not stored yet.

    Raises RefusedError for an empty slice, a bond below 1, and a deadline that has passed or is
    too near or too far.
    """
    for entry in inputs:
        if entry.length == 0:
            raise RefusedError(
                f"{entry.path} is empty", hint="an empty slice has no work", reason="empty_slice"
            )
    if request.consumer_bond < 1:
        raise RefusedError(
            "consumer bond too low",
            hint="--bond, in a file consumer_bond, is at least 1 CT",
            reason="consumer_bond_too_low",
        )
    if request.provider_bond_min < 1:
        raise RefusedError(
            "least provider bond too low",
            hint="--provider-bond-min, in a file provider_bond_min, is at least 1 CT",
            reason="provider_bond_too_low",
        )
    job = sketch(request, inputs, now)
    check_deadline(job, now, config)
    checked(job.units, "demand in units")
    return job


def sketch(request: JobRequest, inputs: list[Slice], now: int = 0) -> Job:
    """A job as a request describes it, unchecked."""
    deadline, deadline_secs = _deadline(request, now)
    units = 0
    for entry in inputs:
        units += units_of(entry.length)
    return Job(
        job_id=request.job_id,
        seq=0,
        state="pending",
        buyer=request.buyer,
        workload=request.workload,
        capability=request.capability.capability(),
        slices=len(inputs),
        units=units,
        max_price_per_unit=request.max_price_per_unit,
        consumer_bond=request.consumer_bond,
        deadline=deadline,
        deadline_secs=deadline_secs,
        priority=request.priority,
        lane=request.lane,
        submitted_at=now,
        provider_bond_min=request.provider_bond_min,
    )


def asked(job: Job) -> dict[str, Any]:
    """What a job asks of an offer, as the log keeps it of one that is not stored."""
    return capability_document(job.capability) | {
        "max_price_per_unit": job.max_price_per_unit,
        "consumer_bond": job.consumer_bond,
        "provider_bond_min": job.provider_bond_min,
    }


def too_near(deadline: int, now: int, config: Config) -> str | None:
    """Why a deadline leaves a provider too little time; None when there is enough."""
    if deadline < now:
        return f"deadline {deadline} has passed, it is {now} now"
    ahead, least = deadline - now, config.deadline_min_secs
    if ahead < least:
        return f"the deadline is {ahead} s ahead, at least {least} s are needed"
    return None


def existing(txn: Txn, request: JobRequest, inputs: list[Slice]) -> Job | None:
    """The job that a request was for before; None for a new one.

    Raises ConflictError naming the field when the id stands for another job, and `archived` when
    it stood for one that was archived.
    """
    found = jobs.find(txn, request.job_id)
    if found is not None:
        _check_is(txn, found, request, inputs)
    elif txn.get(ARCHIVED_JOBS, request.job_id.encode()) is not None:
        from compute_market import archived  # Hardly any id was used before.

        raise archived.taken(txn, request.job_id)
    return found


def _check_is(txn: Txn, existing: Job, request: JobRequest, inputs: list[Slice]) -> None:
    """Raise ConflictError naming the first field in which a request differs from its job.

    A deadline is compared as it was given, in seconds from then or as a second, wherever it was
    moved since, and so is a priority: a bulk submission that was killed can be run again. A
    reference that differs is named, never told.
    """
    what, hint = f"job {existing.job_id}", "use another job id"
    deadline, deadline_secs = _deadline(request, existing.submitted_at)
    given = existing.deadline - existing.extended_secs
    asked: dict[str, Any] = {
        "buyer": request.buyer,
        "workload": request.workload,
        "capability": capability_document(request.capability.capability()),
        "slices": len(inputs),
        "max_price_per_unit": request.max_price_per_unit,
        "consumer_bond": request.consumer_bond,
        "deadline_secs": deadline_secs,
        "deadline": deadline,
        "priority": request.priority,
        "lane": request.lane,
        "provider_bond_min": request.provider_bond_min,
    }
    stored = {name: getattr(existing, name) for name in asked}
    stored["priority"] = existing.asked_priority or existing.priority
    stored["deadline"] = deadline if deadline_secs is not None else given
    stored["capability"] = capability_document(existing.capability)
    check_same(what, stored, asked, hint=hint)
    for index, (before, now) in enumerate(
        zip(jobs.slices(txn, existing.job_id), inputs, strict=True)
    ):
        field = f"slices[{index}]"
        check_same(
            what,
            {f"{field}.path": before.path, f"{field}.length": before.length},
            {f"{field}.path": now.path, f"{field}.length": now.length},
            hint=hint,
        )
        if now.reference not in (before.reference, UNHASHED):
            raise ConflictError(
                f"{what} exists with another {field}.reference",
                hint=hint,
                field=f"{field}.reference",
            )


def check_deadline(job: Job, now: int, config: Config) -> None:
    """Raise RefusedError (`deadline`) unless a provider gets enough time, and not for ever."""
    near = too_near(job.deadline, now, config)
    if near is not None:
        hint = "give the provider more time; the setting is deadline_min_secs"
        raise RefusedError(near, hint=hint if job.deadline >= now else None, reason="deadline")
    ahead = job.deadline - now
    if ahead > config.deadline_max_secs:
        raise RefusedError(
            f"the deadline is {ahead} s ahead, at most {config.deadline_max_secs} s are allowed",
            hint="submit it later, or with an earlier deadline; the setting is deadline_max_secs",
            reason="deadline",
        )


def _deadline(request: JobRequest, since: int) -> tuple[int, int | None]:
    if request.deadline is not UNSET:
        return request.deadline, None
    secs = request.deadline_secs
    relative = DEADLINE_SECS_DEFAULT if secs is UNSET else secs
    return min(since + relative, DEADLINE_MAX), relative
