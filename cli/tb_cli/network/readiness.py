"""Whether a server can do what it is asked: not only look at the market, but change it.

Nobody has to show who he is to ask this, so it is found out once in a while and not at each
request: who asks all the time takes the write lock no more often.
"""

import asyncio
import errno
import os
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from compute_market.errors import BusyError, MarketError
from compute_market.home import data_file, moved
from compute_market.store.translation import translated
from tb_cli.frame.session import Session
from tb_cli.network import answers

# How long an answer is good for, and how long somebody else may have the write lock.
_GOOD_S: Final = 1.0
_LOCK_PATIENCE_MS: Final = 1_000
# Bytes that the data file must be able to grow by.
_ROOM: Final = 2**20
_NO_NAMELESS_FILES: Final = (errno.EOPNOTSUPP, errno.EISDIR)


class Readiness:
    """Answers whether the market of a session could be changed now."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._finding: asyncio.Task[None] | None = None
        self._good_until_s = 0.0

    async def answer(self, request: Request) -> Response:
        """200 when it could, 503 with a reason else: `busy`, `no_room` or `market`."""
        now_s = asyncio.get_running_loop().time()
        if self._finding is None or (self._finding.done() and now_s > self._good_until_s):
            self._finding = asyncio.create_task(self._find())
        try:
            await asyncio.shield(self._finding)
        except MarketError as error:
            answers.tell(request, error.message)
            reason = (error.reason or "busy") if error.retryable else "market"
            return answers.json_response(answers.for_others(error) | {"reason": reason}, 503)
        return answers.json_response({"status": "ready"})

    async def _find(self) -> None:
        try:
            await asyncio.to_thread(self._check)
        finally:
            self._good_until_s = asyncio.get_running_loop().time() + _GOOD_S

    def _check(self) -> None:
        """Raise what a change of the market would raise, whatever it changes."""
        store = self._session.market.store
        if not store.is_here():
            raise moved(store.path)
        store.update(lambda txn: None, dry_run=True, lock_timeout_ms=_LOCK_PATIENCE_MS)
        try:
            with translated(store.path):
                _grow_by(_ROOM, store.path)
        except BusyError as error:
            raise BusyError(error.message, hint=error.hint, reason="no_room") from error


def _grow_by(count: int, path: str) -> None:
    """Raise OSError if the data file of a store could not grow so much, and leave it as it is.

    A file without a name is written instead, from where the data file ends: so quotas and the limit
    of the size of files count too.
    """
    end = os.stat(data_file(path)).st_size
    try:
        descriptor = os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
        disk = os.statvfs(path)
        written = min(count, disk.f_bavail * disk.f_frsize)
    else:
        try:
            written = os.pwrite(descriptor, bytes(count), end)
        finally:
            os.close(descriptor)
    if written < count:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
