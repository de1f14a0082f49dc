"""Acting on a selection: how many are meant, whether they are, and what became of each.

Without --chunk the selection and all that is done with it are one transaction, so that what was
counted is what is done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from compute_market.errors import NotFoundError, UsageError
from compute_market.store.txn import Txn
from compute_market.text import counted
from tb_cli.frame import bulk
from tb_cli.frame.bulk import Given, Outcome, Place
from tb_cli.frame.confirmation import confirm, is_asked
from tb_cli.frame.render import note, write_json
from tb_cli.frame.session import Session

_PAGE: Final = 1000

Page = Callable[[Txn, Any, int], tuple[list[str], Any]]


class Selected:
    """Items that options select, by their ids: `page` finds the next of them, and `is_still` says
    whether one is among them.

    What is left of a run that breaks off are those of the `chosen` that were not dealt with, in
    their order; before any were chosen, those that are selected then.
    """

    def __init__(self, noun: str, page: Page, is_still: Callable[[Txn, str], bool]) -> None:
        self.noun = noun
        self.page = page
        self.is_still = is_still
        self._session: Session | None = None  # that of the run
        self._confirmed: frozenset[str] | None = None  # None where nobody was asked
        self._chosen: list[str] | None = None
        self._next = 0  # of those, the first that is not dealt with

    @property
    def total(self) -> int | None:
        """How many there are, if they were chosen: others may be selected at any time."""
        return None if self._chosen is None else len(self._chosen)

    def again(self, given: Given[Any]) -> str:
        return given.name

    def forget(self, place: Place) -> None:
        """Everything up to that place was dealt with."""
        self._next = place[0] + 1

    def left(self) -> Iterator[str]:
        if self._chosen is None and self._session is not None:
            self._chosen = self._session.view(self.meant)
        yield from (self._chosen or ())[self._next :]

    def begin(self, session: Session, question: Callable[[str], str], *, yes: bool) -> bool:
        """Ask whether they are meant, if somebody is there to be asked; whether that was so."""
        self._session = session
        if not is_asked(session, yes=yes):
            return False
        ids = session.view(self.ids)
        if ids:
            self.tell(len(ids))
            confirm(session, question(self.counted(len(ids))), yes=yes)
        self._confirmed = frozenset(ids)
        return True

    def meant(self, txn: Txn) -> list[str]:
        """All of them, but for what has come after the question."""
        found = self.ids(txn)
        if self._confirmed is None:
            return found
        return [each for each in found if each in self._confirmed]

    def choose(self, ids: list[str]) -> list[Given[str]]:
        """From here on these are what there is to deal with."""
        if self._confirmed is None or len(ids) != len(self._confirmed):
            self.tell(len(ids))
        self._chosen = ids
        return [Given(each, each, None, (index,)) for index, each in enumerate(ids)]

    def ids(self, txn: Txn) -> list[str]:
        """All of them."""
        found, after = self.page(txn, None, _PAGE)
        while after is not None:
            more, after = self.page(txn, after, _PAGE)
            found += more
        return found

    def looked_for(self, session: Session, selecting: Mapping[str, Any]) -> list[str]:
        """All of them as they are now, and told how many there are; of none the list as well.

        Raises NotFoundError if there are none and that is to be a failure.
        """
        found = session.view(self.ids)
        self.tell(len(found))
        if not found:
            if session.json:
                write_json(found)
            if "fail_empty" in selecting:
                raise NotFoundError(f"no {self.noun} selected", reason="empty")
            note(f"no {self.noun} selected")
        return found

    def tell(self, count: int) -> None:
        """Say how many are selected, if any are."""
        if count:
            note(f"{self.counted(count)} selected")

    def counted(self, count: int) -> str:
        return counted(count, self.noun)


def is_meant(
    named: Sequence[str],
    filters: Mapping[str, Any],
    selecting: Mapping[str, Any],
    *,
    noun: str = "job",
) -> bool:
    """Whether options select what is acted upon, and it is not named.

    Raises UsageError for both, and for neither.
    """
    selects = bool(filters) or "all" in selecting
    if selects and named:
        raise UsageError(
            f"{noun} ids and options that select {noun}s are both given", hint="give one of them"
        )
    if not selects and not named:
        raise UsageError(
            f"{noun.upper()}… is missing",
            hint=f"give {noun} ids, - to read them from stdin, or options that select {noun}s",
        )
    if not selects and "fail_empty" in selecting:
        raise UsageError(f"--fail-empty goes with options that select {noun}s")
    return selects


def run(
    session: Session,
    selected: Selected,
    act: Callable[[Txn, str], Outcome],
    *,
    doing: str,
    selecting: Mapping[str, Any],
    id_field: str = "job_id",
    chunk: int | None,
    atomic: bool,
    jsonl: bool,
    failed_to: str | None,
) -> int:
    """Act on every item of a selection, and print the outcomes. Returns the exit code.

    `doing` is what is done to them, for the question that is asked on a terminal. With `chunk` so
    many are one transaction, and one that is not selected any more when it is its turn is left as
    it is.
    """
    is_confirmed = selected.begin(
        session, lambda items: f"{doing} {items}?", yes="yes" in selecting
    )
    how = _How(session, selected, act, (id_field, None))
    at_once = chunk is None or atomic or session.dry_run
    is_chosen = is_confirmed or failed_to is not None
    items, deal = _at_once(how, atomic=atomic) if at_once else _in_turn(how, is_chosen=is_chosen)
    return bulk.in_chunks(
        session,
        items,
        deal,
        size=None if at_once else chunk,
        jsonl=jsonl,
        failed_to=failed_to,
        source=selected,
        selected=f"{selected.noun} selected",
        fail_empty="fail_empty" in selecting,
    )


class _How(NamedTuple):
    session: Session
    selected: Selected
    act: Callable[[Txn, str], Outcome]
    named: tuple[str, str | None]


_Deal = Callable[[list[Given[str]]], list[Outcome]]


def _at_once(how: _How, *, atomic: bool) -> tuple[Iterator[Given[str]], _Deal]:
    """The items and what became of them, all in one transaction."""
    session, selected, act, named = how
    outcomes: list[Outcome] = []

    def select(txn: Txn) -> list[Given[str]]:
        found = selected.meant(txn)
        return [Given(each, each) for each in found]

    def items() -> Iterator[Given[str]]:
        part: list[Given[str]] = []
        outcomes.extend(bulk.commit(session, part, act, named, atomic=atomic, select=select))
        yield from selected.choose([each.name for each in part])

    return items(), lambda part: outcomes


def _in_turn(how: _How, *, is_chosen: bool) -> tuple[Iterator[Given[str]], _Deal]:
    """The items, and what deals with some of them in a transaction of their own.

    Those that are chosen at the beginning are kept, else memory stays flat.
    """
    session, selected, act, named = how

    def items() -> Iterator[Given[str]]:
        if is_chosen:
            yield from selected.choose(session.view(selected.meant))
            return
        selected.tell(sum(map(len, session.pages(selected.page, None))))
        for ids in session.pages(selected.page, None):
            yield from (Given(each, each) for each in ids)

    def one(txn: Txn, item: str) -> Outcome:
        if selected.is_still(txn, item):
            return act(txn, item)
        text = f"{selected.noun} {item} is not selected any more"
        return Outcome(item, text, {named[0]: item, "changed": False})

    return items(), lambda part: bulk.commit(session, part, one, named)
