"""Where a server listens, and whom it lets in: so many at once as there is room for.

Also who has not shown yet that he speaks TLS counts, and is not waited for without an end.
"""

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import Struct

from compute_market.errors import BusyError, UsageError, file_error
from compute_market.text import cause_of, clipped
from tb_cli.network.request_log import RequestLog

# Beyond so many, connections on which nothing is asked are closed, the oldest first; twice as many
# are let in.
CONNECTIONS_MAX: Final = 512
# Open files that are for all else. Each connection may have one more, for a bundle.
_FILES_KEPT: Final = 32
_FILES_EACH: Final = 4
_BACKLOG: Final = 128
_RETRY_S: Final = 1.0


class Tls(Struct, frozen=True, gc=False):
    """Files in PEM format."""

    certificate: str
    key: str


def connections_max() -> int:
    """How many connections may be kept open, by the open files that this process may have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, (files - _FILES_KEPT) // _FILES_EACH))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError for a bad address, BusyError for one in use.

    With port 0 the system chooses one.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise UsageError(f"--host {clipped(host)!a} is no name of a host") from error
    except OSError as error:
        raise UsageError(f"--host {clipped(host)!a}: {cause_of(error)}") from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        where = f"port {port} of {host}"
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"{where} is in use", hint="give another --port, or end what listens there"
            ) from error
        raise file_error(where, error) from error
    return listening


def url_of(listening: socket.socket, *, secure: bool) -> str:
    """The address of what listens."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach what listens there."""
    if host.lower() == "localhost":
        return True
    with suppress(OSError):
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return all(_is_local(str(address[0])) for *_, address in found)
    return False


def context_of(tls: Tls) -> ssl.SSLContext:
    """What speaks TLS. Raises UsageError for files that are of no use."""

    def no_password() -> str:
        raise UsageError(
            "--tls-key is encrypted, and there is nobody to ask for its password",
            hint="give one that is not, in a file that nobody else may read",
        )

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.certificate, tls.key, no_password)
    except OSError as error:  # ssl.SSLError is one.
        raise UsageError(f"--tls-cert or --tls-key: {cause_of(error)}") from error
    return context


class Door:
    """Lets connections in, which `protocol` makes something of, while there is room for them.

    `count` tells how many are in.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        count: Callable[[], int],
        handshake_s: float,
        context: ssl.SSLContext | None,
        log: RequestLog,
    ) -> None:
        self._protocol = protocol
        self._count = count
        self._handshake_s = None if context is None else handshake_s
        self._context = context
        self._log = log
        self._entering: set[asyncio.Task[None]] = set()

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
            if self._count() + len(self._entering) >= 2 * connections_max():
                connection.close()
                continue
            entering = asyncio.create_task(self._let_in(connection))
            self._entering.add(entering)
            entering.add_done_callback(self._entering.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        client = "-"
        try:
            client = "{}:{}".format(*connection.getpeername())
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
            )
        except OSError as error:
            connection.close()
            if self._context is not None:
                self._log.tell(client=client, error=f"no handshake: {cause_of(error)}")


def _is_local(address: str) -> bool:
    from ipaddress import ip_address

    return ip_address(address.partition("%")[0]).is_loopback
