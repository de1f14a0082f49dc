"""A JSON list taken apart into its elements, as its lines are read."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from compute_market.errors import UsageError

# A text, which may be without its end, or what parts elements.
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]')
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")
_PARTING: Final = frozenset(b",]")
_END: Final = ord("]")


class Element(NamedTuple):
    """The text of one element, right or wrong, and where it stands. Lines count from 1."""

    text: bytes
    first: int
    start: int  # the bytes before it in its first line
    last: int  # the line of the comma or bracket that follows it
    behind: int  # the bytes up to and with that
    number: int  # among those that begin in its first line, from 1


def elements(
    file: str,
    first: tuple[int, bytes],
    lines: Iterator[tuple[int, bytes]],
    bytes_max: int,
    *,
    behind: int = 0,
) -> Iterator[Element]:
    """The elements of the list that begins in the first line, or goes on there after `behind`.

    One is read at a time. Raises UsageError for a list that does not end, for what follows it in
    its last line, and for a line or an element of more bytes than there may be.
    """
    (number, line), at = first, behind or first[1].index(b"[") + 1
    part = _Part()
    depth = 1
    while True:
        if len(line) > bytes_max:
            raise UsageError(f"{file} line {number}: a list has more than {bytes_max} bytes in it")
        for token in _TOKEN.finditer(line, at):
            stop = token.start()
            mark = line[stop]
            if mark in _OPENING:
                depth += 1
            elif depth > 1:
                depth -= mark in _CLOSING
            elif mark in _PARTING:
                part.add(number, line, at, stop)
                part.check(file, bytes_max)
                at = token.end()
                # Only an empty list has nothing before its end.
                if part.text or mark != _END or part.is_among_others or behind:
                    yield part.element(number, at)
                part = _Part(part)
                if mark == _END:
                    if line[at:].strip():
                        raise UsageError(f"{file} line {number}: more stands behind the list")
                    return
        part.add(number, line, at, len(line))
        part.check(file, bytes_max)
        following = next(lines, None)
        if following is None:
            what = "the list" if depth == 1 else "an element"
            begin = first[0] if depth == 1 else part.first
            raise UsageError(f"{file}: {what} that begins in line {begin} does not end")
        (number, line), at = following, 0


class _Part:
    """What was read of an element."""

    def __init__(self, before: "_Part | None" = None) -> None:
        self.text = bytearray()
        self.first = self.start = 0
        self.is_among_others = before is not None
        self._before = (0, 0) if before is None else (before.first, before.number)

    @property
    def number(self) -> int:
        line, number = self._before
        return number + 1 if line == self.first else 1

    def add(self, number: int, line: bytes, at: int, stop: int) -> None:
        """Take this part of a line too; blanks before the element are none of it."""
        text = line[at:stop]
        if not self.text:
            kept = text.lstrip()
            self.first, self.start = number, at + len(text) - len(kept)
            text = kept
        self.text += text

    def check(self, file: str, bytes_max: int) -> None:
        """Raise UsageError for more bytes than there may be."""
        if len(self.text) > bytes_max:
            raise UsageError(f"{file} line {self.first}: has more than {bytes_max} bytes")

    def element(self, last: int, behind: int) -> Element:
        text = bytes(self.text.rstrip())
        return Element(text, self.first, self.start, last, behind, self.number)
