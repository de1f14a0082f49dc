"""What is known of the terminal that a list is told on."""

import os
import sys

_WIDTH, _HEIGHT = 80, 24


def is_one() -> bool:
    return sys.stdout.isatty()


def is_capable() -> bool:
    """Whether it does more than print one line below the other."""
    return is_one() and os.environ.get("TERM", "dumb") != "dumb"


def can_show(marks: str) -> bool:
    """Whether its encoding has these characters."""
    try:
        marks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def size() -> tuple[int, int]:
    """Columns and lines; what nobody says is taken for what was usual once.

    The variables COLUMNS and LINES win, unless they are no numbers above 0.
    """
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return (
        _variable("COLUMNS") or columns or _WIDTH,
        _variable("LINES") or lines or _HEIGHT,
    )


def _variable(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
