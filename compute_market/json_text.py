"""JSON as people write it: comments left out, each key once, and in words what is wrong with it.

It is slow, and asked where a quicker way did not know what to make of a text.
"""

import json
from decimal import Decimal
from typing import Any, Final

from compute_market.text import clipped, printable

# How what the decoder says begins, and what a user is told.
_WORDS: Final = {
    "Expecting value": "expected a value",
    "Expecting property name": "expected a name in double quotes",
    "Expecting ':'": "expected a colon",
    "Expecting ','": "expected a comma or the end",
    "Extra data": "nothing may follow here",
    "Unterminated string": "this text does not end",
    "Invalid control character": "a line break or control character stands in a text",
    "Invalid \\": "there is no such escape in a text",
    "Illegal trailing comma": "a comma stands before the end",
    "Unexpected UTF-8 BOM": "a byte order mark (BOM) stands before it",
}


class MalformedError(Exception):
    """A text that is no JSON, and where: the line and the column, from 1, if that is known."""

    def __init__(self, words: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(words)
        self.place = place


def decoded(data: bytes) -> Any:
    """What a text holds; keys that begin with `_` are left out. Raises MalformedError."""
    try:
        return json.loads(
            data.decode().rstrip(),
            object_pairs_hook=_unique,
            parse_float=_decimal,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise MalformedError("what stands here is not UTF-8", place) from error
    except RecursionError as error:
        raise MalformedError("nested too deep") from error
    except json.JSONDecodeError as error:
        words = next((w for begin, w in _WORDS.items() if error.msg.startswith(begin)), "no JSON")
        raise MalformedError(words, (error.lineno, error.colno)) from error
    except ValueError as error:
        raise MalformedError("a number has too many digits") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key.startswith("_"):
            continue
        if key in found:
            raise MalformedError(f"the key {_shown(ascii(key))} is given twice")
        found[key] = value
    return found


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError as error:
        raise MalformedError(f"{_shown(text)} is out of range") from error


def _constant(name: str) -> Any:
    raise MalformedError(f"{name} is not a JSON number")


def _shown(text: str) -> str:
    """Text of a user's file, fit for one line of a message."""
    return clipped(printable(text))
