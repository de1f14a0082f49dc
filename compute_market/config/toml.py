"""TOML with the line of every key, and with decimals as they were written.

`tomllib` is imported only when there is something to parse, because every command imports this
module.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from compute_market.errors import UsageError
from compute_market.text import clipped


class DecimalText(Struct, frozen=True, gc=False):
    """The text of a TOML float: a binary float would already have lost the operator's digits."""

    text: str


def read(content: bytes | str, source: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Parse TOML; return the document and the line of each key of its first two levels."""
    import tomllib

    try:
        text = content if isinstance(content, str) else content.decode()
        return tomllib.loads(text, parse_float=_decimal), _line_numbers(text, source)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise UsageError(f"{source}:{line}: not UTF-8 text: {byte}") from None
    except tomllib.TOMLDecodeError as error:
        # The position is only in the text: "… (at line 2, column 7)", "… (at end of document)".
        problem, _, place = str(error).removesuffix(")").rpartition(" (at ")
        place = place.removeprefix("line ").partition(",")[0]
        line = int(place) if place.isdigit() else text.rstrip("\n").count("\n") + 1
        found = text.split("\n")[line - 1].strip()
        hint = "the line is " + ascii(clipped(found, 60))
        raise UsageError(f"{source}:{line}: not valid TOML: {problem}", hint=hint) from None
    except (RecursionError, ValueError):
        _line_numbers(text, source)  # It fails on the same statement, and knows its line.
        raise


def _decimal(text: str) -> DecimalText:
    return DecimalText(text.replace("_", ""))


def _line_numbers(text: str, source: str) -> dict[tuple[str, ...], int]:
    """Map (key,) and (section, key) to their lines: `tomllib` keeps no positions."""
    import tomllib

    lines: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    for first, statement in statements(text):
        try:
            parsed: Any = tomllib.loads(statement, parse_float=_decimal)
        except tomllib.TOMLDecodeError:
            continue
        except RecursionError:
            raise UsageError(f"{source}:{first}: nested too deeply") from None
        except ValueError:
            raise UsageError(f"{source}:{first}: a number of more than 4300 digits") from None
        prefix = header
        if statement.startswith("["):
            prefix, header = (), tuple(parsed)
        for name, value in parsed.items():
            lines.setdefault((*prefix, name), first)
            for key in value if isinstance(value, dict) else ():
                lines.setdefault((*prefix, name, key), first)
    return lines


# Whatever may hide the end of a line, or be one.
_TOKENS = (
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotes may stand before those that end it
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
)


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a valid document, each with the number of its first line.

    A statement goes to the end of a line, but for lines within its brackets and strings.
    """
    import re

    depth, line, first, begun = 0, 1, 1, 0
    for found in re.finditer(_TOKENS, text, re.DOTALL):
        token = found.group()
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        elif token != "\n":
            line += token.count("\n")
        else:
            line += 1
            if depth <= 0:
                statement = text[begun : found.end()].strip(" \t")
                if statement[:1] not in ("#", "\n", "\r"):
                    yield first, statement
                depth, first, begun = 0, line, found.end()
    if text[begun:].strip():
        yield first, text[begun:].strip(" \t") + "\n"
