"""The forms of a list: a table for eyes, lines in a pipe, documents."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tb_cli.frame import guard
from tb_cli.frame.listing.asked import Asked
from tb_cli.frame.listing.columns import Column, Row
from tb_cli.frame.render import end_elements, shown, write_element, write_jsonl, write_line

# Values that are told as they are, but for a text that does not print.
_PLAIN = frozenset((str, int))
# Characters that are written at once: so many go into a pipe in one piece, and lines of several
# processes that share it do not mix.
_PIECE = 4000


class Lines:
    """Tab-separated lines, of ids one alone."""

    def __init__(self, columns: Sequence[Column], *, header: bool = False) -> None:
        self._tabs = len(columns) - 1
        self._form = "\t".join(["%s"] * len(columns))
        if header:
            write_line("\t".join(each.name for each in columns))

    def rows(self, found: Iterable[Sequence[Any]]) -> None:
        lines: list[str] = []
        length = 0
        for row in found:
            line = self._line(row)
            length += len(line) + 1
            if length > _PIECE and lines:
                write_line("\n".join(lines))
                guard.stop_if_lost()
                lines, length = [], len(line) + 1
            lines.append(line)
        if lines:
            write_line("\n".join(lines))
            guard.stop_if_lost()

    def _line(self, row: Sequence[Any]) -> str:
        if None in row or "" in row:
            row = ["-" if value is None or value == "" else value for value in row]
        if _PLAIN.issuperset(map(type, row)):
            line = self._form % (*row,)
            # One look at all of it: the tabs between the values are the only ones.
            if line.expandtabs(1).isprintable() and line.count("\t") == self._tabs:
                return line
        return "\t".join(map(shown, row))

    def end(self) -> None:
        pass


class Csv:
    """Values separated by commas, quoted where they need it, below the names of the columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        import csv

        self._writer: Any = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow([each.name for each in columns])

    def rows(self, found: Iterable[Row]) -> None:
        for row in found:
            self._writer.writerow(["" if _is_nothing(value) else shown(value) for value in row])
            guard.stop_if_lost()

    def end(self) -> None:
        pass


def _is_nothing(value: Any) -> bool:
    """Whether there is no value, or one that nothing is in."""
    return value is None or (isinstance(value, dict | list | tuple | str) and not value)


class Json:
    """One document, an array, written as it comes."""

    def __init__(self) -> None:
        self._empty = True

    def rows(self, found: Iterable[Row]) -> None:
        for row in found:
            write_element(row, first=self._empty)
            self._empty = False
            guard.stop_if_lost()

    def end(self) -> None:
        end_elements(empty=self._empty)


class JsonLines:
    """One document per line."""

    def rows(self, found: Iterable[Row]) -> None:
        for row in found:
            write_jsonl(row)
            guard.stop_if_lost()

    def end(self) -> None:
        pass


def lines_or_documents(asked: Asked) -> Lines | Csv | Json | JsonLines:
    """What tells a list in any form but a table."""
    if asked.output == "json":
        return Json()
    if asked.output == "jsonl":
        return JsonLines()
    if asked.output == "csv":
        return Csv(asked.columns)
    return Lines(asked.columns, header=asked.header and asked.output == "tsv")
