"""Verbs that look for damage: the audit of every law, and of the data file before it."""

import sys

from compute_market import audit as laws
from compute_market.errors import exit_code
from compute_market.store.store import Txn
from tb_cli.frame.render import emit
from tb_cli.frame.session import Session


def audit(session: Session) -> int:
    """Those of money, units, lines, receipts, counters and the log.

    Exits with 9 if anything is wrong, and names each violation.
    """
    return _audit(session)


def check(session: Session) -> int:
    """First the pages of the file, then what the audit checks. Exits with 9 on damage."""
    problems = session.store.verify()
    if problems:
        emit(session, {"problems": problems}, problems)
        return exit_code("integrity")
    return _audit(session)


def _audit(session: Session) -> int:
    session.follow_log()

    def look(txn: Txn) -> tuple[dict[str, object], list[laws.Violation]]:
        found = [*laws.check(txn, session.config), *laws.log_violations(txn, _log(session))]
        return laws.summary(txn, found), found

    document, violations = session.view(look)
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
