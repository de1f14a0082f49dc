"""An HTTP server that bounds what anybody may have of it: bytes, time and connections.

What it answers is another module's. Whatever an endpoint raises becomes an answer too, and each
request leaves one line in the log.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import current_thread, main_thread
from typing import Any, Final, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from compute_market.errors import MarketError, UsageError
from tb_cli.frame.guard import Terminated
from tb_cli.network import answers
from tb_cli.network.door import Door, connections_max
from tb_cli.network.entrance import HEAD_BYTES_MAX, Entrance
from tb_cli.network.request_log import RequestLog
from tb_cli.network.service_manager import ServiceManager
from tb_cli.network.tls import Tls, context_of

Endpoint = Callable[[Request], Awaitable[Response]]

_SWEEP_SECS: Final = 1
_TICK_SECS: Final = 0.1
_KEEP_ALIVE_SECS: Final = 5
# What an answer must be read at on the average, in bytes a second, beyond the patience with it.
_PACE_MIN: Final = 1024


class _Silence(NamedTuple):
    """Since when a connection waits for the other side, and how much of an answer was to go."""

    since: float
    left: int  # bytes


def application(
    endpoints: Mapping[str, Mapping[str, Endpoint]], hosts: frozenset[str], log: RequestLog
) -> ASGIApp:
    """What answers: by path and HTTP method the function of each endpoint.

    Only requests to one of `hosts` are answered, whatever their port, or to any when there are
    none: a page in a browser could else have a name of its own lead here.
    """
    app = Starlette(
        routes=[Route(path, _Resource(found)) for path, found in endpoints.items()],
        exception_handlers={
            MarketError: answers.to_error,
            HTTPException: answers.to_mistake,
            ClientDisconnect: answers.to_nobody,
            Exception: answers.to_bug,
        },
    )
    app.router.redirect_slashes = False
    return Entrance(app, hosts, log)


class Server:
    """What runs an application until a signal ends it, or `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        patience_s: int,
        log: RequestLog,
        tls: Tls | None = None,
        each_second: Callable[[], object] | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        """`each_second` is called so often, and must not wait for anything. The `manager` is told
        when the server is ready, and when it ends.

        Raises UsageError for files of TLS that are of no use.
        """
        self._each_second = each_second
        self._manager = ServiceManager({}) if manager is None else manager
        self._patience_s = patience_s
        self._log = log
        self._tls = tls
        self._reloading: asyncio.Task[None] | None = None
        self._silent: dict[object, _Silence] = {}
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            timeout_keep_alive=_KEEP_ALIVE_SECS,
            timeout_graceful_shutdown=patience_s,
            callback_notify=self._sweep,
            timeout_notify=_SWEEP_SECS,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._connections = self._server.server_state.connections
        self._door = Door(
            partial(H11Protocol, config, self._server.server_state, {}),
            lambda: len(self._connections),
            self._close_silent,
            patience_s,
            None if tls is None else context_of(tls),
            log,
        )

    def run(self, listening: Sequence[socket.socket]) -> None:
        """Answer until SIGINT or SIGTERM comes, and then finish what is under way.

        SIGHUP has the files of TLS read anew.
        """
        logger = logging.getLogger("uvicorn.error")
        logger.addFilter(self._tell)
        try:
            with suppress(KeyboardInterrupt, Terminated):
                asyncio.run(self._serve(listening))
        finally:
            logger.removeFilter(self._tell)

    def stop(self) -> None:
        """End it as a signal does, from another thread."""
        self._server.should_exit = True

    async def _serve(self, listening: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._tell_of_loop)
        has_signals = current_thread() is main_thread()
        if has_signals:
            # Not the loop's, which with its end would let the signal end the process.
            reload = partial(loop.call_soon_threadsafe, self._reload)
            signal.signal(signal.SIGHUP, lambda *_: reload())
        try:
            entering = asyncio.create_task(self._let_in(listening))
            await self._server.serve(sockets=[])
            await entering
        finally:
            if has_signals:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def _let_in(self, listening: Sequence[socket.socket]) -> None:
        """Let connections in until the server is to end."""
        opened = [asyncio.create_task(self._door.open(each)) for each in listening]
        self._manager.ready()
        while not self._server.should_exit and not any(each.done() for each in opened):
            await asyncio.sleep(_TICK_SECS)
        self._server.should_exit = True
        self._manager.stopping()
        for each, socket_of_it in zip(opened, listening, strict=True):
            each.cancel()
            socket_of_it.close()

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._read_tls())

    async def _read_tls(self) -> None:
        """Show who comes from now on the certificate that the files hold by now.

        Those of files that are of no use are not taken: the ones before stay.
        """
        self._manager.reloading()
        try:
            if self._tls is None:
                self._log.tell(told="there is no certificate to read anew")
            else:
                self._door.context = await asyncio.to_thread(context_of, self._tls)
                self._log.tell(told="read the certificate anew")
        except UsageError as error:
            self._log.tell(error=f"the certificate stays the one before: {error.message}")
        finally:
            self._manager.ready()

    def _tell(self, record: logging.LogRecord) -> bool:
        """Put into the log what uvicorn says of bytes that are no request it hands on.

        What goes wrong with one that it does, its own line says.
        """
        if record.levelno == logging.WARNING:
            self._log.tell(error=record.getMessage())
        return False

    def _tell_of_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        cause = "" if error is None else f": {type(error).__name__}: {error}"
        self._log.tell(error=f"{context['message']}{cause}")

    async def _sweep(self) -> None:
        """Close connections on which nothing comes or goes for too long, or which are too many.

        uvicorn itself waits without an end for the head of a request, and for who does not read.
        """
        self._log.flush()
        self._manager.alive()
        if self._each_second is not None:
            self._each_second()
        self._close_silent()

    def _close_silent(self) -> None:
        """Those that are over their time, and the oldest of those that are too many."""
        now = asyncio.get_running_loop().time()
        before, self._silent = self._silent, {}
        silent: list[tuple[float, bool, Any]] = []
        for connection in self._connections:
            request, left = connection.cycle, connection.transport.get_write_buffer_size()
            if request is None or request.response_complete or connection.flow.write_paused:
                # That of the next request on the connection is another.
                key = (id(connection), id(request))
                found = self._silent[key] = before.get(key) or _Silence(now, left)
                patience_s = self._patience_s + (found.left - left) / _PACE_MIN
                silent.append((found.since, now - found.since > patience_s, connection))
        silent.sort(key=lambda each: each[0])
        spare = len(self._connections) - connections_max()
        for number, (_, is_over, connection) in enumerate(silent):
            if number < spare or is_over:
                connection.transport.abort()


class _Resource:
    """What is at one path. HEAD is answered as GET is, whose body the server leaves out."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = dict(endpoints)
        if "GET" in endpoints:
            self._endpoints["HEAD"] = endpoints["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            allowed = {"Allow": ", ".join(sorted(self._endpoints))}
            raise HTTPException(405, "nothing is done here by this method", allowed)
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
