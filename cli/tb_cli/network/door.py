"""Whom a server lets in: so many at once as there is room for.

Also who has not shown yet that he speaks TLS counts, and is not waited for without an end.
"""

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Final

from compute_market.text import cause_of
from tb_cli.network.request_log import RequestLog

# Beyond so many, connections on which nothing is asked are closed, the oldest first: once a second,
# and before more than twice as many are let in.
CONNECTIONS_MAX: Final = 512
# Open files that are for all else. Each connection may have one more, for a bundle.
_FILES_KEPT: Final = 32
_FILES_EACH: Final = 4
_RETRY_S: Final = 1.0


def connections_max() -> int:
    """How many connections may be kept open, by the open files that this process may have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, (files - _FILES_KEPT) // _FILES_EACH))


class Door:
    """Lets connections in, which `protocol` makes something of, while there is room for them.

    `count` tells how many are in, and `make_room` has those leave who say nothing. Who comes from
    now on is shown the certificate of `context`.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        count: Callable[[], int],
        make_room: Callable[[], None],
        handshake_s: float,
        context: ssl.SSLContext | None,
        log: RequestLog,
    ) -> None:
        self._protocol = protocol
        self._count = count
        self._make_room = make_room
        self._handshake_s = None if context is None else handshake_s
        self.context = context
        self._log = log
        self._entering: dict[asyncio.Task[None], None] = {}  # the oldest first

    async def open(self, listening: socket.socket) -> None:
        """Let in who comes, until this is cancelled."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._log.tell(error=f"nobody can be let in: {cause_of(error)}")
                await asyncio.sleep(_RETRY_S)
                continue
            if self._is_full():
                self._make_room()
                await asyncio.sleep(0)  # They leave in a turn of their own.
                if self._is_full():
                    connection.close()
                    continue
            if len(self._entering) >= connections_max():
                oldest = next(iter(self._entering))
                del self._entering[oldest]
                oldest.cancel()  # It has had more time than it takes.
            entering = asyncio.create_task(self._let_in(connection))
            self._entering[entering] = None
            entering.add_done_callback(self._forget)
            await asyncio.sleep(0)  # Accepting who waits already gives nobody else a turn.

    def _is_full(self) -> bool:
        return self._count() + len(self._entering) >= 2 * connections_max()

    def _forget(self, entering: asyncio.Task[None]) -> None:
        self._entering.pop(entering, None)

    async def _let_in(self, connection: socket.socket) -> None:
        client = "-"
        try:
            client = _client_of(connection)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self.context,
                ssl_handshake_timeout=self._handshake_s,
            )
        except OSError as error:
            connection.close()
            if self.context is not None:
                self._log.tell(client=client, error=f"no handshake: {cause_of(error)}")


def _client_of(connection: socket.socket) -> str:
    """The address of who has come; by a socket in the file system none is to be had."""
    if connection.family == socket.AF_UNIX:
        return "-"
    host, port = connection.getpeername()[:2]
    return f"{host}:{port}"
