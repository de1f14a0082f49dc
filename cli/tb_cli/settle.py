"""Verbs on the settlement mode: status, arm, cancel-arm, dry-run, tick."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from compute_market.amounts import AMOUNT_MAX
from compute_market.settlement import settlement
from compute_market.store.store import Txn
from tb_cli.frame import files
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session, now_ms


def status(ctx: typer.Context) -> None:
    """Show the mode, the height, and how many receipts are pending, applied and failed."""
    session = Session.of(ctx)
    document = session.view(lambda txn: settlement.document(txn, session.config))
    emit(session, document, fields(document))


def arm(
    ctx: typer.Context,
    delay_blocks: Annotated[
        int, typer.Option(min=0, max=AMOUNT_MAX, help="Blocks until money moves.")
    ],
) -> None:
    """Let the mode turn real after some blocks; until then it behaves as dry_run."""
    config = Session.of(ctx).config
    _change(ctx, lambda txn: bool(settlement.arm(txn, config, delay_blocks)))


def cancel_arm(ctx: typer.Context) -> None:
    """Go from armed back to dry_run."""
    config = Session.of(ctx).config
    _change(ctx, lambda txn: bool(settlement.cancel_arm(txn, config)))


def dry_run(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept and shown by status.")],
) -> None:
    """Stop moving money. Receipts of funded jobs wait until the mode is real again."""
    config = Session.of(ctx).config
    files.check_text(reason, "the reason")
    _change(ctx, lambda txn: settlement.to_dry_run(txn, config, reason)[1])


def tick(ctx: typer.Context) -> None:
    """Do what is due and nothing else: turn real, pay what waits, sweep, start jobs."""
    session = Session.of(ctx)
    before = session.store.view(lambda txn: _money(txn, session), now_ms=now_ms())
    _change(ctx, lambda txn: _money(txn, session) != before)


def _money(txn: Txn, session: Session) -> tuple[str, int]:
    return settlement.state(txn, session.config).mode, txn.size("unsettled")


def _change(ctx: typer.Context, act: Callable[[Txn], bool]) -> None:
    session = Session.of(ctx)

    def action(txn: Txn) -> dict[str, Any]:
        changed = act(txn)
        return settlement.document(txn, session.config) | {"changed": changed}

    document = session.update(action)
    emit(session, document, fields(document))
