"""The fields of the files that operators write: jobs, offers and changes of offers.

Types, bounds and defaults are those of the types in `compute_market.requests`. What a field means
is said here, once for JSON Schema and for the documents; where nothing is said here, it means what
the help of the option says that gives it.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from msgspec import NODEFAULT, UNSET
from msgspec import inspect as types

from compute_market.requests import (
    DEADLINE_SECS_DEFAULT,
    CapabilityRequest,
    JobRequest,
    OfferChange,
    OfferRequest,
    SliceRequest,
)
from tb_cli.frame.verbs import Parameter

# What a field is without which a file is none.
NEEDED: Final = object()

_CAPABILITY: Final = {
    "cpu_cores": "CPU cores.",
    "gpu": "A GPU model, to the letter. A job may list several, any of which will do.",
    "gpu_count": "GPUs; a model without a number of them is one.",
    "gpu_memory_mb": "Memory of all GPUs together, in MB.",
    "accelerator": "A model of another accelerator, to the letter.",
    "accelerator_memory_mb": "Memory of the accelerator, in MB.",
}
_OFFER: Final = {
    "offer_id": "An id; one is given to an offer without.",
    "provider": "Who offers, and is paid.",
    "units": "Units that it will execute.",
    "price_per_unit": "Quoted price of one unit; 0 is the market price.",
    "fee_pct_ct": "Percent of the price that is paid in CT, the rest in IT.",
    "provider_bond": "CT that the provider locks for each job that it takes.",
    "consumer_bond": "Least CT that a buyer must lock.",
    "capability": "What it has.",
    "reputation": "Advertised first score of a provider that the market does not know; more than "
    "1000 either way counts as 1000.",
    "reputation_multiplier": "The price times this is what offers are ranked by; a decimal with "
    "at most 6 places, within the settings `reputation_multiplier_min` and `_max`.",
    "job_id": "The one job that may take the offer; null lets every job.",
}
# By type and field.
_MEANINGS: Final[dict[type, dict[str, str]]] = {
    CapabilityRequest: _CAPABILITY,
    OfferRequest: _OFFER,
    OfferChange: _OFFER
    | {
        "offer_id": "The offer that is to change.",
        "units": "Units that it will have executed in the end, or so many more (`+5`) or fewer "
        "(`-5`).",
    },
    SliceRequest: {
        "path": "A file, relative to the directory of the job file.",
        "reference": "BLAKE3 digest that it must have, 64 hex digits; it is hashed either way.",
    },
    JobRequest: {
        "job_id": "An id of its own.",
        "buyer": "Who pays.",
        "workload": "What is run over the slices: transcode, inference, gpu_hash or a registered "
        "one.",
        "slices": "The inputs, each a path or an object of a path and its digest.",
        "max_price_per_unit": "Highest quoted price of one unit to pay.",
        "capability": "What it needs.",
        "consumer_bond": "CT that the buyer locks; an offer may ask for more.",
        "provider_bond_min": "Least CT that its provider must lock.",
        "deadline": "Unix second by which all slices must be proven; not beside `deadline_secs`.",
        "deadline_secs": "The same in seconds from its start on.",
        "priority": "Which of waiting jobs starts first.",
        "lane": "Which prices it counts among.",
    },
}
# Defaults that are not of the type, where one of two fields may be given.
_DEFAULTS: Final[dict[tuple[type, str], Any]] = {
    (JobRequest, "deadline_secs"): DEADLINE_SECS_DEFAULT
}


class Field(NamedTuple):
    """One field of a file."""

    name: str
    type: types.Type
    default: Any  # NEEDED where there is none; None or UNSET for a field that may be left out
    meaning: str
    option: str | None  # the option that gives it as well


def fields_of(kind: Any, parameters: Iterable[Parameter]) -> list[Field]:
    """The fields of a type, in its order, given what the verb takes that reads such files."""
    options = {each.name: each for each in parameters if each.spellings}
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return [_field(kind, each, options.get(each.name)) for each in info.fields]


def _field(kind: type, found: types.Field, option: Parameter | None) -> Field:
    default = _DEFAULTS.get((kind, found.name), found.default)
    if default is NODEFAULT:
        default = UNSET
    return Field(
        found.name,
        found.type,
        NEEDED if found.required else default,
        _MEANINGS[kind][found.name],
        option.spellings[0] if option is not None else None,
    )
