"""TOML with the line of every key, and with decimals as they were written.

Every command reads the file of its home, and importing `tomllib` takes longer than most of them:
a file of nothing but plain lines is read here. Whatever else a file holds, and what is wrong with
it, is for `tomllib` to say.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from compute_market.errors import UsageError
from compute_market.text import clipped


class DecimalText(Struct, frozen=True, gc=False):
    """The text of a TOML float: a binary float would already have lost the operator's digits."""

    text: str


Document = dict[str, Any]
Lines = dict[tuple[str, ...], int]

_BLANK = " \t"
_PLAIN_DIGITS_MAX = 40


def read(content: bytes | str, source: str) -> tuple[Document, Lines]:
    """Parse TOML; return the document and the line of each key of its first two levels.

    Raises UsageError with one line that names `source` and the line.
    """
    return read_plain(content) or read_any(content, source)


def read_plain(content: bytes | str) -> tuple[Document, Lines] | None:
    """The same of a document in which each line is a section, or a key and its value, or neither.

    None if a line holds anything else: a value written in another way, a dotted key, an error.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
    except UnicodeDecodeError:
        return None
    document: Document = {}
    lines: Lines = {}
    table = document
    prefix: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(_BLANK)
        if not line.isprintable():
            return None
        if not line or line[0] == "#":
            continue
        value: Any
        if line[0] == "[":
            name, value = line[1:-1] if line[-1] == "]" else "", {}
            table, prefix = document, ()
        else:
            name, _, rest = line.partition("=")
            name, value = name.rstrip(_BLANK), _plain_value(rest.strip(_BLANK))
        if value is None or name in table or not _is_bare(name):
            return None
        table[name] = value
        lines[(*prefix, name)] = number
        if line[0] == "[":
            table, prefix = value, (name,)
    return document, lines


def read_any(content: bytes | str, source: str) -> tuple[Document, Lines]:
    """The same of any document."""
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


def _is_bare(name: str) -> bool:
    """Whether a key may stand so without quotation marks."""
    return name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()


def _plain_value(text: str) -> "bool | int | str | DecimalText | list[str] | None":
    """The value that is written there, with a comment or without; None unless it is plain."""
    if text[:1] == '"':
        string, mark, rest = text[1:].partition('"')
        is_plain = mark and "\\" not in string and rest.lstrip(_BLANK)[:1] in ("", "#")
        return string if is_plain else None
    if text[:1] == "[":
        return _plain_strings(text)
    text = text.partition("#")[0].rstrip(_BLANK)
    if text in ("true", "false"):
        return text == "true"
    whole, point, fraction = text.partition(".")
    if (whole[:1] == "0" and whole != "0") or len(text) > _PLAIN_DIGITS_MAX:
        return None
    if not _are_digits(whole) or (point and not _are_digits(fraction)):
        return None
    return _decimal(text) if point else int(text)


def _plain_strings(text: str) -> list[str] | None:
    """The strings of an array that ends on its line, without a comment."""
    inner = text[1:-1].strip(_BLANK)
    if text[-1] != "]":
        return None
    parts = [part.strip(_BLANK) for part in inner.split(",")] if inner else []
    strings = [part[1:-1] for part in parts]
    if any(part != f'"{string}"' for part, string in zip(parts, strings, strict=True)):
        return None
    return None if any('"' in string or "\\" in string for string in strings) else strings


def _are_digits(text: str) -> bool:
    """Whether it is digits with no more than one underscore between two of them."""
    return text.isascii() and all(part.isdigit() for part in text.split("_"))


def _decimal(text: str) -> DecimalText:
    return DecimalText(text.replace("_", ""))


def _line_numbers(text: str, source: str) -> Lines:
    """Map (key,) and (section, key) to their lines: `tomllib` keeps no positions."""
    import tomllib

    lines: Lines = {}
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
