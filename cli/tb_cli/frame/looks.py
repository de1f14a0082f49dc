"""Looking again and again, until something is as it is waited for."""

import time
from collections.abc import Iterator

from compute_market.store.schema import SCHEMA_VERSION
from tb_cli.frame.render import note
from tb_cli.frame.session import Session

# Between looks at a store of an older schema: others are to get the write lock, however often
# something changes, and what time alone changes is to be seen.
_OLDER_LEAST_S, _OLDER_MOST_S = 5.0, 60.0
_STEP_S = 1.0


def looks(session: Session, every_s: float, until: float | None = None) -> Iterator[None]:
    """The moments to look, the first of them now; `until` is one of `time.monotonic` behind which
    none is put off. Raises ConflictError once the market that was looked at first is gone from its
    path, or another one is there.

    A look at a store of an older schema takes the write lock, and brings all of it up to date for
    itself: it is put off until something has changed.
    """
    is_told = False
    while True:
        before = _last_commit(session)
        yield
        before = _last_commit(session) if before is None else before
        time.sleep(every_s)
        _check_is_here(session)
        if not _is_older(session):
            continue
        if not is_told:
            is_told = True
            schema = session.market.store.schema
            note(
                f"the market is of schema {schema}, and looked at when something has changed; "
                "`tb-cli tick` brings it up to date"
            )
        now = time.monotonic()
        least, most = (
            now + seconds if until is None else min(now + seconds, until)
            for seconds in (_OLDER_LEAST_S, _OLDER_MOST_S)
        )
        while now < most and (now < least or _last_commit(session) == before):
            time.sleep(min(every_s, _STEP_S))
            _check_is_here(session)
            now = time.monotonic()


def _check_is_here(session: Session) -> None:
    if session.is_open:  # What is listed may be no market's.
        session.market.store.check_is_here()


def _is_older(session: Session) -> bool:
    return session.is_open and session.market.store.schema < SCHEMA_VERSION


def _last_commit(session: Session) -> int | None:
    """That of the market, once it is looked at."""
    if not _is_older(session):
        return None
    from compute_market.store import changes

    return changes.last_commit(session.market.store)
