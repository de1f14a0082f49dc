"""The cells of a table for eyes: what they say, how wide they are, and how they are folded."""

from collections.abc import Iterator
from typing import Any

from tb_cli.frame.listing.columns import Column
from tb_cli.frame.render import shown
from tb_cli.frame.times import local, relative, utc_text

# What waits is bold: yellow can hardly be read on white, nor any other colour of the eight on all
# light and dark terminals.
_BOLD, _GREEN, _RED = "1", "32", "31"
_COLORS = {
    **dict.fromkeys(("active", "open", "completed", "acknowledged", "revealed", "paid"), _GREEN),
    **dict.fromkeys(("pending", "queued", "exhausted", "committed", "proposed", "held"), _BOLD),
    **dict.fromkeys(("failed", "cancelled", "withdrawn", "barred", "expired", "refused"), _RED),
}


def cell(column: Column, value: Any, now_ms: int, *, utc: bool) -> str:
    """A value as people read it."""
    kind = column.kind
    if value is None or value == "" or (kind == "at" and value == 0):  # Nothing happened in 1970.
        return "-"
    if kind in ("at", "due"):
        return utc_text(value * 1000) if utc else relative(value, now_ms // 1000)
    if kind == "ms":
        return utc_text(value) if utc else local(value)
    return shown(value)


def colored(column: Column, text: str, padded: str) -> str:
    """A cell, already padded, in the colour of what it says."""
    color = _COLORS.get(text) if column.kind == "state" else None
    return padded if color is None else f"\x1b[{color}m{padded}\x1b[0m"


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes that has nothing but what prints."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def padded(text: str, width: int, *, right: bool) -> str:
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def folded(text: str, width: int) -> list[str]:
    """The text in lines of at most so many columns, broken between words where there are any."""
    if width_of(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if width_of(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *whole, line = _pieces(word, width)
        lines += whole
    return [*lines, line]


def _pieces(word: str, width: int) -> Iterator[str]:
    """A word in pieces, all but the last as long as there is room for."""
    piece, taken = "", 0
    for character in word:
        wide = _width_of(character)
        if piece and taken + wide > width:
            yield piece
            piece, taken = "", 0
        piece += character
        taken += wide
    yield piece


def _width_of(character: str) -> int:
    from unicodedata import combining, east_asian_width

    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1
