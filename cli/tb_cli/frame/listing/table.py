"""A table for eyes, written as its rows come.

The widths are those of a first page; what comes later and is wider makes its own row wider. Ids,
keys and numbers are never broken. Columns come in order of rank: where it is narrow those that do
not fit are left out, the last first, and named below where there is room for that.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tb_cli.frame.listing.cells import cell, colored, folded, padded, width_of
from tb_cli.frame.listing.columns import Column

_FIRST_ROWS = 200
_FIRST_S = 0.2
_LONG_MIN = 24
# From so many columns of a terminal on it is told what was left out.
_TOLD_FROM = 20
_GAP = "  "
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class Table:
    """Rows for eyes; `width` is that of the terminal, None where there is none.

    It holds back what comes before `_FIRST_ROWS` rows are there, or `_FIRST_S` seconds are over.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        write: Callable[[str], object],  # lines, with their line breaks
        *,
        now_ms: int,
        width: int | None,
        color: bool = False,
        utc: bool = False,
    ) -> None:
        self._columns = columns
        self._write = write
        self._now_ms = now_ms
        self._width = width
        self._color = color
        self._utc = utc
        self._first: list[list[str]] | None = []
        self._until = time.monotonic() + _FIRST_S
        self._fitted: dict[int, int] = {}

    def rows(self, found: Sequence[Sequence[Any]]) -> None:
        """Take rows, and write what need not wait for others."""
        texts = [
            [
                cell(column, value, self._now_ms, utc=self._utc)
                for column, value in zip(self._columns, row, strict=True)
            ]
            for row in found
        ]
        if self._first is None:
            self._write_rows(texts)
            sys.stdout.flush()
            return
        self._first += texts
        if len(self._first) >= _FIRST_ROWS or time.monotonic() > self._until:
            self._begin()
            sys.stdout.flush()

    def begin(self) -> None:
        """Write what there is, below heads of its widths if they are not there yet."""
        if self._first:
            self._begin()

    def end(self) -> None:
        self.begin()
        out = [each.head for place, each in enumerate(self._columns) if place not in self._fitted]
        if out and self._first is None and self._width is not None and self._width >= _TOLD_FROM:
            lines = folded(f"left out: {', '.join(out)}", self._width)
            self._write("".join(f"{self._marked(_DIM, line)}\n" for line in lines))

    def _begin(self) -> None:
        """Write the heads and the first rows: they say how wide the columns are."""
        first, self._first = self._first or [], None
        self._fitted = self._fit([list(texts) for texts in zip(*first, strict=True)])
        heads = [
            padded(self._columns[place].head, width, right=self._is_right(place))
            for place, width in self._fitted.items()
        ]
        self._write(f"{self._marked(_BOLD, _GAP.join(heads).rstrip())}\n")
        self._write_rows(first)

    def _fit(self, texts: list[list[str]]) -> dict[int, int]:
        """The width of each column that there is room for, by its place; of the first always.

        One that says nothing does not take the room that was too little for one before it.
        """
        full = [
            max(width_of(column.head), *map(width_of, cells))
            for column, cells in zip(self._columns, texts, strict=True)
        ]
        if self._width is None:
            return dict(enumerate(full))
        found: dict[int, int] = {}
        left = self._width
        is_short = False
        for place, column in enumerate(self._columns):
            least = min(full[place], _LONG_MIN) if _is_long(column) else full[place]
            gap = len(_GAP) if found else 0
            if found and (least + gap > left or (is_short and _says_nothing(texts[place]))):
                is_short = True
            else:
                found[place] = least
                left -= least + gap
        for place in found:
            more = min(max(left, 0), full[place] - found[place])
            found[place] += more
            left -= more
        return found

    def _write_rows(self, rows: Sequence[Sequence[str]]) -> None:
        self._write("".join([self._lines(row) for row in rows]))

    def _lines(self, row: Sequence[str]) -> str:
        """A row, over several lines where a long text does not fit."""
        parts = {
            place: folded(row[place], width)
            if self._width is not None and _is_long(self._columns[place])
            else [row[place]]
            for place, width in self._fitted.items()
        }
        lines = []
        for number in range(max(map(len, parts.values()))):
            texts = [
                self._padded(place, part[number] if number < len(part) else "")
                for place, part in parts.items()
            ]
            lines.append(f"{_GAP.join(texts).rstrip()}\n")
        return "".join(lines)

    def _padded(self, place: int, text: str) -> str:
        found = padded(text, self._fitted[place], right=self._is_right(place))
        return colored(self._columns[place], text, found) if self._color else found

    def _is_right(self, place: int) -> bool:
        return self._columns[place].kind == "number"

    def _marked(self, mark: str, text: str) -> str:
        return f"{mark}{text}{_PLAIN}" if self._color else text


def _says_nothing(texts: Sequence[str]) -> bool:
    return set(texts) <= {"0", "-"}


def _is_long(column: Column) -> bool:
    return column.kind in ("long", "record")
