"""Many items in one command: read their ids, act chunk by chunk, say what became of each.

One outcome line per item, in order, printed once its chunk is committed. A single item ends with
its own exit code; several with 0, the common code if all failed alike, else 7.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from compute_market.errors import (
    InternalError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
    exit_code,
)
from compute_market.records import Refused, check_id
from compute_market.store.store import Txn
from tb_cli.frame import files
from tb_cli.frame.render import emit, note, report, write_json, write_jsonl
from tb_cli.frame.session import Session

Item = TypeVar("Item")


class Outcome(NamedTuple):
    """What became of one item: its line, its document, and the error if it failed."""

    name: str
    text: str
    document: dict[str, Any]
    error: MarketError | None = None
    is_named: bool = True  # the text says which item it is about


class Report:
    """Prints outcomes as they come and works out the exit code.

    `total` is the number of items asked for. With `aside`, failures are told on stderr as they
    come instead of by a line among the results.
    """

    def __init__(
        self,
        session: Session,
        total: int,
        *,
        jsonl: bool = False,
        ignore_not_found: bool = False,
        aside: bool = False,
    ) -> None:
        self._names: list[str] = []
        self._first: MarketError | None = None
        self._tokens: Counter[str] = Counter()
        self._codes: set[int] = set()
        self._session = session
        self._total = total
        self._single = total == 1
        self._jsonl = jsonl
        self._ignore_not_found = ignore_not_found
        self._aside = aside
        self._documents: list[dict[str, Any]] = []

    def is_failure(self, outcome: Outcome) -> bool:
        ignored = self._ignore_not_found and isinstance(outcome.error, NotFoundError)
        return outcome.error is not None and not ignored

    def add(self, outcome: Outcome) -> None:
        failed = self.is_failure(outcome)
        if failed and outcome.error is not None:
            self._first = self._first or outcome.error
            self._names.append(outcome.name)
            self._tokens[outcome.error.token] += 1
            self._codes.add(outcome.error.exit_code)
        as_json = self._jsonl or self._session.json
        if failed and self._aside:
            if outcome.error is not None and not self._single:
                report(outcome.error, as_json)
        elif not as_json:
            emit(self._session, None, _line(outcome, alone=self._single))
        elif self._jsonl:
            write_jsonl(self._document(outcome))
        elif not (failed and self._single):  # The error object on stderr says it all.
            self._documents.append(self._document(outcome))

    def end(self) -> int:
        """Print what is left to say, and return the exit code."""
        if self._session.json and not self._jsonl:
            if self._single:
                for document in self._documents:
                    write_json(document)
            else:
                write_json(self._documents)
        if self._first is None:
            return 0
        if self._single:
            return report(self._first, self._session.json or self._jsonl)
        counted = ", ".join(f"{count} {token}" for token, count in self._tokens.items())
        note(f"{len(self._names)} of {self._total} failed: {counted}")
        alike = len(self._codes) == 1 and len(self._names) == self._total
        return self._codes.pop() if alike else exit_code("partial")

    def write_failed(self, path: str) -> None:
        """Write the names that failed, one per line, ready to be read by `-`."""
        files.replace(path, "".join(f"{name}\n" for name in self._names))

    def _document(self, outcome: Outcome) -> dict[str, Any]:
        document = outcome.document
        if outcome.error is not None:
            document = document | {"error": outcome.error.document()}
        return document | {"dry_run": True} if self._session.dry_run else document


def read_ids(arguments: Iterable[str], what: str) -> list[str]:
    """Ids from arguments, `-` standing for lines of stdin; order kept, duplicates once.

    Raises UsageError for the first text that cannot be an id, before anything is done.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        if argument == "-":
            for number, line in enumerate(sys.stdin.buffer, 1):
                text = _decoded(line, number).strip()
                if text and not text.startswith("#"):
                    found[check_id(text, f"stdin line {number}: {what}")] = None
        else:
            found[check_id(argument, what)] = None
    return list(found)


def run(
    session: Session,
    items: list[Item],
    act: Callable[[Txn, Item], Outcome],
    *,
    id_of: Callable[[Item], str] = str,
    id_field: str = "job_id",
    prepare: Callable[[list[Item]], None] | None = None,
    chunk: int = 1000,
    atomic: bool = False,
    jsonl: bool = False,
    ignore_not_found: bool = False,
    failed_to: str | None = None,
) -> int:
    """Act on every item, `chunk` of them per transaction, and print the outcomes.

    `act` decides before it writes, so an item that fails leaves the others alone; it is then known
    by its `id_of`, in the field `id_field` of its document. `prepare` does the slow work of a chunk
    before its transaction. With `atomic` all items share one transaction and one failure undoes
    them all; the ids that failed go to the file `failed_to`. Returns the exit code.
    """
    if failed_to is not None:
        _check_writable(failed_to)
    said = Report(session, len(items), jsonl=jsonl, ignore_not_found=ignore_not_found)

    def one(txn: Txn, item: Item) -> Outcome:
        writes = txn.writes
        try:
            return act(txn, item)
        except MarketError as error:
            if txn.writes != writes:
                message = f"{id_of(item)}: failed after it had written: {error}"
                raise InternalError(message) from error
            # Without its traceback, which would keep every frame of every failure alive.
            return failed(id_of(item), error.with_traceback(None), id_field=id_field)

    # A dry run is one transaction too: what is rolled back could not be built upon.
    size = max(1, len(items)) if atomic or session.dry_run else chunk
    for start in range(0, len(items), size):
        part = items[start : start + size]
        if prepare is not None:
            prepare(part)
        for outcome in _commit(session, part, one, said if atomic else None):
            said.add(outcome)
        sys.stdout.flush()
    if failed_to is not None and not session.dry_run:
        said.write_failed(failed_to)
    return said.end()


def refusal(refused: Refused) -> RefusedError:
    """The error form of a verdict that has been committed."""
    details = {} if refused.retry_after_ms is None else {"retry_after_ms": refused.retry_after_ms}
    error = RefusedError(refused.message, hint=refused.hint, reason=refused.reason, **details)
    error.retryable = refused.retry_after_ms is not None
    return error


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
    # What is not there is named by the error that says so.
    is_named = text is not None or isinstance(error, NotFoundError)
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
    part: list[Item],
    one: Callable[[Txn, Item], Outcome],
    atomic: Report | None,
) -> list[Outcome]:
    def action(txn: Txn) -> list[Outcome]:
        outcomes = [one(txn, item) for item in part]
        if atomic is not None and any(map(atomic.is_failure, outcomes)):
            raise _Abort(outcomes)
        return outcomes

    try:
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


def _check_writable(path: str) -> None:
    """Find out before anything is done that a file of results cannot be written."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(directory, os.W_OK):
        raise UsageError(f"{path}: cannot be written", hint="name a file in a directory of yours")


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin line {number} is not UTF-8") from error
