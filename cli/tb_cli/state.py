"""Verbs on the files of the market: init, backup, stats. `check` is an audit."""

import os
import shutil
from typing import Any

from compute_market.errors import UsageError
from compute_market.store.schema import TABLES
from compute_market.store.txn import Txn
from compute_market.text import cause_of
from tb_cli.frame import files
from tb_cli.frame.home import Home
from tb_cli.frame.render import Listing, emit
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, takes


def init(session: Session) -> None:
    """Commands that bring something new, such as a deposit, do so on first use."""
    changed = session.open()
    session.update(lambda txn: None)
    text = f"created {session.home}" if changed else f"{session.home} exists, unchanged"
    emit(session, {"home": str(session.home), "changed": changed}, text)


@takes(argument("target", "DIR", "A directory that is not there."))
def backup(session: Session, target: str) -> None:
    """It is a compacted copy of one moment, while others go on working.

    The copy is a home directory of its own: `tb-cli --home DIR compute-market audit`.
    """
    copy = Home(files.check_text(target, "the directory"))
    try:
        os.makedirs(target, mode=0o700)
        os.mkdir(copy.market, mode=0o700)
    except OSError as error:
        raise UsageError(f"{target}: {cause_of(error)}") from error
    try:
        session.market.store.backup(copy.market)
        if os.path.exists(session.home.config):
            shutil.copyfile(session.home.config, copy.config)
    except BaseException:
        shutil.rmtree(target)  # Half a copy would only stand in the way of the next.
        raise
    size = os.stat(copy.data).st_size
    emit(session, {"path": target, "bytes": size}, f"wrote {size} bytes to {target}")


def stats(session: Session) -> None:
    def sizes(txn: Txn) -> list[dict[str, Any]]:
        return [{"table": table.name, "entries": txn.size(table)} for table in TABLES]

    listing = Listing(session, ("table", "entries"))
    for document in session.view(sizes):
        listing.add(document)
    listing.end()
