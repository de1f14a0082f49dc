"""Verbs that look for damage: the audit of every law, and of the data file before it."""

import sys

from compute_market.errors import exit_code
from tb_cli.frame.examination import examine
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples


@examples("tb-cli compute-market audit --json")
def audit(session: Session) -> int:
    """Those of money, units, lines, receipts, counters and the log.

    Exits with 9 if anything is wrong, and names each violation.
    """
    return _told(session, pages=False)


@examples("tb-cli state check")
def check(session: Session) -> int:
    """First the pages of the file, then what the audit checks. Exits with 9 on damage.

    No file survives it with a wrong answer, nor ends it: what may kill a process is looked at by
    another one.
    """
    return _told(session, pages=True)


def _told(session: Session, *, pages: bool) -> int:
    found = examine(session, pages=pages)
    for text in found.notes:
        note(text)
    if found.problems:
        emit(session, {"problems": found.problems}, found.problems)
    else:
        totals = f"receipts {found.document['receipts']} invalid {found.document['invalid']}"
        emit(session, found.document, [*found.violations, totals])
    sys.stdout.flush()
    return 0 if found.is_sound else exit_code("integrity")
