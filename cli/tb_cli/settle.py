"""Verbs on the settlement mode: status, plan, arm, cancel-arm, dry-run, tick."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from compute_market import housekeeping
from compute_market.amounts import AMOUNT_MAX
from compute_market.clock import Due
from compute_market.records import check_reason
from compute_market.reputation import reputation
from compute_market.settlement import modes, settlement
from compute_market.store.schema import BUNDLES_ENDED
from compute_market.store.txn import Txn
from tb_cli.frame.confirmation import confirm
from tb_cli.frame.options import YES, digest_of
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes


@examples("tb-cli compute-market settle status")
def status(session: Session) -> None:
    """Receipts wait: it counts those pending, applied and failed."""
    document = session.view(lambda txn: modes.document(txn))
    emit(session, document, fields(document))


@examples("tb-cli compute-market settle arm --delay-blocks 100")
@takes(
    option(
        "--delay-blocks",
        "Blocks until money moves.",
        kind="integer",
        required=True,
        least=0,
        most=AMOUNT_MAX,
    ),
    option(
        "--expect-root",
        "Only if the state still has this root, which `settle plan` shows.",
        metavar="HEX",
    ),
    YES,
)
def arm(session: Session, *, delay_blocks: int, expect_root: str | None, yes: bool) -> None:
    """Until then the mode behaves as dry_run. What is due comes first; with --expect-root it must
    not have moved the state either. On a terminal it asks first, unless --yes is given.
    """
    expected = None if expect_root is None else digest_of("--expect-root", expect_root)
    confirm(session, f"let money move, {delay_blocks} blocks from now?", yes=yes)

    def act(txn: Txn) -> bool:
        if expected is not None:
            from compute_market.settlement import state_root

            state_root.check(txn, expected)
        modes.arm(txn, delay_blocks)
        return True

    _change(session, act)


@examples("tb-cli compute-market settle plan --json")
def plan(session: Session) -> None:
    """It moves nothing. The root is that of the state the plan was made of, for --expect-root."""
    document = session.view(settlement.plan)
    emit(session, document, _lines(document))


@examples("tb-cli compute-market settle cancel-arm")
def cancel_arm(session: Session) -> None:
    """The mode goes from armed back to dry_run."""
    _change(session, lambda txn: bool(modes.cancel_arm(txn)))


@examples("tb-cli compute-market settle dry-run --reason maintenance")
@takes(option("--reason", "Why; kept and shown by status.", metavar="TEXT", required=True), YES)
def dry_run(session: Session, *, reason: str, yes: bool) -> None:
    """Receipts of funded jobs wait until the mode is real again. On a terminal it asks first,
    unless --yes is given.
    """
    check_reason(reason, "--reason")
    confirm(session, "stop moving money, and let receipts wait?", yes=yes)
    _change(session, lambda txn: modes.to_dry_run(txn, reason)[1])


@examples("tb-cli tick")
def tick(session: Session) -> None:
    """That may be to turn real, to pay what waits, to fail overdue jobs and to start others. Events
    older than `log_retention_secs` leave the log, some stored receipts are looked at, and bundles
    that arrived more than `courier_retention_secs` ago are taken away.
    """

    def act(txn: Txn) -> dict[str, Any]:
        housekeeping.tick(txn)
        return modes.document(txn)

    due = Due()
    try:
        document = session.update(act, tells=False)
        due = session.market.due
        while _is_more_due(session.market.due) and not session.dry_run:
            document = session.update(modes.document, tells=False)
            due = due.plus(session.market.due)
    finally:
        session.tell_of(due)
    if _may_prune(session):
        from tb_cli.frame import bundles  # Most often there is nothing to prune.

        bundles.prune(session)
    if session.market.view(reputation.count):
        from tb_cli.frame.snapshots import save_if_behind

        save_if_behind(session)
    document["changed"] = due.has_moved
    emit(session, document, fields(document))


def _may_prune(session: Session) -> bool:
    """Whether bundles may be there that nobody needs."""
    if session.view(lambda txn: txn.size(BUNDLES_ENDED)):
        from compute_market.courier import courier

        if session.view(courier.has_old):
            return True
    with suppress(OSError):
        return bool(os.listdir(session.home.spooling))
    return False


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"root: {document['root']}"
    yield f"pending: {document['pending']}"
    for move in document["moves"]:
        yield f"{move['amount']} {move['token']} from {move['from']} to {move['to']}"


def _is_more_due(due: Due) -> bool:
    """Whether there may be more than one change does."""
    return due.bids == housekeeping.BIDS_LIMIT or due.scores == housekeeping.SCORES_LIMIT


def _change(session: Session, act: Callable[[Txn], bool]) -> None:
    def action(txn: Txn) -> dict[str, Any]:
        changed = act(txn)
        return modes.document(txn) | {"changed": changed}

    document = session.update(action)
    emit(session, document, fields(document))
