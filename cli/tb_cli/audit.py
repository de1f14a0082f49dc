"""Verbs that look for damage: the audit of every law, and of the data file before it."""

import sys

from compute_market import audit as laws
from compute_market.errors import exit_code
from compute_market.jobs import cancellations
from compute_market.records import Violation
from compute_market.store.txn import Txn
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session


def audit(session: Session) -> int:
    """Those of money, units, lines, receipts, counters and the log.

    Exits with 9 if anything is wrong, and names each violation.
    """
    return _audit(session)


def check(session: Session) -> int:
    """First the pages of the file, then what the audit checks. Exits with 9 on damage."""
    problems = session.market.store.verify()
    if problems:
        emit(session, {"problems": problems}, problems)
        return exit_code("integrity")
    return _audit(session)


def _audit(session: Session) -> int:
    # Before the snapshot: what was there then is in the table by now.
    log = _log(session)

    def look(txn: Txn) -> tuple[dict[str, object], list[Violation]]:
        found = [*laws.check(txn), *laws.log_violations(txn, log)]
        return laws.summary(txn, found), found

    document, violations = session.view(look)
    if (behind := session.view(cancellations.length) - len(log)) > 0:
        note(
            f"warning: {session.home.cancellations} lacks {behind} bytes; the next change adds them"
        )
    totals = f"receipts {document['receipts']} invalid {document['invalid']}"
    emit(session, document, [*map(str, violations), totals])
    sys.stdout.flush()
    return exit_code("integrity") if violations else 0


def _log(session: Session) -> bytes:
    try:
        with open(session.home.cancellations, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
