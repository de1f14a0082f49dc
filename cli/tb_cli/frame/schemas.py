"""JSON Schema of the files that operators write, and full examples of them.

What a schema accepts is read, and what is read it accepts, but for what no schema can say: a key
that is given twice, and numbers that are written with a point or an exponent. Beyond reading, it
has the bounds that hold in every market; those that a setting moves are not in it.
"""

import os
from collections.abc import Callable
from typing import Any, Final

from msgspec import json
from msgspec.json import schema_components

from compute_market.amount_text import FIELDS
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.records import ID_LENGTH_MAX
from compute_market.requests import (
    OFFER_DERIVED,
    CapabilityRequest,
    JobRequest,
    OfferRequest,
    SliceRequest,
)
from tb_cli.frame import installed
from tb_cli.frame.file_fields import fields_of
from tb_cli.frame.render import write_json, write_line
from tb_cli.frame.verbs import Parameter, parameters_of

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_ID: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": ID_LENGTH_MAX,
    "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:@+-]*$",
}
IDS: Final = ("job_id", "offer_id", "buyer", "provider")
# The least and the most, where the market takes less than the type holds.
BOUNDS: Final[dict[tuple[type, str], dict[str, int]]] = {
    (OfferRequest, "units"): {"minimum": 1},
    (OfferRequest, "provider_bond"): {"minimum": 1},
    (OfferRequest, "consumer_bond"): {"minimum": 1},
    (OfferRequest, "fee_pct_ct"): {"maximum": 100},
    (JobRequest, "consumer_bond"): {"minimum": 1},
    (JobRequest, "provider_bond_min"): {"minimum": 1},
}
_MULTIPLIER: Final = {
    "anyOf": [
        # Above 0, at most 1.
        {
            "type": "string",
            "pattern": r"^(?=.*[1-9])(0{1,12}(\.[0-9]{1,6})?|0{0,11}1(\.0{1,6})?)$",
        },
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    ],
    "default": "1",
}
# What a schema says of itself, and the file with an example.
_FILES: Final[dict[type, tuple[str, str]]] = {
    OfferRequest: ("An offer, as `tb-cli compute offer post` reads it", "offer.json"),
    JobRequest: ("A job, as `tb-cli compute submit` reads it", "job.json"),
}
_NAMES: Final = {"CapabilityRequest": "Capability", "SliceRequest": "Slice"}


def tell(kind: type, verb: Callable[..., Any], *, schema: bool, given: bool) -> None:
    """Print the schema of the files of a verb, or an example of one.

    Raises UsageError for a file that is `given` as well, which nobody would read.
    """
    option = "--schema" if schema else "--example"
    if given:
        raise UsageError(f"{option} prints, and reads no file")
    if schema:
        write_json(schema_of(kind, parameters_of(verb)))
    else:
        write_line(example_of(kind).rstrip("\n"))


def schema_of(kind: Any, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """The schema of one document of a file, given what the verb takes that reads it."""
    _, found = schema_components([kind], ref_template="#/$defs/{name}")
    parts: dict[str, Any] = {}
    for part in (kind, *_parts_of(kind)):
        parts[part.__name__] = _finished(part, found[part.__name__], parameters)
    root = {"title": _FILES[kind][0]} | parts.pop(kind.__name__)
    if kind is OfferRequest:
        told = {"description": "Printed by `tb-cli compute offer show`; it is not read."}
        root["properties"] |= dict.fromkeys(sorted(OFFER_DERIVED), told)
        # An offer has one model.
        gpu = parts["CapabilityRequest"]["properties"]["gpu"]
        gpu["anyOf"] = [each for each in gpu["anyOf"] if each.get("type") != "array"]
    else:
        root["not"] = {"required": ["deadline", "deadline_secs"]}
    definitions = {_NAMES[name]: part for name, part in parts.items()}
    definitions["Digits"] = {
        "description": "An amount as text, as --json-amounts string prints it.",
        "type": "string",
        "pattern": _up_to(AMOUNT_MAX),
    }
    document: dict[str, Any] = _renamed({"$schema": DIALECT} | root | {"$defs": definitions})
    return document


def example_of(kind: type) -> str:
    """A complete file that can be handed in as it is, wherever one stands."""
    name = _FILES[kind][1]
    directory = installed.directory("workloads", "examples/workloads", name)
    with open(os.path.join(directory, name), encoding="utf-8") as file:
        text = file.read()
    if kind is JobRequest:
        for slice_name in _slices_in(text):
            path = json.encode(os.path.join(directory, slice_name)).decode()
            text = text.replace(json.encode(slice_name).decode(), path)
    return text


def _slices_in(text: str) -> list[str]:
    return [each if isinstance(each, str) else each["path"] for each in json.decode(text)["slices"]]


def _parts_of(kind: type) -> tuple[Any, ...]:
    return (CapabilityRequest, SliceRequest) if kind is JobRequest else (CapabilityRequest,)


def _finished(kind: Any, part: dict[str, Any], parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """A definition with what its fields mean, what ids are, and comments."""
    properties = part["properties"]
    for field in fields_of(kind, parameters):
        found: dict[str, Any] = properties[field.name]
        found |= BOUNDS.get((kind, field.name), {})
        if field.name in IDS:
            found = _with_ids(found)
        elif field.name == "reputation_multiplier":
            found = dict(_MULTIPLIER)
        elif field.name == "capability":
            found.pop("default")  # Nothing of it.
        elif field.name in FIELDS:
            found = _or_digits(found)
        properties[field.name] = {"description": field.meaning} | found
    for name in ("title", "description"):  # Of the code, not of the file.
        part.pop(name, None)
    return part | {"patternProperties": {"^_": {"description": "A comment."}}}


def _with_ids(found: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in found:
        return found | {"anyOf": [_with_ids(each) for each in found["anyOf"]]}
    return _ID | found if found.get("type") == "string" else found


def _or_digits(found: dict[str, Any]) -> dict[str, Any]:
    """The same of an amount, which may be text as well."""
    default = {"default": found.pop("default")} if "default" in found else {}
    digits: dict[str, Any] = {"$ref": "#/$defs/Digits"}
    if found.get("minimum"):
        digits |= {"not": {"const": "0"}}
    return {"anyOf": [found, digits], **default}


def _up_to(most: int) -> str:
    """A pattern of the decimal numbers from 0 to `most`, without zeros in front."""
    digits = str(most)
    ways = ["0", f"[1-9][0-9]{{0,{len(digits) - 2}}}"]
    for place, digit in enumerate(digits):
        least = 1 if place == 0 else 0
        if int(digit) > least:
            rest = len(digits) - place - 1
            any_rest = f"[0-9]{{{rest}}}" if rest else ""
            ways.append(f"{digits[:place]}[{least}-{int(digit) - 1}]{any_rest}")
    return f"^({'|'.join([*ways, digits])})$"


def _renamed(value: Any) -> Any:
    """The same in words that a reader of the schema knows, and with patterns of ECMAScript."""
    if isinstance(value, dict):
        return {name: _renamed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if isinstance(value, str):
        if value.startswith("#/$defs/"):
            name = value.rpartition("/")[2]
            return f"#/$defs/{_NAMES.get(name, name)}"
        return value.replace(r"\Z", "$")
    return value
