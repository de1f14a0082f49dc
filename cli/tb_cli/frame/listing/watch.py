"""A list that is drawn on a terminal again and again, each time over the one before."""

from collections.abc import Iterable, Iterator

from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing import terminal
from tb_cli.frame.listing.columns import Row
from tb_cli.frame.times import local

_HOME, _TO_END_OF_LINE, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
# Lines that no row has: what is said above, the heads, and what is said below.
_OTHERS = 4


class Screen:
    """What a terminal shows; no more is read than it has room for."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._lines: list[str] = []
        self._more = False

    def pages(self, pages: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """As many rows as there is room for."""
        room = max(1, terminal.size()[1] - _OTHERS)
        self._more = False
        for page in pages:
            yield page[:room]
            if len(page) > room:
                self._more = True
                return
            room -= len(page)

    def take(self, text: str) -> None:
        self._lines += text.splitlines()

    def draw(self) -> None:
        """Write it in one piece, so that nothing flickers."""
        import sys

        said = f"every {self._every_s:g}s, {local(now_ms())}"
        height = terminal.size()[1]
        lines = [said, *self._lines]
        if self._more or len(lines) >= height:
            lines = [*lines[: height - 2], "and more"]
        self._lines.clear()
        text = "".join(f"{line}{_TO_END_OF_LINE}\n" for line in lines)
        sys.stdout.write(_HOME + text + _TO_END)
        sys.stdout.flush()
