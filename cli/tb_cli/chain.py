"""Verbs on heights: status, advance."""

from typing import Annotated

import typer

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session


def status(ctx: typer.Context) -> None:
    """Show the height, the epoch, the market's id and its genesis."""
    session = Session.of(ctx)
    document = session.view(lambda txn: chain.status(txn, session.config))._asdict()
    emit(session, document, fields(document))


def advance(
    ctx: typer.Context,
    blocks: Annotated[
        int, typer.Argument(metavar="N", min=1, max=AMOUNT_MAX, help="How many blocks.")
    ],
) -> None:
    """Let blocks pass at once. Heights never go back."""
    session = Session.of(ctx)
    status = session.update(lambda txn: chain.advance(txn, session.config, blocks))
    emit(session, status._asdict(), f"height {status.height}, epoch {status.epoch}")
