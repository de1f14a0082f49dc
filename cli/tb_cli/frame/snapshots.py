"""The snapshot of the scores in the home, `reputation.json`."""

import os

from compute_market import home as names
from compute_market.engine import Engine
from compute_market.errors import MarketError, file_error
from compute_market.reputation import reputation, snapshot
from compute_market.store.txn import Txn
from compute_market.text import counted, printable
from tb_cli.frame.home import Home
from tb_cli.frame.render import note
from tb_cli.frame.results import Result
from tb_cli.frame.session import Session


def save(session: Session) -> int:
    """Write it, in place at once; how many scores it holds. In a dry run they are only counted."""
    count, at_ms = session.view(lambda txn: (reputation.count(txn), txn.now_ms))
    path = session.home.reputation
    session.home.check_kept(path)
    if session.dry_run:
        return count
    with Result(path, beside=None) as result:
        for part in snapshot.parts(session.pages(reputation.page, None)):
            result.add(part)
        result.write("")
    names.give_to_owner(path)
    session.update(lambda txn: snapshot.note_saved(txn, at_ms))
    return count


def save_if_behind(session: Session) -> None:
    """Write it if a score was changed since. A failure is a warning: the table is the truth."""
    if session.dry_run or not session.view(snapshot.is_behind):
        return
    try:
        save(session)
    except MarketError as error:
        note(f"warning: {error.message}; the scores are in the market all the same")


def begin_with(market: Engine, home: Home) -> None:
    """Let a market that was made just now begin with the snapshot, and say so.

    One that cannot be used is told of and left as it is.
    """
    path = home.reputation
    try:
        try:
            text = names.read(path, snapshot.BYTES_MAX)
        except OSError as error:
            raise file_error(path, error) from error
        scores = snapshot.parse(text, market.wall_ms() // 1000)
    except MarketError as error:
        note(f"warning: {path} is left out: {error.message}")
        return

    def act(txn: Txn) -> int:
        return snapshot.restore(txn, scores)

    if count := market.update(act):
        note(f"took {counted(count, 'score')} from {printable(os.path.basename(path))}")
