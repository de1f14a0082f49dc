"""What is wrong with a document or a field of it, in the words of whoever wrote it.

msgspec says it in those of Python. Only what is wrong imports this.
"""

from collections.abc import Iterator
from re import findall, match, search, sub
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
# A choice of more than these is not told in full; `did_you_mean` names the nearest.
_CHOICES_SHOWN_MAX: Final = 12


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


def no_json(error: Exception) -> str:
    """What a text is that the decoder could not read, and why: the end of a sentence."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"no JSON: byte {error.start} is not UTF-8"
    said = str(error)
    if said.startswith("Input data was truncated"):
        return "no JSON: it ends too early"
    return f"no JSON: {_shown(said.rpartition('malformed: ')[2])}"


def field_error(source: str, message: str, kind: Any) -> UsageError:
    """What msgspec says of a document of this kind, as an error that knows the field if one is
    named.
    """
    problem, _, path = message.partition(" - at `")
    # What a mapping calls its values is not said.
    place = path.partition("$")[2].rstrip("`").replace("[...]", "").removeprefix(".")
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
    hint = None
    if chosen := match("Invalid enum value (.*)", problem):
        choices = _choices(kind, place)
        problem = f"{_shown(chosen.group(1))} is none of "
        if len(choices) <= _CHOICES_SHOWN_MAX:
            problem += ", ".join(choices)
        else:
            problem += f"the {len(choices)} there are"
            hint = did_you_mean(chosen.group(1).strip("'"), choices)
    else:
        problem = _in_words(problem, place, kind)
    return FieldError(source, _shown(place), problem, _head(place), hint)


def matching(pattern: str) -> str:
    """Of what a text must be to match a pattern, for a sentence to end with."""
    rest = match(r"\^\[A-Za-z0-9_\]\[A-Za-z0-9_([^\]]*)\]", pattern.strip("'\""))
    if rest is None:
        return "another form"
    return f"letters, digits and _{rest.group(1)}, the first a letter, digit or _"


def _in_words(problem: str, place: str, kind: Any) -> str:
    if pattern := match("Expected `str` matching regex (.*)", problem):
        return f"is not of {matching(pattern.group(1))}"
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


def _within(kind: Any, place: str) -> Any:
    """The type of what lies at a place, if it has fields: `capability`, `slices[0]`, `a.b`."""
    found = _at(kind, place)
    return None if found is None else next(filter(_has_fields, _parts(found)), None)


def _at(kind: Any, place: str) -> Any:
    """The type of what lies at a place; None for a place that it does not have."""
    for name in findall(r"[A-Za-z_]\w*", place):
        found = [
            field.type
            for each in filter(_has_fields, _parts(kind))
            for field in fields(each)
            if field.encode_name == name
        ]
        if not found:
            return None
        kind = found[0]
    return kind


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for each in get_args(kind):
        yield from _parts(each)


def _has_fields(kind: Any) -> bool:
    return hasattr(kind, "__struct_fields__")


def _choices(kind: Any, place: str) -> list[str]:
    """The values that what lies at a place may have."""
    return [str(each) for each in _parts(_at(kind, place)) if isinstance(each, str | int)]


def _meant(name: str, at: Any, kind: Any) -> str | None:
    """The field that an unknown one may stand for; one of the capability may be meant as well."""
    known = [each.encode_name for each in fields(at)] if at is not None else []
    inner = _within(kind, "capability") if at is kind else None
    asked = name.lower().replace("-", "_")
    if inner is not None and asked in {each.encode_name for each in fields(inner)}:
        return f"did you mean capability.{asked}?"
    return did_you_mean(name, known)


def _joined(place: str, name: str) -> str:
    return _shown(f"{place}.{name}" if place else name)


def _head(place: str) -> str:
    return place.partition("[")[0]


def _shown(text: str) -> str:
    """Text of a user's file, fit for one line of a message."""
    return clipped(printable(text))
