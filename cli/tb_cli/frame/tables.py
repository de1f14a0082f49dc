"""Tables for eyes.

Ids, keys and numbers are never broken. Columns come in order of rank: where it is narrow those that
do not fit are left out, the last first, and named below.
"""

from collections.abc import Sequence
from typing import Any

from tb_cli.frame.times import local, relative

# Text that may go on over several lines.
_LONG = frozenset({"capability", "command", "detail", "path", "problem", "what", "who"})
_LONG_MIN = 24
_GAP = 2
_LAST_WORDS = ("_at", "deadline", "last_change")


def for_eyes(column: str, value: Any, now_ms: int) -> Any:
    """A value as people read it: instants of the log as local time, others as time ago."""
    if isinstance(value, int) and not isinstance(value, bool):
        if column == "at_ms":
            return local(value)
        if column.endswith(_LAST_WORDS):
            return relative(value, now_ms // 1000)
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, color: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(no_color=not color, highlight=False)
    cells = list(zip(*rows, strict=True))
    widths = fitting(columns, cells, console.width)
    table = Table(
        box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold" if color else ""
    )
    for column, width in widths.items():
        numeric = all(cell.lstrip("-").isdigit() or cell == "-" for cell in cells[column])
        head = _head(columns[column])
        justify: Any = "right" if numeric else "left"
        table.add_column(head, width=width, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[column]) for column in widths))
    console.print(table)
    if left_out := [name for place, name in enumerate(columns) if place not in widths]:
        console.print(f"left out: {', '.join(left_out)}", style="dim" if color else None)


def _head(column: str) -> str:
    return "time" if column == "at_ms" else column.replace("_", " ")


def fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """The width of each column that there is room for, by its place; the first has room always."""
    from rich.cells import cell_len

    full = [
        max(map(cell_len, (*_head(name).split(), *column)))
        for name, column in zip(columns, cells, strict=True)
    ]
    found: dict[int, int] = {}
    left = width
    for place, name in enumerate(columns):
        least = min(full[place], _LONG_MIN) if name in _LONG else full[place]
        if not found or least + _GAP <= left:
            found[place] = least
            left -= least + (_GAP if len(found) > 1 else 0)
    for place in found:
        more = min(max(left, 0), full[place] - found[place])
        found[place] += more
        left -= more
    return found
