"""Many items in one command: read their ids, act chunk by chunk, say what became of each.

One outcome line per item, in order, printed once its chunk is committed. A single item ends with
its own exit code; several with 0, the common code if all failed alike, else 7.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from compute_market.errors import (
    IntegrityError,
    InternalError,
    MarketError,
    NotFoundError,
    UsageError,
    exit_code,
)
from compute_market.records import check_id
from compute_market.store.txn import Txn
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
    from tb_cli.frame.results import Result

# Items after which what was read of the store is given back.
_ITEMS_MAPPED = 1000

Item = TypeVar("Item")

# Ids among which one that comes again is noticed.
SEEN_MAX = 100_000


class Outcome(Struct, frozen=True):
    """What became of one item: its line, its document, and the error if it failed."""

    name: str
    text: str
    document: dict[str, Any]
    error: MarketError | None = None
    is_named: bool = True  # the text says which item it is about


class Given(Struct, Generic[Item], frozen=True):
    """One item as it was asked for, or what is wrong with it."""

    name: str  # what its outcome is known by if it fails
    item: Item | None
    error: MarketError | None = None


class Report:
    """Prints outcomes as they come and works out the exit code.

    `total` is the number of items where not every outcome is added. With `single` there is one,
    which ends with its own code. With `aside`, failures are told on stderr as they come instead of
    by a line among the results. Memory stays flat, but for the names that failed, which are kept if
    `keep_names`.
    """

    def __init__(
        self,
        session: Session,
        *,
        single: bool,
        jsonl: bool = False,
        ignore_not_found: bool = False,
        aside: bool = False,
        keep_names: bool = False,
        total: int | None = None,
    ) -> None:
        self._names: list[str] | None = [] if keep_names else None
        self._first: MarketError | None = None
        self._tokens: Counter[str] = Counter()
        self._codes: set[int] = set()
        self._session = session
        self._total = total
        self.count = 0
        self._failed = 0
        self._single = single
        self._jsonl = jsonl
        self._ignore_not_found = ignore_not_found
        self._aside = aside
        self._is_list = session.json and not jsonl and not single
        self._documents = 0  # of that list

    def is_failure(self, outcome: Outcome) -> bool:
        ignored = self._ignore_not_found and isinstance(outcome.error, NotFoundError)
        return outcome.error is not None and not ignored

    def add(self, outcome: Outcome) -> None:
        self.count += 1
        failed = self.is_failure(outcome)
        if failed and outcome.error is not None:
            self._failed += 1
            self._first = self._first or outcome.error
            self._tokens[outcome.error.token] += 1
            self._codes.add(outcome.error.exit_code)
            if self._names is not None:
                self._names.append(outcome.name)
        as_json = self._jsonl or self._session.json
        if failed and self._aside:
            if outcome.error is not None and not self._single:
                report(outcome.error, as_json)
        elif not as_json:
            emit(self._session, None, _line(outcome, alone=self._single))
        elif self._jsonl:
            write_jsonl(self._document(outcome))
        elif not self._single:
            write_element(self._document(outcome), first=self._documents == 0)
            self._documents += 1
        elif not failed:  # The error object on stderr says it all.
            write_json(self._document(outcome))

    def close(self) -> None:
        """Make a whole list of what --json has printed, also where a run breaks off."""
        if self._is_list:
            end_elements(empty=self._documents == 0)
            self._is_list = False

    def end(self) -> int:
        """Print what is left to say, and return the exit code."""
        self.close()
        if self._first is None:
            return 0
        if self._single:
            return report(self._first, self._session.json or self._jsonl)
        counted = ", ".join(f"{count} {token}" for token, count in self._tokens.items())
        total = self.count if self._total is None else self._total
        note(f"{self._failed} of {total} failed: {counted}")
        alike = len(self._codes) == 1 and self._failed == total
        return self._codes.pop() if alike else exit_code("partial")

    def write_failed(self, result: "Result") -> None:
        """Write the names that failed, one per line, ready to be read by `-`.

        What was done is done, so that a failure is a warning.
        """
        try:
            result.write("".join(f"{name}\n" for name in self._names or ()))
        except MarketError as error:
            note(f"warning: {error.message}")

    def _document(self, outcome: Outcome) -> dict[str, Any]:
        document = outcome.document
        if outcome.error is not None:
            document = document | {"error": outcome.error.document()}
        return document | {"dry_run": True} if self._session.dry_run else document


def read_ids(arguments: Iterable[str], what: str) -> Iterator[Given[str]]:
    """Ids from arguments, `-` standing for lines of stdin, which are read as they are taken.

    Their order is kept, and an id that comes again within the next `SEEN_MAX` is left out; acting
    on one twice changes nothing. A line that is no id is one that fails. Raises UsageError for an
    argument that is none, before anything is done.
    """
    given = list(arguments)
    for argument in given:
        if argument != "-":
            check_id(argument, what)
    seen: dict[str, None] = {}
    for each in _each_id(given, what):
        if each.item is not None:
            if each.item in seen:
                continue
            seen[each.item] = None
            if len(seen) > SEEN_MAX:
                del seen[next(iter(seen))]
        yield each


def ids_at_once(arguments: Iterable[str], what: str) -> list[str]:
    """The same as a list. Raises UsageError also for a line of stdin that is no id."""
    found = []
    for each in read_ids(arguments, what):
        if each.item is None:
            raise each.error or InternalError(f"{each.name} is no id")
        found.append(each.item)
    return found


def _each_id(arguments: list[str], what: str) -> Iterator[Given[str]]:
    for argument in arguments:
        if argument != "-":
            yield Given(argument, argument)
            continue
        from tb_cli.frame import files  # One id in a shell loop reads and writes none.

        for number, line in enumerate(files.lines("-"), 1):
            source = f"stdin line {number}"
            try:
                text = _decoded(line, number).strip()
                if text and not text.startswith("#"):
                    yield Given(text, check_id(text, f"{source}: {what}"))
            except UsageError as error:
                yield Given(source, None, error)


def run(
    session: Session,
    items: Iterable[Given[Item]],
    act: Callable[[Txn, Item], Outcome],
    *,
    id_field: str = "job_id",
    prepare: Callable[[Item], None] | None = None,
    chunk: int = 1000,
    atomic: bool = False,
    jsonl: bool = False,
    ignore_not_found: bool = False,
    failed_to: str | None = None,
) -> int:
    """Act on every item, `chunk` of them per transaction, and print the outcomes.

    Items are taken as they are needed, so there may be any number. `act` decides before it writes,
    so an item that fails leaves the others alone; it is then known by its name, in the field
    `id_field` of its document. `prepare` does the slow work of an item before the transaction, or
    raises what is wrong with it. With `atomic` all items share one transaction and one failure
    undoes them all; the ids that failed go to the file `failed_to`. Returns the exit code.
    """
    source = iter(items)
    ahead = list(islice(source, 2))
    said = Report(
        session,
        single=len(ahead) == 1,
        jsonl=jsonl,
        ignore_not_found=ignore_not_found,
        keep_names=failed_to is not None,
    )
    rest = _kept_up(chain(ahead, source), said)
    # A dry run is one transaction too: what is rolled back could not be built upon.
    size = None if atomic or session.dry_run else chunk
    mapped = 0
    kept = None if failed_to is None or session.dry_run else _result(failed_to)
    with closing(said), kept or nullcontext():
        while part := [_prepared(each, prepare) for each in islice(rest, size)]:
            for outcome in _commit(session, part, act, id_field, said if atomic else None):
                said.add(outcome)
            sys.stdout.flush()
            mapped += len(part)
            if mapped >= _ITEMS_MAPPED:
                session.let_go()
                mapped = 0
        if kept is not None:
            said.write_failed(kept)
    return said.end()


def _kept_up(items: Iterable[Given[Item]], said: Report) -> Iterator[Given[Item]]:
    """The items. What stops the reading of them is one more that fails, once any was acted on."""
    try:
        yield from items
    except MarketError as error:
        if not said.count:
            raise
        yield Given("input", None, error)


def _prepared(given: Given[Item], prepare: Callable[[Item], None] | None) -> Given[Item]:
    if prepare is not None and given.item is not None:
        try:
            prepare(given.item)
        except MarketError as error:
            return replace(given, error=error.with_traceback(None))
    return given


def failed(
    name: str,
    error: MarketError,
    text: str | None = None,
    *,
    id_field: str = "job_id",
    changed: bool = False,
) -> Outcome:
    """The outcome of an item that could not be acted on, or not to the end."""
    document = {id_field: name, "changed": changed}
    # What is not there is named by the error that says so, and so is a line that is wrong.
    is_named = (
        text is not None or isinstance(error, NotFoundError) or error.message.startswith(name)
    )
    return Outcome(name, text or error.message, document, error, is_named)


def _line(outcome: Outcome, *, alone: bool) -> str:
    """The line of an outcome. Among others it must say which item it is about."""
    return outcome.text if alone or outcome.is_named else f"{outcome.name}: {outcome.text}"


class _Abort(Exception):
    """Rolls an atomic run back; carries what had been found."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__()
        self.outcomes = outcomes


