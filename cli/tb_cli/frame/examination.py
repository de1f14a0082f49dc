"""Looking for damage in a home, as `audit`, `state check` and `state restore` do."""

from typing import Any

from msgspec import Struct

from compute_market import audit as laws
from compute_market.jobs import cancellations
from compute_market.laws import Violation
from compute_market.store.environment import verify
from compute_market.store.txn import Txn
from compute_market.text import cause_of
from tb_cli.frame import bundle_laws, bundles
from tb_cli.frame.clocks import sleep
from tb_cli.frame.session import Session


class Examined(Struct):
    """What was found. The pages come first: where they are damaged nothing else was looked at."""

    problems: list[str] = []  # of pages
    violations: list[str] = []  # of laws
    document: dict[str, Any] = {}
    notes: list[str] = []

    @property
    def is_sound(self) -> bool:
        return not self.problems and not self.violations


def examine(session: Session, *, pages: bool, spool: bool = True) -> Examined:
    """Check the laws of the market in the home, and before them the pages of its file if asked to.

    The `spool` is held against them, and with the pages its bundles are read as well.

    It makes and changes nothing there. Raises NotFoundError where there is no market,
    IntegrityError where what is there is none any more.
    """
    session.home.check_market()

    def look() -> dict[str, Any]:
        found = _problems(session) if pages else Examined()
        found = found if found.problems else _laws(session, hashed=pages, spool=spool)
        return {name: getattr(found, name) for name in Examined.__struct_fields__}

    return Examined(**session.apart(look))


def _problems(session: Session) -> Examined:
    lock_timeout_ms = round(session.config.lock_timeout_secs * 1000)
    return Examined(problems=verify(session.home.market, lock_timeout_ms, sleep))


def _laws(session: Session, *, hashed: bool, spool: bool) -> Examined:
    # The log is read before the snapshot: what was there then is in the table by now. How much
    # there must be is asked before that, since others go on cancelling.
    least = session.view(cancellations.length)
    found = Examined()
    log = _log(session, found)
    if log is not None and len(log) < least:
        path, missing = session.home.cancellations, least - len(log)
        found.notes.append(
            f"warning: {path} lacks {missing} bytes; the next change of the market adds them"
        )

    def look(txn: Txn) -> tuple[dict[str, Any], list[Violation]]:
        violations = [*laws.check(txn), *laws.log_violations(txn, log or b"")]
        if spool:
            violations += bundle_laws.violations(txn, session.home, hashed=hashed)
        return laws.summary(txn, violations), violations

    with bundles.kept_as_it_is(session):
        found.document, violations = session.view(look)
    found.violations = [str(each) for each in violations]
    return found


def _log(session: Session, found: Examined) -> bytes | None:
    """What the log of cancellations holds; None, and a warning, if it cannot be read."""
    path = session.home.cancellations
    try:
        return cancellations.read(path, lambda: session.view(cancellations.length))
    except FileNotFoundError:
        return b""
    except OSError as error:
        found.notes.append(f"warning: {path}: {cause_of(error)}: not compared")
        return None
