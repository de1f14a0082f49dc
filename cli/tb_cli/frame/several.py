"""Records asked for by their ids: one as it is; of several each for itself."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from compute_market.errors import InternalError, MarketError
from compute_market.records import check_id
from compute_market.store.txn import Txn
from compute_market.text import printable
from tb_cli.frame import guard
from tb_cli.frame.options import are_several
from tb_cli.frame.render import emit, fields, note, write_line
from tb_cli.frame.session import Session

# Ids after which what was read of the store is given back.
_IDS_MAPPED = 1000

# What there is under an id: most often one record.
Find = Callable[[Txn, str], list[dict[str, Any]]]


def show(session: Session, ids: Sequence[str], what: str, find: Find) -> int:
    """Show what `find` has under each id; `-` stands for lines of stdin. Returns the exit code.

    Raises what is wrong with a single id. Of several, text has an empty line between records and
    JSON is a list; what cannot be shown is told on stderr, and the code is that of a bulk command.
    """
    if are_several(ids):
        return _show_each(session, ids, what, find)
    check_id(ids[0], what)
    found = session.view(lambda txn: find(txn, ids[0]))
    lines = [line for document in found for line in fields(document)]
    emit(session, found[0] if len(found) == 1 else found, lines)
    return 0


def _show_each(session: Session, ids: Sequence[str], what: str, find: Find) -> int:
    from tb_cli.frame.bulk import Outcome, Report
    from tb_cli.frame.failures import failed
    from tb_cli.frame.ids import Ids

    given_ids = Ids(ids, what)
    session.open()  # Without a market nothing is asked for.
    said = Report(session, single=False, aside=True)
    is_first = True
    for given in given_ids:
        guard.stop_if_lost()
        try:
            if given.item is None:
                raise given.error or InternalError(f"{given.name} is no {what}")
            documents = session.view(partial(_found, find, given.item))
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
                for line in fields(document):
                    write_line(printable(line))
        if said.count % _IDS_MAPPED == 0:
            session.let_go()
    if not said.count:
        note("nothing given, nothing done")
    return said.end()


def _found(find: Find, id_: str, txn: Txn) -> list[dict[str, Any]]:
    return find(txn, id_)
