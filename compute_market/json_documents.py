"""JSON that people and programs hand in: one object, one per line, or a list of them.

Strict where money is involved: keys given twice and malformed text are errors that name the file
and the line. Keys that begin with `_` are comments.
"""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import Struct

from compute_market.errors import UsageError
from compute_market.learned import learned

if TYPE_CHECKING:
    from compute_market.json_lists import Element

DOCUMENT_BYTES_MAX = 64 * 2**20

_NUMBERS_AS_WRITTEN: Final = msgspec.json.Decoder(learned(dict), float_hook=Decimal)

Numbered = tuple[int, bytes]  # a line, counted from 1


class NotJsonError(UsageError):
    """What was given for JSON does not even begin as it."""


class Document(Struct, frozen=True, gc=False):
    """One JSON object as it was handed in, or what is wrong with it."""

    source: str  # as errors name it: the file, and the line of one that holds many
    fields: dict[str, Any]
    error: UsageError | None = None
    lines: tuple[int, int] = (0, 0)  # the first and the last that it takes up, from 1
    # Of an element of a list, in bytes: where it begins in its first line, and where in its last
    # what follows the comma or bracket behind it.
    columns: tuple[int, int] | None = None
    text: bytes = b""  # of such an element


# What is asked for by options alone.
NO_FILE = Document("options", {})


def parse(data: bytes, source: str) -> dict[str, Any]:
    """Decode one JSON object of a hand-written file; comment keys are dropped.

    Raises UsageError naming `source` for anything that is not one object with unique keys;
    `NotJsonError` if it does not even begin as one. A syntax error names the line.
    """
    return _parsed(data, source, lambda line, column: f"{source}: line {line}, column {column}")


def documents(
    lines: Iterable[bytes], source: str, *, behind: int = 0, goes_on: bool = False
) -> Iterator[Document]:
    """The JSON objects of a file: one, however it is laid out, one per line, or those of lists.

    Reads as the caller takes them, so a file may hold any number of lines. A line that is wrong is
    one wrong document among the others, also the first where the next one begins an object, and so
    is an element of a list. A list may be laid out in any way; no line of it may have more than
    `DOCUMENT_BYTES_MAX` bytes. A file without any holds none. With `behind` the first line was
    dealt with up to there, which is behind an element; what `goes_on` is not the beginning of its
    file, and no single object. Raises UsageError for a single object that is wrong, and for a list
    that has no end.
    """
    numbered = enumerate(lines, 1)
    first = next(numbered, None) if behind else _next(numbered)
    if first is None:
        return
    if behind:
        number, line = first
        if line[behind - 1 : behind] == b",":
            yield from _elements(source, first, numbered, behind)
        first = number, line[behind:] if line[behind - 1 : behind] != b"," else b""
    elif goes_on:
        pass  # The loop tells what it is.
    elif first[1].startswith(BOM_UTF8) and _is_list(first[1].removeprefix(BOM_UTF8)):
        raise UsageError(
            f"{source} line {first[0]}: a byte order mark (BOM) stands before the list"
        )
    elif not _is_list(first[1]):
        document = _document(source, *first)
        second = _next(numbered)
        is_many = second is not None and second[1].lstrip().startswith(b"{")
        if second is None or (document.error is not None and not is_many):
            yield _object(source, first, chain(() if second is None else (second,), numbered))
            return
        yield document
        first = second
    for number, line in chain((first,), numbered):
        if _is_list(line):
            yield from _elements(source, (number, line), numbered)
        elif line.strip():
            yield _document(source, number, line)


def _next(numbered: Iterator[Numbered]) -> Numbered | None:
    """The next line that is not blank."""
    return next(((number, line) for number, line in numbered if line.strip()), None)


def _is_list(line: bytes) -> bool:
    return line.lstrip().startswith(b"[")


def _object(file: str, first: Numbered, others: Iterable[Numbered]) -> Document:
    """One object that may have many lines, blank ones among them."""
    text = bytearray(b"\n" * (first[0] - 1) + first[1])
    last = first[0]
    for number, line in others:
        text += b"\n" * (number - last - 1) + line
        last = number
        if len(text) > DOCUMENT_BYTES_MAX:
            raise too_long(file)
    return Document(file, parse(bytes(text), file), None, (first[0], last))


def _document(file: str, number: int, line: bytes) -> Document:
    source = f"{file} line {number}"
    try:
        if len(line) > DOCUMENT_BYTES_MAX:
            raise too_long(source)
        fields = _parsed(line, source, lambda _, column: f"{source}, column {column}")
        return Document(source, fields, None, (number, number))
    except UsageError as error:
        return Document(source, {}, error, (number, number))


def _elements(
    file: str, first: Numbered, lines: Iterator[Numbered], behind: int = 0
) -> Iterator[Document]:
    from compute_market.json_lists import elements  # Few files are lists.

    for each in elements(file, first, lines, DOCUMENT_BYTES_MAX, behind=behind):
        yield _of_element(file, each)


def _of_element(file: str, element: "Element") -> Document:
    source = f"{file} line {element.first}"
    if element.number > 1:
        source += f", element {element.number}"

    def at(line: int, column: int) -> str:
        if line == 1:
            return f"{source}, column {element.start + column}"
        return f"{source}: line {element.first + line - 1}, column {column}"

    lines, columns = (element.first, element.last), (element.start, element.behind)
    try:
        fields = _parsed(element.text, source, at)
    except UsageError as error:
        return Document(source, {}, error, lines, columns, element.text)
    return Document(source, fields, None, lines, columns, element.text)


def too_long(source: str) -> UsageError:
    return UsageError(f"{source}: has more than {DOCUMENT_BYTES_MAX} bytes")


def _parsed(data: bytes, source: str, at: Callable[[int, int], str]) -> dict[str, Any]:
    """One object. Syntax errors begin with `at` the line and the column, others with `source`."""
    plain = _plain_object(data)
    if plain is not None:
        return plain
    from compute_market.json_text import MalformedError, decoded

    try:
        document = decoded(data)
    except MalformedError as error:
        begins = data.lstrip()[:1] in (b"{", b"[")
        kind = UsageError if begins else NotJsonError
        if error.place is None:
            raise kind(f"{source}: {error}") from error
        words = str(error) if begins else str(error).replace("a value", "a JSON object")
        raise kind(f"{at(*error.place)}: {words}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{source}: expected a JSON object, got {_kind(document)}")
    return document


def _plain_object(data: bytes) -> dict[str, Any] | None:
    """What most files hold: an object without escapes and comments, each key once; else None.

    msgspec keeps the last of several equal keys and says nothing. So the colons are counted:
    outside of texts there is one for each key.
    """
    if b"\\" in data or b'"_' in data:
        return None
    try:
        document = _NUMBERS_AS_WRITTEN.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError, RecursionError):
        return None
    keys = 0
    texts: list[str] = []
    left: list[Any] = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            keys += len(value)
            texts += value
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            texts.append(value)
    colons = sum(text.count(":") for text in texts)
    return document if data.count(b":") == keys + colons else None


def _kind(document: Any) -> Literal["a list", "a string", "a number", "true or false", "null"]:
    if isinstance(document, list):
        return "a list"
    if isinstance(document, str):
        return "a string"
    if isinstance(document, bool):
        return "true or false"
    return "null" if document is None else "a number"
