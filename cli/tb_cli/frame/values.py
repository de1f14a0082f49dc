"""What a word of the command line stands for, or what is wrong with it in the operator's terms."""

from re import ASCII, fullmatch
from typing import Any

from compute_market.errors import UsageError
from compute_market.text import clipped, did_you_mean, printable
from tb_cli.frame.verbs import Parameter

_PATTERNS = {
    "integer": r"-?[0-9]+",
    "signed": r"[+-]?[0-9]+",
    "number": r"-?[0-9]+(\.[0-9]+)?",
}
_NOUNS = {"integer": "whole number", "signed": "whole number", "number": "number"}
_TECHNICAL = 2**31  # A bound from here on is one of what a number is kept in, not of what is meant.
_DIGITS_MAX = 4300  # Python refuses to read more.


def called(parameter: Parameter) -> str:
    """What an operator knows it by: `--by`, or `JOB` for an argument."""
    if parameter.spellings:
        return parameter.spellings[0]
    return (parameter.metavar or parameter.name.upper()).strip("[]")


def metavar_of(parameter: Parameter) -> str:
    """What its help shows in the place of a value."""
    if parameter.metavar is not None:
        return parameter.metavar
    if parameter.choices:
        return "|".join(parameter.choices)
    if parameter.unit is not None:
        from compute_market.quantities import is_duration

        return "DURATION" if is_duration(parameter.unit) else "SIZE"
    return "TEXT" if parameter.kind == "text" else "N"


def bounds_of(parameter: Parameter) -> str | None:
    """Its range where that says more than that it is a number: `1…64`, `1s…1d`."""
    least, most, unit = parameter.least, parameter.most, parameter.unit
    if least is None or most is None or most >= _TECHNICAL:
        return None
    if unit is None:
        return f"{least}…{most}"
    from compute_market.quantities import is_duration, written

    first = written(least, unit) if is_duration(unit) else str(least)
    return f"{first}…{written(most, unit)}"


def default_shown(parameter: Parameter) -> str | None:
    """What an option is that is not given, as it would be written; None if that is nothing."""
    if not parameter.spellings or parameter.default in (None, False):
        return None
    if parameter.unit is None:
        return str(parameter.default)
    from compute_market.quantities import written

    return written(parameter.default, parameter.unit)


def is_negative(word: str) -> bool:
    """Whether a word is a number below zero, which is spelled like an option and is none."""
    return fullmatch(r"-[0-9]+(\.[0-9]+)?", word, ASCII) is not None


def value_of(parameter: Parameter, text: str) -> Any:
    """What a text stands for. Raises UsageError that names the option or argument."""
    name = called(parameter)
    if parameter.path is not None and not text:
        noun = "directory" if parameter.path == "DIR" else "file"
        spelled = name if parameter.spellings else parameter.path
        may_lack = parameter.spellings and not (parameter.many or parameter.required)
        hint = f"name a {noun}{', or leave it out' if may_lack else ''}"
        raise UsageError(f"{spelled} is empty", hint=hint)
    if parameter.kind in ("text", "choice"):
        for each in chosen_of(parameter, text):
            if each not in parameter.choices:
                raise UsageError(
                    f"{name}: {_shown(each)} is none of {', '.join(parameter.choices)}",
                    hint=did_you_mean(each, parameter.choices),
                )
        return text
    shown = _shown(text)
    value = _number(parameter, text)
    if value is None and parameter.unit is not None:
        return _quantity(parameter, text, name, shown)
    if value is None:
        noun = _NOUNS[parameter.kind]
        raise UsageError(f"{name}: {shown} is no {noun}", hint="digits 0-9 alone")
    return _within(parameter, value, name, shown)


def chosen_of(parameter: Parameter, text: str) -> list[str]:
    """What a text chooses of the choices there are, if there are any."""
    if not parameter.choices:
        return []
    return [each.strip() for each in text.split(",")] if parameter.many else [text]


def _shown(text: str) -> str:
    return f"{clipped(printable(text), 60)!a}"


def _number(parameter: Parameter, text: str) -> int | float | None:
    """Of what Python takes for a number, only what everybody reads as the same one."""
    if len(text) > _DIGITS_MAX or not fullmatch(_PATTERNS[parameter.kind], text, ASCII):
        return None
    return float(text) if parameter.kind == "number" else int(text)


def _quantity(parameter: Parameter, text: str, name: str, shown: str) -> int | float:
    from compute_market.quantities import in_unit, is_duration, ways_to_write

    unit = str(parameter.unit)
    value: int | float | None = in_unit(text, unit)
    if value is None and parameter.kind == "number" and unit == "seconds":
        thousandths = in_unit(text, "milliseconds")
        value = None if thousandths is None else thousandths / 1000
    if value is None:
        noun = "duration" if is_duration(unit) else "size"
        raise UsageError(f"{name}: {shown} is no {noun}", hint=ways_to_write(unit))
    return _within(parameter, float(value) if parameter.kind == "number" else value, name, shown)


def _within(parameter: Parameter, value: int | float, name: str, shown: str) -> int | float:
    least, most = parameter.least, parameter.most
    if (least is not None and value < least) or (most is not None and value > most):
        unit = f" {parameter.unit}" if parameter.unit else ""
        raise UsageError(f"{name}: {shown.strip(chr(39))} is not {least}…{most}{unit}")
    return value
