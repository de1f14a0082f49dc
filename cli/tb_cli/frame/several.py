"""Records asked for by their ids: one as it is; of several each for itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from compute_market.errors import InternalError, MarketError
from compute_market.records import check_id
from compute_market.store.schema import SCHEMA_VERSION
from compute_market.store.txn import Txn
from compute_market.text import printable
from tb_cli.frame import guard
from tb_cli.frame.options import are_several
from tb_cli.frame.render import emit, fields, note, write_line
from tb_cli.frame.session import Session

if TYPE_CHECKING:
    from tb_cli.frame.bulk import Given

# Ids after which what was read of the store is given back.
_IDS_MAPPED = 1000

# What there is under an id: most often one record.
Find = Callable[[Any, str], list[dict[str, Any]]]
Read = Callable[[str], list[dict[str, Any]]]
# What is said of one.
Text = Callable[[dict[str, Any]], Iterable[str]]


def show(
    session: Session,
    ids: Sequence[str],
    what: str,
    find: Find,
    text: Text = fields,
    *,
    at_hand: bool = False,  # records that are not in the store, which is not opened then
) -> int:
    """Show what `find` has under each id; `-` stands for lines of stdin. Returns the exit code.

    Raises what is wrong with a single id. Of several, text has an empty line between records and
    JSON is a list; what cannot be shown is told on stderr, and the code is that of a bulk command.
    """

    def read_one(id_: str) -> list[dict[str, Any]]:
        return find(None, id_) if at_hand else session.view(lambda txn: find(txn, id_))

    if are_several(ids):
        from tb_cli.frame.ids import Ids

        given = Ids(ids, what)
        read: Iterator[tuple[Given[str], Read]] = ((each, read_one) for each in given)
        if not at_hand:
            session.open()  # Without a market nothing is asked for.
            if session.market.store.schema < SCHEMA_VERSION:
                read = _read_together(session, given, find)
        return _show_each(session, read, what, text)
    check_id(ids[0], what)
    found = read_one(ids[0])
    lines = [line for document in found for line in text(document)]
    emit(session, found[0] if len(found) == 1 else found, lines)
    return 0


def _read_together(
    session: Session, ids: "Iterable[Given[str]]", find: Find
) -> "Iterator[tuple[Given[str], Read]]":
    """Ids with what reads them, many found by one look: at a store of an older schema, which each
    look brings up to date for itself."""
    left = iter(ids)
    while given := list(islice(left, _IDS_MAPPED)):
        read = _read_at_once(session, given, find)
        yield from ((each, read) for each in given)


def _read_at_once(session: Session, given: "list[Given[str]]", find: Find) -> Read:
    """What reads ids when all of them have been found in one look."""

    def look(txn: Txn) -> dict[str, list[dict[str, Any]] | MarketError]:
        found: dict[str, list[dict[str, Any]] | MarketError] = {}
        for each in given:
            if each.item is not None:
                try:
                    found[each.item] = find(txn, each.item)
                except MarketError as error:
                    found[each.item] = error
        return found

    found = session.view(look)

    def read(id_: str) -> list[dict[str, Any]]:
        documents = found[id_]
        if isinstance(documents, MarketError):
            raise documents
        return documents

    return read


def _show_each(
    session: Session, ids: "Iterable[tuple[Given[str], Read]]", what: str, text: Text
) -> int:
    from tb_cli.frame.bulk import Outcome, Report
    from tb_cli.frame.failures import failed

    said = Report(session, single=False, aside=True)
    is_first = True
    for given, read in ids:
        guard.stop_if_lost()
        try:
            if given.item is None:
                raise given.error or InternalError(f"{given.name} is no {what}")
            documents = read(given.item)
        except MarketError as error:
            said.add(failed(given.name, error.with_traceback(None)))
            continue
        if session.json:
            for document in documents:
                said.add(Outcome(given.name, "", document))
            said.count += 1 - len(documents)  # Ids are counted.
        else:
            said.count += 1
            for document in documents:
                if not is_first:
                    write_line("")
                is_first = False
                for line in text(document):
                    write_line(printable(line))
        if said.count % _IDS_MAPPED == 0:
            session.let_go()
    if not said.count:
        note("nothing given, nothing done")
    return said.end()
