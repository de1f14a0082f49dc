"""Ids that a command acts on: arguments, and lines of standard input."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from compute_market.errors import InternalError, UsageError
from compute_market.records import check_id
from compute_market.text import one_line
from tb_cli.frame.bulk import Given, Place

if TYPE_CHECKING:
    from tb_cli.frame.lines import Lines

# Ids among which one that comes again is noticed.
SEEN_MAX = 100_000


class Ids:
    """Ids from arguments, `-` standing for lines of stdin, which are read as they are taken.

    Their order is kept, and an id that comes again within the next `SEEN_MAX` is left out; acting
    on one twice changes nothing. A line that is no id is one that fails. Raises UsageError for an
    argument that is none, before anything is done.
    """

    def __init__(self, arguments: Iterable[str], what: str, *, keep: bool = False) -> None:
        self._arguments = list(arguments)
        self._what = what
        self._keep = keep
        self._lines: Lines | None = None  # of stdin, once they are read
        self._next = 0  # the argument that is not dealt with
        for argument in self._arguments:
            if argument != "-":
                check_id(argument, what)

    @property
    def total(self) -> int | None:
        """How many there are, if that is known."""
        return None if "-" in self._arguments else len(dict.fromkeys(self._arguments))

    def __iter__(self) -> Iterator[Given[str]]:
        seen: dict[str, None] = {}
        for each in self._each():
            if each.item is not None:
                if each.item in seen:
                    continue
                seen[each.item] = None
                if len(seen) > SEEN_MAX:
                    del seen[next(iter(seen))]
            yield each

    def at_once(self) -> list[str]:
        """The same as a list. Raises UsageError also for a line of stdin that is no id."""
        found = []
        for each in self:
            if each.item is None:
                raise each.error or InternalError(f"{each.name} is no id")
            found.append(each.item)
        return found

    def again(self, given: Given[Any]) -> str:
        """What to hand in to have that one again."""
        # A line that is no id is none the next time either.
        return given.name if given.error is None else f"# {one_line(given.error.message)}"

    def forget(self, place: Place) -> None:
        """Everything up to that place was dealt with."""
        index, *line = place
        self._next = index if line else index + 1
        if line and self._lines is not None:
            self._lines.forget(line[0])

    def left(self) -> Iterator[str]:
        """What was not dealt with, read or not."""
        for argument in self._arguments[self._next :]:
            if argument != "-":
                yield argument
                continue
            for line in self._stdin().left():
                text = one_line(line.decode(errors="backslashreplace"))
                if text and not text.startswith("#"):
                    yield text

    def _each(self) -> Iterator[Given[str]]:
        for index, argument in enumerate(self._arguments):
            if argument != "-":
                yield Given(argument, argument, None, (index,))
                continue
            from tb_cli.frame.lines import WORDS_MAX, text_of

            for number, line in self._stdin().numbered():
                source = f"stdin line {number}"
                try:
                    text = text_of(line, source, WORDS_MAX).strip()
                    if text and not text.startswith("#"):
                        id_ = check_id(text, f"{source}: {self._what}")
                        yield Given(text, id_, None, (index, number))
                except UsageError as error:
                    yield Given(source, None, error, (index, number))

    def _stdin(self) -> "Lines":
        if self._lines is None:
            from tb_cli.frame.lines import WORDS_MAX, Lines  # One id in a shell loop reads none.

            self._lines = Lines("-", WORDS_MAX, keep=self._keep)
        return self._lines
