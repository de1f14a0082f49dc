"""Verbs on the files of the market: init, check, backup, stats."""

import os
import shutil
from typing import Annotated, Any

import typer

from compute_market.errors import UsageError
from compute_market.store.schema import TABLES
from compute_market.store.store import Txn
from tb_cli import admission as market
from tb_cli.frame import files
from tb_cli.frame.render import Listing, emit
from tb_cli.frame.session import Session


def init(ctx: typer.Context) -> None:
    """Create the home directory and an empty market now. Any command does so on first use."""
    session = Session.of(ctx)
    existed = os.path.exists(os.path.join(session.store_path, "data.mdb"))
    session.update(lambda txn: None)
    text = f"{session.home} exists, unchanged" if existed else f"created {session.home}"
    emit(session, {"home": session.home, "changed": not existed}, text)


def check(ctx: typer.Context) -> int:
    """Check the pages of the data file, then every law of the market. Exits with 9 on damage."""
    session = Session.of(ctx)
    problems = session.store.verify()
    if problems:
        emit(session, {"problems": problems}, problems)
        return 9
    return market.audit(ctx)


def backup(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="DIR", help="A directory that is not there.")],
) -> None:
    """Write a consistent, compacted copy of the market, while others go on working.

    The copy is a home directory of its own: `tb-cli --home DIR compute-market audit`.
    """
    session = Session.of(ctx)
    path = os.path.join(files.check_text(target, "the directory"), "market")
    try:
        os.makedirs(target, mode=0o700)
        os.mkdir(path, mode=0o700)
    except OSError as error:
        raise UsageError(f"{target}: {(error.strerror or str(error)).lower()}") from error
    configuration = os.path.join(session.home, "config.toml")
    try:
        session.store.backup(path)
        if os.path.exists(configuration):
            shutil.copyfile(configuration, os.path.join(target, "config.toml"))
    except BaseException:
        shutil.rmtree(target)  # Half a copy would only stand in the way of the next.
        raise
    size = os.stat(os.path.join(path, "data.mdb")).st_size
    emit(session, {"path": target, "bytes": size}, f"wrote {size} bytes to {target}")


def stats(ctx: typer.Context) -> None:
    """Show how many entries each table has."""
    session = Session.of(ctx)

    def sizes(txn: Txn) -> list[dict[str, Any]]:
        return [{"table": table, "entries": txn.size(table)} for table in TABLES]

    listing = Listing(session, ("table", "entries"))
    for document in session.view(sizes):
        listing.add(document)
    listing.end()
