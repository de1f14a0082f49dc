"""Verbs on the settlement mode: status, arm, cancel-arm, dry-run, tick."""

from collections.abc import Callable
from typing import Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.settlement import settlement
from compute_market.store.store import Txn
from tb_cli.frame import files
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import option, takes


def status(session: Session) -> None:
    """Receipts wait: it counts those pending, applied and failed."""
    document = session.view(lambda txn: settlement.document(txn, session.config))
    emit(session, document, fields(document))


@takes(
    option(
        "--delay-blocks",
        "Blocks until money moves.",
        kind="integer",
        required=True,
        least=0,
        most=AMOUNT_MAX,
    )
)
def arm(session: Session, *, delay_blocks: int) -> None:
    """Until then the mode behaves as dry_run."""
    config = session.config
    _change(session, lambda txn: bool(settlement.arm(txn, config, delay_blocks)))


def cancel_arm(session: Session) -> None:
    """The mode goes from armed back to dry_run."""
    config = session.config
    _change(session, lambda txn: bool(settlement.cancel_arm(txn, config)))


@takes(option("--reason", "Why; kept and shown by status.", metavar="TEXT", required=True))
def dry_run(session: Session, *, reason: str) -> None:
    """Receipts of funded jobs wait until the mode is real again."""
    config = session.config
    files.check_text(reason, "the reason")
    _change(session, lambda txn: settlement.to_dry_run(txn, config, reason)[1])


def tick(session: Session) -> None:
    """That may be to turn real, to pay what waits, to sweep, to start jobs."""
    before = session.snapshot(lambda txn: _money(txn, session))
    _change(session, lambda txn: _money(txn, session) != before)


def _money(txn: Txn, session: Session) -> tuple[str, int]:
    return settlement.state(txn, session.config).mode, txn.size("unsettled")


def _change(session: Session, act: Callable[[Txn], bool]) -> None:
    def action(txn: Txn) -> dict[str, Any]:
        changed = act(txn)
        return settlement.document(txn, session.config) | {"changed": changed}

    document = session.update(action)
    emit(session, document, fields(document))
