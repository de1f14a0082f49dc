"""What a bulk command leaves undone: the file of it, and the word when it breaks off."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from compute_market.errors import MarketError
from tb_cli.frame.guard import Terminated, whole
from tb_cli.frame.render import note
from tb_cli.frame.results import Result

if TYPE_CHECKING:
    from tb_cli.frame.bulk import Given, Outcome, Place, Report


class Source(Protocol):
    """Where the items of a bulk command come from, as far as it matters when it ends."""

    @property
    def total(self) -> int | None:
        """How many there are, if that is known."""

    def again(self, given: "Given[Any]") -> str:
        """The line to hand in to have that one again; empty if there is none."""

    def forget(self, place: "Place") -> None:
        """Everything up to that place was dealt with."""

    def left(self) -> Iterator[str]:
        """The lines of what was not dealt with, read or not."""


class Left:
    """The file of what failed and what was not tried, one line each.

    It is opened before anything is done, and lies `beside` the home in that directory. Raises
    UsageError if it cannot be. Without a source there is nothing that could be handed in again: it
    is empty.
    """

    def __init__(self, path: str, source: Source | None, beside: str) -> None:
        self._path = path
        self._result = Result(path, beside=beside)
        self._source = source
        self._lines: list[str] = []
        self._is_written = False

    def dealt_with(
        self, part: "list[Given[Any]]", outcomes: "list[Outcome]", said: "Report"
    ) -> None:
        """Keep what has failed of some items."""
        for given, outcome in zip(part, outcomes, strict=True):
            if self._source is None:
                return
            failed = outcome.is_undone or said.is_failure(outcome)
            if failed and (line := self._source.again(given)):
                self._lines.append(line)
            if given.place is not None:
                self._source.forget(given.place)

    def end(self, *, is_cut: bool) -> None:
        """Write what failed, and where the reading was cut short, what was not tried either."""
        if is_cut:
            self.break_off()
        else:
            self.write()

    def break_off(self) -> int | None:
        """Write what failed and all that is left; returns how many were not tried, if known.

        What was not read yet is read on for that, until a signal ends it.
        """
        tried = len(self._lines)
        is_whole = False
        try:
            for line in () if self._source is None else self._source.left():
                self._lines.append(line)
            is_whole = True
        except MarketError as error:
            note(f"warning: {error.message}: what follows is not in {self._path}")
        except (KeyboardInterrupt, Terminated):
            note(f"what was not read yet is not in {self._path}")
        self.write()
        return len(self._lines) - tried if is_whole else None

    def write(self) -> None:
        """Write the file, once. That it cannot be is a warning: the work is done."""
        with whole:
            whole.settle()
            if self._is_written:
                return
            self._is_written = True
            try:
                self._result.write("".join(f"{line}\n" for line in self._lines))
            except MarketError as error:
                note(f"warning: {error.message}: what failed is not in it")


def broke_off(
    error: BaseException, said: "Report | None", left: Left | None, total: int | None
) -> None:
    """Say how far a command came that ends with an error or a signal."""
    not_tried = None if left is None else left.break_off()
    if said is None or said.is_single:
        return
    done = said.dealt_with
    if not_tried is not None:
        total = done + not_tried
    if done or not isinstance(error, MarketError):
        word = "stopped" if isinstance(error, Exception) else "interrupted"
        of = "" if total is None else f" of {total}"
        told = "" if said.count >= done else f", {said.count} of them told"
        again = "" if done == total and told else "; run it again"
        note(f"{word} after {done}{of}{told}{again}")
