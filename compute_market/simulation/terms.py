"""What jobs and offers asked for beside what the events of a log say: as a store has it, or a word
of refusal."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from compute_market.amounts import format_ppm
from compute_market.field_errors import field_error
from compute_market.records import Capability, Job, Lane, Offer, Priority
from compute_market.requests import Amount, CapabilityRequest, OfferRequest


class JobTerms(Struct, frozen=True, gc=False):
    """What a job asked for when it was submitted; None where nobody knows."""

    capability: CapabilityRequest
    max_price_per_unit: int
    consumer_bond: int
    provider_bond_min: int
    priority: Priority | None = None
    lane: Lane | None = None
    deadline_secs: int | None = None


class _Asked(CapabilityRequest, frozen=True, kw_only=True):
    """What the log says that a refused job asked for."""

    max_price_per_unit: Amount
    consumer_bond: Amount
    provider_bond_min: Amount


def of_job(job: Job) -> JobTerms:
    """What a stored job asked for."""
    return JobTerms(
        _asked(job.capability),
        job.max_price_per_unit,
        job.consumer_bond,
        job.provider_bond_min,
        job.asked_priority or job.priority,
        job.lane,
        _deadline_secs(job),
    )


def of_refused(asked: Mapping[str, Any]) -> JobTerms:
    """What a job asked for that was not let in. Raises msgspec.ValidationError for what is none."""
    found = msgspec.convert(asked, _Asked)
    names = CapabilityRequest.__struct_fields__
    return JobTerms(
        CapabilityRequest(**{name: getattr(found, name) for name in names}),
        found.max_price_per_unit,
        found.consumer_bond,
        found.provider_bond_min,
    )


def told_of_refused(source: str, error: msgspec.ValidationError) -> str:
    """What is wrong with what a refused job is said to have asked for."""
    return field_error(source, str(error), _Asked).message


def of_offer(offer: Offer, units: int, price: int) -> OfferRequest:
    """An offer of so many units at a price, in all else as it is stored."""
    return OfferRequest(
        offer.provider,
        units,
        price,
        offer.offer_id,
        fee_pct_ct=offer.fee_pct_ct,
        provider_bond=offer.provider_bond,
        consumer_bond=offer.consumer_bond,
        capability=_asked(offer.capability),
        reputation=offer.reputation,
        reputation_multiplier=format_ppm(offer.multiplier_ppm),
        job_id=offer.job_id,
    )


def _asked(capability: Capability) -> CapabilityRequest:
    models = list(capability.gpu_models)
    return CapabilityRequest(
        cpu_cores=capability.cpu_cores,
        gpu=models[0] if len(models) == 1 else models or None,
        gpu_count=capability.gpu_count,
        gpu_memory_mb=capability.gpu_memory_mb,
        accelerator=capability.accelerator,
        accelerator_memory_mb=capability.accelerator_memory_mb,
    )


def _deadline_secs(job: Job) -> int:
    """How long the provider of a job had, as it was asked for."""
    if job.deadline_secs is not None:
        return job.deadline_secs
    return job.deadline - job.extended_secs - job.submitted_at
