"""What operators ask for: the JSON files of jobs and offers, checked field by field.

Strict where money is involved: unknown keys, floats for integers and values out of range are errors
that name the file and the field.
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.learned import learned
from compute_market.records import DEADLINE_MAX, Capability, Lane, Priority, check_id
from compute_market.text import clipped, printable

Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
# Types check themselves what a pattern could say of a text: `re` and the patterns take longer to
# import than all else that this module needs.
Name = Annotated[str, Meta(min_length=1, max_length=64)]
GPU_MODELS_MAX = 32
PathText = Annotated[str, Meta(min_length=1)]
DEADLINE_SECS_DEFAULT = 86_400

R = TypeVar("R", bound=Struct)

_NOT_A_NAME = "expected printable ASCII with no blank at either end"
_DIGITS = frozenset("0123456789")
_HEX = _DIGITS | frozenset("abcdefABCDEF")
_REFERENCE_DIGITS = 64
_UNITS_DIGITS = 19


class CapabilityRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for or offered. A job may name several GPU models, any of which will do."""

    cpu_cores: Amount = 0
    gpu: Name | Annotated[list[Name], Meta(min_length=1, max_length=GPU_MODELS_MAX)] | None = None
    gpu_count: Amount = 0
    gpu_memory_mb: Amount = 0
    accelerator: Name | None = None
    accelerator_memory_mb: Amount = 0

    def __post_init__(self) -> None:
        models = self.gpu if isinstance(self.gpu, list) else [self.gpu]
        for field, names in (("gpu", models), ("accelerator", [self.accelerator])):
            for name in names:
                if name and not (name.isascii() and name.isprintable() and name == name.strip()):
                    raise ValueError(f"{field}: {_NOT_A_NAME}")

    def capability(self) -> Capability:
        """As stored: a named GPU without a count means one, and a model counts once."""
        gpu: str | tuple[str, ...] | None
        if isinstance(self.gpu, list):
            models = tuple(sorted(set(self.gpu)))
            gpu = models if len(models) > 1 else models[0]
        else:
            gpu = self.gpu
        return Capability(
            self.cpu_cores,
            gpu,
            self.gpu_count or (1 if self.gpu else 0),
            self.gpu_memory_mb,
            self.accelerator,
            self.accelerator_memory_mb,
        )


class OfferRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """An offer as asked for. Bounds the market sets itself are checked by `offers.post`."""

    provider: str
    units: Amount
    price_per_unit: Amount
    offer_id: str | None = None
    fee_pct_ct: Amount = 100
    provider_bond: Amount = 1
    consumer_bond: Amount = 1
    capability: CapabilityRequest = CapabilityRequest()
    reputation: Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)] = 0
    reputation_multiplier: Any = "1"  # decimal text, or a JSON number kept as written
    job_id: str | None = None


# What `compute offer show` prints of an offer beyond what one is posted by. A document that has it
# is a file of an offer all the same.
OFFER_DERIVED = frozenset(
    {
        "state",
        "units_left",
        "units_reserved",
        "units_proven",
        "effective_price",
        "posted_at",
        "shelf",
        "market_priced",
        "barred_by",
        "problem",
    }
)
OFFER_CHANGEABLE = ("units", "price_per_unit", "fee_pct_ct", "reputation_multiplier")


class OfferChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to become of an offer, by the fields of an offer file.

    Only `OFFER_CHANGEABLE` can be other than it is. Units with a sign are so many more or fewer.
    """

    offer_id: str
    units: Amount | str | UnsetType = UNSET
    price_per_unit: Amount | UnsetType = UNSET
    fee_pct_ct: Amount | UnsetType = UNSET
    reputation_multiplier: Any = UNSET
    provider: str | UnsetType = UNSET
    provider_bond: Amount | UnsetType = UNSET
    consumer_bond: Amount | UnsetType = UNSET
    capability: CapabilityRequest | UnsetType = UNSET
    reputation: int | UnsetType = UNSET
    job_id: str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        units = self.units
        if isinstance(units, str) and not (
            units[:1] in ("+", "-")
            and 1 <= len(units) - 1 <= _UNITS_DIGITS
            and _DIGITS.issuperset(units[1:])
        ):
            raise ValueError(
                "units: expected a whole number, or how many more or fewer with its sign"
            )


class SliceRequest(Struct, frozen=True, forbid_unknown_fields=True):
    path: PathText
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.reference is not None and not (
            len(self.reference) == _REFERENCE_DIGITS and _HEX.issuperset(self.reference)
        ):
            raise ValueError(f"reference: expected {_REFERENCE_DIGITS} hex digits")


class SliceList(Struct, frozen=True):
    """The slices of a job file and what to run over them, whatever else is in it."""

    slices: Annotated[list[PathText | SliceRequest], Meta(min_length=1)]
    workload: str | UnsetType = UNSET


class JobRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A job as asked for; slices still without the lengths and references `jobs.submit` needs."""

    job_id: str
    buyer: str
    workload: str
    slices: Annotated[list[PathText | SliceRequest], Meta(min_length=1)]
    max_price_per_unit: Amount
    capability: CapabilityRequest = CapabilityRequest()
    consumer_bond: Amount = 1
    provider_bond_min: Amount = 1
    deadline: Annotated[int, Meta(ge=0, le=DEADLINE_MAX)] | UnsetType = UNSET
    deadline_secs: Annotated[int, Meta(ge=0, le=DEADLINE_MAX)] | UnsetType = UNSET
    priority: Priority = "normal"
    lane: Lane = "industrial"

    def slice_requests(self) -> list[SliceRequest]:
        return [SliceRequest(s) if isinstance(s, str) else s for s in self.slices]


def build(document: dict[str, Any], kind: type[R], source: str) -> R:
    """Check a decoded document against a request type. Raises UsageError naming the field."""
    if kind is OfferRequest or kind is OfferChange:
        document = {name: value for name, value in document.items() if name not in OFFER_DERIVED}
    try:
        request = msgspec.convert(document, learned(kind))
    except msgspec.ValidationError as error:
        from compute_market.amount_text import as_numbers  # Few documents are wrong as they are.
        from compute_market.field_errors import field_error

        numbers = as_numbers(document)
        if numbers != document:
            return build(numbers, kind, source)
        raise field_error(source, str(error), kind) from error
    except UnicodeEncodeError as error:
        # Half a surrogate pair. What else is wrong with it is told first, if anything is.
        build(_escaped(document), kind, source)
        raise UsageError(f"{source}: {_shown(error.object)} is not text") from error
    for field in ("job_id", "offer_id", "buyer", "provider"):
        text = getattr(request, field, None)
        if isinstance(text, str):
            check_id(text, f"{source}: {field}")
    if isinstance(request, OfferRequest) and isinstance(request.capability.gpu, list):
        raise UsageError(
            f"{source}: capability.gpu: an offer has one GPU model",
            hint="post an offer for each model; a job may name several",
        )
    if isinstance(request, JobRequest) and UNSET not in (request.deadline, request.deadline_secs):
        raise UsageError(
            f"{source}: deadline and deadline_secs are both given", hint="give one of them"
        )
    return request


def _shown(text: str) -> str:
    """Text of a user's file, fit for one line of a message."""
    return clipped(printable(text))


def _escaped(value: Any) -> Any:
    """A decoded document in which every string can be encoded."""
    if isinstance(value, dict):
        return {_escaped(key): _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value
