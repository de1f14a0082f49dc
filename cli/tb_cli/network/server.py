"""An HTTP server that bounds what anybody may have of it: bytes, time and connections.

What it answers is another module's. Whatever an endpoint raises becomes an answer too, and each
request leaves one line of JSON on stderr.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from compute_market.errors import BusyError, MarketError
from tb_cli.frame.guard import Terminated
from tb_cli.network import answers
from tb_cli.network.listening import Door, Tls, connections_max, context_of
from tb_cli.network.request_log import RequestLog

Endpoint = Callable[[Request], Awaitable[Response]]

_HEAD_BYTES_MAX: Final = 16 * 1024
_SWEEP_SECS: Final = 1
_TICK_SECS: Final = 0.1
_KEEP_ALIVE_SECS: Final = 5


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
    return _Entrance(app, hosts, log)


class Server:
    """What runs an application until a signal ends it, or `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        patience_s: int,
        log: RequestLog,
        tls: Tls | None = None,
        each_second: Callable[[], object] | None = None,
    ) -> None:
        """`each_second` is called so often, and must not wait for anything.

        Raises UsageError for files of TLS that are of no use.
        """
        self._each_second = each_second
        self._patience_s = patience_s
        self._log = log
        self._idle: dict[object, float] = {}
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
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
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
            patience_s,
            None if tls is None else context_of(tls),
            log,
        )

    def run(self, listening: Sequence[socket.socket]) -> None:
        """Answer until SIGINT or SIGTERM comes, and then finish what is under way."""
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
        asyncio.get_running_loop().set_exception_handler(self._tell_of_loop)
        entering = asyncio.create_task(self._let_in(listening))
        await self._server.serve(sockets=[])
        await entering

    async def _let_in(self, listening: Sequence[socket.socket]) -> None:
        """Let connections in until the server is to end."""
        opened = [asyncio.create_task(self._door.open(each)) for each in listening]
        while not self._server.should_exit and not any(each.done() for each in opened):
            await asyncio.sleep(_TICK_SECS)
        for task, each in zip(opened, listening, strict=True):
            task.cancel()
            each.close()

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
        """Close connections on which nothing is asked for too long, or which are too many.

        uvicorn itself waits for the head of a request without an end.
        """
        self._log.flush()
        if self._each_second is not None:
            self._each_second()
        now = asyncio.get_running_loop().time()
        before, self._idle = self._idle, {}
        silent: list[tuple[float, Any]] = []
        for connection in self._connections:
            request = connection.cycle
            if request is None or request.response_complete:
                # That of the next request on the connection is another.
                key = (id(connection), id(request))
                since = self._idle[key] = before.get(key, now)
                silent.append((since, connection))
        silent.sort(key=lambda each: each[0])
        spare = len(self._connections) - connections_max()
        for number, (since, connection) in enumerate(silent):
            if number < spare or now - since > self._patience_s:
                connection.transport.abort()


class _Entrance:
    """What every request passes: where it wants to go, and the line that it leaves in the log."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], log: RequestLog) -> None:
        self._app = app
        self._hosts = hosts
        self._log = log

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
            response = await self._turned_away(scope)
            if response is None:
                await self._app(scope, receive, watched)
            else:
                await response(scope, receive, watched)
        except asyncio.CancelledError:  # The server ends, and what is under way takes too long.
            if status:
                raise
            response = await answers.to_error(Request(scope), BusyError("cut off by the end"))
            await response(scope, receive, watched)
        finally:
            took_ms = round((loop.time() - began) * 1000)
            self._log.tell(**answers.entry(scope, status, took_ms))

    async def _turned_away(self, scope: Scope) -> Response | None:
        """The answer to what no endpoint gets to see."""
        names = {name for name, _ in scope["headers"]}
        if names >= {b"content-length", b"transfer-encoding"}:
            # What stands before this server may have read another request, RFC 9112, 6.1.
            problem = HTTPException(400, "the request has two lengths")
            response = await answers.to_mistake(Request(scope), problem)
            response.headers["connection"] = "close"
            return response
        if self._hosts and _host_of(scope) not in self._hosts:
            problem = HTTPException(421, "this server goes by another name")
            return await answers.to_mistake(Request(scope), problem)
        return None


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


def _host_of(scope: Scope) -> str:
    """What a request calls the server, without the port."""
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            bare, colon, port = host.rpartition(":")
            return bare if colon and port.isdecimal() else host
    return ""
