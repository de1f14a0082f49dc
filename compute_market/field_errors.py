"""What is wrong with a field of a document, in the words of whoever wrote it.

msgspec says it in those of Python. Only what is wrong imports this.
"""

from collections.abc import Iterator
from re import match, search, sub
from typing import Any, Final, get_args

from msgspec.structs import fields

from compute_market.errors import UsageError
from compute_market.text import clipped, did_you_mean, printable

# What a problem begins with that is said of a field without a colon.
_CLAIMS: Final = ("is ", "has ")
_NOUNS: Final = {
    "int": "a whole number",
    "float": "a number with a decimal point",
    "decimal": "a number with a decimal point",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class FieldError(UsageError):
    """One field of a document is wrong: `problem` says in what way."""

    def __init__(
        self, source: str, place: str, problem: str, field: str, hint: str | None = None
    ) -> None:
        self.problem = problem
        name = f"{source}: {place}" if place else source
        super().__init__(self.told_of(name), hint=hint, field=field)

    def told_of(self, name: str) -> str:
        """What is wrong, of what an operator knows the field by."""
        return f"{name}{' ' if self.problem.startswith(_CLAIMS) else ': '}{self.problem}"


def field_error(source: str, message: str, kind: type) -> UsageError:
    """What msgspec says of a document of this kind, as an error that knows the field if one is
    named.
    """
    problem, _, path = message.partition(" - at `$")
    place = path.rstrip("`").removeprefix(".")
    if missing := search("missing required field `(.*)`", problem):
        name = missing.group(1)
        return FieldError(source, _joined(place, name), "is missing", _head(_joined(place, name)))
    if unknown := search("unknown field `(.*)`", problem):
        name = unknown.group(1)
        where = f"{source}: {_shown(place)}" if place else source
        return UsageError(
            f"{where}: unknown field {_shown(name)}", hint=_meant(name, _within(kind, place), kind)
        )
    if own := match("([a-z_]+): (.*)", problem):  # What a record checks itself, of a field of its.
        place, problem = _joined(place, own.group(1)), own.group(2)
    if not place:
        return UsageError(f"{source}: {_in_words(problem, '', kind)}")
    return FieldError(source, _shown(place), _in_words(problem, place, kind), _head(place))


def _in_words(problem: str, place: str, kind: type) -> str:
    if chosen := match("Invalid enum value (.*)", problem):
        choices = _choices(_within(kind, place.rpartition(".")[0]), place.rpartition(".")[2])
        return f"{_shown(chosen.group(1))} is none of {', '.join(choices)}"
    if length := match(r"Expected `(str|array)` of length (>=|<=) (\d+)", problem):
        if length.group(2) == ">=":
            return "is empty"
        what = "characters" if length.group(1) == "str" else "entries"
        return f"has more than {length.group(3)} {what}"
    if bound := match(r"Expected `int` (>=|<=) (-?\d+)", problem):
        return f"is {'below' if bound.group(1) == '>=' else 'above'} {bound.group(2)}"
    text = sub(r"`([a-z]+(?: \| [a-z]+)*)`", lambda found: _terms(found.group(1)), problem)
    return _shown(sub("^Expected", "expected", text))


def _terms(kinds: str) -> str:
    """Kinds in words; where others will do, null goes without saying."""
    names = kinds.split(" | ")
    return " or ".join(
        _NOUNS.get(each, each) for each in names if each != "null" or len(names) == 1
    )


def _within(kind: type, place: str) -> Any:
    """The type of what lies at a place, if it has fields: `capability`, `slices[0]`."""
    name = place.partition("[")[0]
    for field in fields(kind):
        if field.encode_name == name:
            return next(filter(_has_fields, _parts(field.type)), None)
    return None if place else kind


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for each in get_args(kind):
        yield from _parts(each)


def _has_fields(kind: Any) -> bool:
    return hasattr(kind, "__struct_fields__")


def _choices(kind: Any, name: str) -> list[str]:
    """The values that a field may have."""
    found = next((each.type for each in fields(kind) if each.encode_name == name), None)
    return [each for each in _parts(found) if isinstance(each, str)]


def _meant(name: str, at: Any, kind: type) -> str | None:
    """The field that an unknown one may stand for; one of the capability may be meant as well."""
    known = [each.encode_name for each in fields(at)] if at is not None else []
    inner = _within(kind, "capability") if at is kind else None
    dotted = {each.encode_name: f"capability.{each.encode_name}" for each in fields(inner or kind)}
    if inner is not None and name.lower().replace("-", "_") in dotted:
        return f"did you mean {dotted[name.lower().replace('-', '_')]}?"
    return did_you_mean(name, known)


def _joined(place: str, name: str) -> str:
    return _shown(f"{place}.{name}" if place else name)


def _head(place: str) -> str:
    return place.partition("[")[0]


def _shown(text: str) -> str:
    """Text of a user's file, fit for one line of a message."""
    return clipped(printable(text))
