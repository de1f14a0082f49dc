"""Many items in one command: act chunk by chunk, say what became of each.

One outcome line per item, in order, once its chunk is committed. A single item ends with its own
exit code; several with 0, the common code if all failed alike, else 7.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from compute_market.errors import (
    BusyError,
    IntegrityError,
    InternalError,
    MarketError,
    NotFoundError,
    exit_code,
)
from compute_market.store.txn import Txn
from compute_market.text import is_nearest
from tb_cli.frame.guard import whole
from tb_cli.frame.render import (
    emit,
    end_elements,
    note,
    report,
    write_element,
    write_json,
    write_jsonl,
)
from tb_cli.frame.session import Session

if TYPE_CHECKING:
    from tb_cli.frame.left import Left, Source

# Items after which what was read of the store is given back.
_ITEMS_MAPPED = 1000
_CHUNK = 1000

Item = TypeVar("Item")


class Outcome(Struct, frozen=True):
    """What became of one item: its line, its document, and the error if it failed."""

    name: str
    text: str
    document: dict[str, Any]
    error: MarketError | None = None
    is_named: bool = True  # the text says which item it is about
    is_undone: bool = False  # it went well, and was rolled back with the others
    detail: str = ""  # what the error says beyond the text, if it is not told beside it

    def is_failure(self, *, ignore_not_found: bool) -> bool:
        ignored = ignore_not_found and isinstance(self.error, NotFoundError)
        return self.error is not None and not ignored


# Where an item stands in what was given: places come in order, and only their source reads them.
Place = tuple[int, ...]


class Given(Struct, Generic[Item], frozen=True):
    """One item as it was asked for, or what is wrong with it."""

    name: str  # what its outcome is known by if it fails
    item: Item | None
    error: MarketError | None = None
    place: Place | None = None


class Report:
    """Prints outcomes as they come and works out the exit code.

    `total` is the number of items where not every outcome is added. With `single` there is one,
    which ends with its own code. With `aside`, failures are told on stderr as they come instead of
    by a line among the results. Memory stays flat.
    """

    def __init__(
        self,
        session: Session,
        *,
        single: bool,
        jsonl: bool = False,
        ignore_not_found: bool = False,
        aside: bool = False,
        total: int | None = None,
    ) -> None:
        self._first: MarketError | None = None
        self._reasons: Counter[str] = Counter()
        self._changed = 0
        self._hints: dict[str, str | None] = {}  # of each reason; None where they differ
        self._codes: set[int] = set()
        self._session = session
        self._total = total
        self.count = 0
        self.dealt_with = 0  # of which some are told only after others
        self.is_cut = False  # whether something stopped the reading of more
        self._failed = 0
        self._jsonl = jsonl
        self._ignore_not_found = ignore_not_found
        self.is_single = single
        self._aside = aside
        self._as_json = session.json or jsonl
        self._is_list = session.json and not jsonl and not single
        self._documents = 0  # of that list

    def is_failure(self, outcome: Outcome) -> bool:
        return outcome.is_failure(ignore_not_found=self._ignore_not_found)

    def add(self, outcome: Outcome) -> None:
        self.count += 1
        self._changed += bool(outcome.document.get("changed"))
        if outcome.error is not None and self.is_failure(outcome):
            self._count_failure(outcome.error)
            if self._aside:
                if not self.is_single:
                    report(outcome.error, self._as_json)
                return
            if self.is_single and self._as_json and not self._jsonl:
                return  # The error object on stderr says it all.
        if not self._as_json:
            emit(self._session, None, _line(outcome, alone=self.is_single))
        elif self._jsonl:
            write_jsonl(self._document(outcome))
        elif self.is_single:
            write_json(self._document(outcome))
        else:
            write_element(self._document(outcome), first=self._documents == 0)
            self._documents += 1

    def _count_failure(self, error: MarketError) -> None:
        self._failed += 1
        self._first = self._first or error
        reason = error.reason or error.token
        self._reasons[reason] += 1
        self._codes.add(error.exit_code)
        hint = None if is_nearest(error.hint) else error.hint  # That is told with its item.
        if self._hints.setdefault(reason, hint) != hint:
            self._hints[reason] = None

    def close(self) -> None:
        """Make a whole list of what --json has printed, also where a run breaks off."""
        if self._is_list:
            end_elements(empty=self._documents == 0)
            self._is_list = False

    def end(self) -> int:
        """Print what is left to say, and return the exit code."""
        self.close()
        if self._first is None:
            if self.count > 1 and self._changed and sys.stderr.isatty():
                from tb_cli.frame import summary

                note(summary.of_done(self.count, self._changed))
            return 0
        if self.is_single:
            return report(self._first, self._as_json)
        from tb_cli.frame import summary

        total = self.count if self._total is None else self._total
        hints = {} if self._aside or self._as_json else self._hints
        for line in summary.of_failures(self._failed, total, self._reasons, hints):
            note(line)
        alike = len(self._codes) == 1 and self._failed == total
        return self._codes.pop() if alike else exit_code("partial")

    def _document(self, outcome: Outcome) -> dict[str, Any]:
        document = outcome.document
        if outcome.error is not None:
            document = document | {"error": outcome.error.document()}
        return document | {"dry_run": True} if self._session.dry_run else document


def run(
    session: Session,
    items: Iterable[Given[Item]],
    act: Callable[[Txn, Item], Outcome],
    *,
    id_field: str = "job_id",
    refusal: str | None = None,
    prepare: Callable[[Item], None] | None = None,
    then: Callable[[list[Outcome]], list[Outcome]] | None = None,
    chunk: int | None = None,
    atomic: bool = False,
    jsonl: bool = False,
    ignore_not_found: bool = False,
    failed_to: str | None = None,
    source: "Source | None" = None,
) -> int:
    """Act on every item, `chunk` of them per transaction (1000), and print the outcomes.

    `act` decides before it writes, so an item that fails leaves the others alone; it is then known
    by its name, in the field `id_field` of its document, and if there is a `refusal` its line
    begins so where a reason is known: `refused job j-1: deadline`. `prepare` does the slow work of
    an item before the transaction, or raises what is wrong with it; `then` does what follows on a
    transaction, and may add to its outcomes. With `atomic` all items share one transaction and one
    failure undoes them all. Returns the exit code; the rest is as in `in_chunks`.
    """

    def deal(part: list[Given[Item]]) -> list[Outcome]:
        ready = part if prepare is None else [_prepared(each, prepare) for each in part]
        named = id_field, refusal
        found = commit(session, ready, act, named, atomic=atomic, ignored=ignore_not_found)
        return found if then is None else then(found)

    return in_chunks(
        session,
        items,
        deal,
        # A dry run is one transaction too: what is rolled back could not be built upon.
        size=None if atomic or session.dry_run else chunk or _CHUNK,
        jsonl=jsonl,
        ignore_not_found=ignore_not_found,
        failed_to=failed_to,
        source=source,
    )


def in_chunks(
    session: Session,
    items: Iterable[Given[Item]],
    deal_with: Callable[[list[Given[Item]]], list[Outcome]],
    *,
    size: int | None,
    jsonl: bool = False,
    ignore_not_found: bool = False,
    failed_to: str | None = None,
    source: "Source | None" = None,
    selected: str | None = None,
    fail_empty: bool = False,
) -> int:
    """Deal with so many items at a time, and print the outcomes. Returns the exit code.

    `selected` says what there is none of where the items were selected: they are many then, even if
    there is one, and each is asked for once those before it were dealt with. None is then an error
    with `fail_empty`.

    The items come from the `source`. However the run ends, the file `failed_to` then has what
    failed and what was not tried; a dry run leaves it alone.
    """
    left = None if failed_to is None or session.dry_run else _left_of(session, failed_to, source)
    said: Report | None = None
    try:
        given = iter(items)
        ahead = list(islice(given, 2)) if selected is None else []
        said = Report(
            session, single=len(ahead) == 1, jsonl=jsonl, ignore_not_found=ignore_not_found
        )
        _go_through(session, _kept_up(chain(ahead, given), said), deal_with, size, said, left)
        if left is not None:
            left.end(is_cut=said.is_cut)
    except BaseException as error:
        from tb_cli.frame.left import broke_off

        broke_off(error, said, left, None if source is None else source.total)
        raise
    if not said.count:
        if fail_empty:
            raise NotFoundError(f"no {selected}", reason="empty")
        note("nothing given, nothing done" if selected is None else f"no {selected}")
    return said.end()


def _left_of(session: Session, path: str, source: "Source | None") -> "Left":
    from tb_cli.frame.left import Left

    return Left(path, source, session.home.path)


def _go_through(
    session: Session,
    items: Iterator[Given[Item]],
    deal_with: Callable[[list[Given[Item]]], list[Outcome]],
    size: int | None,
    said: Report,
    left: "Left | None",
) -> None:
    mapped = 0
    with closing(said):
        while True:
            with whole:
                if not (part := list(islice(items, size))):
                    return
                outcomes = deal_with(part)
                said.dealt_with += len(part)
                if left is not None:
                    left.dealt_with(part, outcomes, said)
            for outcome in outcomes:
                said.add(outcome)
            sys.stdout.flush()
            mapped += len(part)
            if mapped >= _ITEMS_MAPPED and session.is_open:
                session.let_go()
                mapped = 0


def _kept_up(items: Iterable[Given[Item]], said: Report) -> Iterator[Given[Item]]:
    """The items. What stops the reading of them is one more that fails, once any was acted on."""
    try:
        yield from items
    except MarketError as error:
        if not said.count:
            raise
        said.is_cut = True
        yield Given("input", None, error)


def _prepared(given: Given[Item], prepare: Callable[[Item], None]) -> Given[Item]:
    if given.item is not None:
        try:
            prepare(given.item)
        except BusyError:
            raise  # It is none of the item's.
        except MarketError as error:
            return replace(given, error=error.with_traceback(None))
    return given


def _line(outcome: Outcome, *, alone: bool) -> str:
    """The line of an outcome. Among others it must say all, and which item it is about."""
    if alone:
        return outcome.text
    text = outcome.text if outcome.is_named else f"{outcome.name}: {outcome.text}"
    return f"{text}: {outcome.detail}" if outcome.detail else text


class _Abort(Exception):
    """Rolls an atomic run back; its argument is what had been found."""


def commit(
    session: Session,
    part: list[Given[Item]],
    act: Callable[[Txn, Item], Outcome],
    named: tuple[str, str | None],
    *,
    atomic: bool = False,
    ignored: bool = False,
    select: Callable[[Txn], list[Given[Item]]] | None = None,
) -> list[Outcome]:
    """The outcomes of some items in one transaction; in none if all of them are wrong.

    Those that a transaction is to `select` itself become the `part`.
    """

    id_field, refusal = named

    def fail(given: Given[Item], error: MarketError) -> Outcome:
        from tb_cli.frame.failures import failed  # Most often nothing fails.

        # What is wrong with options may say nothing of the item that they ask for.
        if given.item is None and not error.message.startswith(given.name):
            return failed(given.name, error, f"{given.name}: {error.message}", id_field=id_field)
        if refusal is None or error.reason is None or given.item is None:
            return failed(given.name, error, id_field=id_field)
        text = f"{refusal} {given.name}: {error.reason}"
        outcome = failed(given.name, error, text, id_field=id_field)
        return replace(outcome, detail=error.message)

    def one(txn: Txn | None, given: Given[Item]) -> Outcome:
        if given.error is not None or given.item is None or txn is None:
            error = given.error or InternalError(f"{given.name}: nothing to act on")
            return fail(given, error)
        writes = txn.writes
        try:
            return act(txn, given.item)
        except MarketError as error:
            if txn.writes != writes:
                if isinstance(error, IntegrityError):
                    raise  # Damage is met anywhere, and nothing of this transaction is kept.
                message = f"{given.name}: failed after it had written: {error}"
                raise InternalError(message) from error
            # Without its traceback, which would keep every frame of every failure alive.
            return fail(given, error.with_traceback(None))

    def action(txn: Txn | None) -> list[Outcome]:
        if select is not None and txn is not None:
            part[:] = select(txn)
        outcomes = [one(txn, given) for given in part]
        if atomic and any(each.is_failure(ignore_not_found=ignored) for each in outcomes):
            raise _Abort(outcomes)
        whole.settle()  # What is committed now is known to be, whatever signal comes.
        return outcomes

    try:
        if select is None and all(given.error is not None for given in part):
            return action(None)
        return session.update(action)
    except _Abort as abort:
        from tb_cli.frame.undone import undone

        return [undone(outcome) for outcome in abort.args[0]]