def _commit(
    session: Session,
    part: list[Given[Item]],
    act: Callable[[Txn, Item], Outcome],
    id_field: str,
    atomic: Report | None,
) -> list[Outcome]:
    """The outcomes of some items in one transaction; in none if all of them are wrong."""

    def one(txn: Txn | None, given: Given[Item]) -> Outcome:
        if given.error is not None or given.item is None or txn is None:
            error = given.error or InternalError(f"{given.name}: nothing to act on")
            return failed(given.name, error, id_field=id_field)
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
            return failed(given.name, error.with_traceback(None), id_field=id_field)

    def action(txn: Txn | None) -> list[Outcome]:
        outcomes = [one(txn, given) for given in part]
        if atomic is not None and any(map(atomic.is_failure, outcomes)):
            raise _Abort(outcomes)
        return outcomes

    try:
        if all(given.error is not None for given in part):
            return action(None)
        return session.update(action)
    except _Abort as abort:
        return [_undone(outcome) for outcome in abort.outcomes]


def _undone(outcome: Outcome) -> Outcome:
    """An outcome of an atomic run that was rolled back."""
    if outcome.error is not None:
        return outcome
    id_field = next(iter(outcome.document))  # The first field of every record.
    return Outcome(
        outcome.name,
        f"{outcome.name}: not changed, another item failed",
        {id_field: outcome.document[id_field], "changed": False},
    )


def _result(path: str) -> "Result":
    from tb_cli.frame.results import Result  # Most commands write none.

    return Result(path)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin line {number} is not UTF-8") from error
