"""An HTTP server that bounds what anybody may have of it: bytes, time and connections.

What it answers is another module's. Whatever an endpoint raises becomes an answer too, and each
request leaves one line of JSON on stderr.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compute_market.errors import BusyError, MarketError, UsageError, file_error
from compute_market.text import cause_of, clipped
from tb_cli.frame.guard import Terminated
from tb_cli.network import answers

Endpoint = Callable[[Request], Awaitable[Response]]

# Beyond so many, connections on which nothing is asked are closed, the oldest first; requests are
# sent away when there are twice as many.
CONNECTIONS_MAX: Final = 512
_HEAD_BYTES_MAX: Final = 16 * 1024
_SWEEP_SECS: Final = 1
_KEEP_ALIVE_SECS: Final = 5


class Tls(Struct, frozen=True, gc=False):
    """Files in PEM format."""

    certificate: str
    key: str


def application(endpoints: Mapping[str, tuple[str, Endpoint]], hosts: frozenset[str]) -> ASGIApp:
    """What answers: by path the method and the function of each endpoint.

    Only requests to one of `hosts` are answered, whatever their port, or to any when there are
    none: a page in a browser could else have a name of its own lead here.
    """
    app = Starlette(
        routes=[
            Route(path, endpoint, methods=[method])
            for path, (method, endpoint) in endpoints.items()
        ],
        exception_handlers={
            MarketError: answers.to_error,
            HTTPException: answers.to_mistake,
            ClientDisconnect: answers.to_nobody,
            Exception: answers.to_bug,
        },
    )
    return _Door(app, hosts)


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
        listening.listen()
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


class Server:
    """What runs an application until a signal ends it, or `stop`."""

    def __init__(self, app: ASGIApp, patience_s: int, tls: Tls | None = None) -> None:
        """Raises UsageError for files of TLS that are of no use."""
        self._patience_s = patience_s
        self._idle: dict[object, float] = {}
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # What there is to say of a request, its line in the log says.
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=2 * CONNECTIONS_MAX,
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
            timeout_keep_alive=_KEEP_ALIVE_SECS,
            timeout_graceful_shutdown=patience_s,
            callback_notify=self._sweep,
            timeout_notify=_SWEEP_SECS,
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one.
            raise UsageError(f"--tls-cert or --tls-key: {cause_of(error)}") from error
        self._server = uvicorn.Server(config)

    def run(self, listening: socket.socket) -> None:
        """Answer until SIGINT or SIGTERM comes, and then finish what is under way."""
        with suppress(KeyboardInterrupt, Terminated):
            self._server.run([listening])

    def stop(self) -> None:
        """End it as a signal does, from another thread."""
        self._server.should_exit = True

    async def _sweep(self) -> None:
        """Close connections on which nothing is asked for too long, or which are too many.

        uvicorn itself waits for the head of a request without an end.
        """
        now = asyncio.get_running_loop().time()
        before, self._idle = self._idle, {}
        silent: list[tuple[float, Any]] = []
        for connection in self._server.server_state.connections:
            request = connection.cycle
            if request is None or request.response_complete:
                # That of the next request on the connection is another.
                key = (id(connection), id(request))
                since = self._idle[key] = before.get(key, now)
                silent.append((since, connection))
        silent.sort(key=lambda each: each[0])
        spare = len(self._server.server_state.connections) - CONNECTIONS_MAX
        for number, (since, connection) in enumerate(silent):
            if number < spare or now - since > self._patience_s:
                connection.transport.abort()


class _Door:
    """What every request passes: where it wants to go, and the line that it leaves in the log."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._hosts and _host_of(scope) not in self._hosts:
                answer = HTTPException(421, "this server goes by another name")
                response = await answers.to_mistake(Request(scope), answer)
                await response(scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
        finally:
            answers.log(scope, status, round((loop.time() - began) * 1000))


def _host_of(scope: Scope) -> str:
    """What a request calls the server, without the port."""
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            bare, colon, port = host.rpartition(":")
            return bare if colon and port.isdecimal() else host
    return ""
