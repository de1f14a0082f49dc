"""What every request passes: whether it is one that means one thing, and its line in the log.

What stands before a server may read bytes otherwise than it does, RFC 9112, 11.2. What can be read
in two ways is therefore answered by an error, and the connection is closed.
"""

import asyncio
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compute_market.errors import BusyError
from tb_cli.network import answers
from tb_cli.network.request_log import RequestLog

HEAD_BYTES_MAX: Final = 16 * 1024
_HEADERS_MAX: Final = 100
_TARGET_BYTES_MAX: Final = 8 * 1024


class Entrance:
    """Lets requests to one of `hosts` pass, whatever their port, or all when there are none.

    A page in a browser could else have a name of its own lead here.
    """

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
            response = await answers.to_error(Request(scope), BusyError(answers.CUT_OFF))
            await response(scope, receive, watched)
        finally:
            took_ms = round((loop.time() - began) * 1000)
            self._log.tell(**answers.entry(scope, status, took_ms))

    async def _turned_away(self, scope: Scope) -> Response | None:
        """The answer to what no endpoint gets to see."""
        problem = _problem(scope)
        if problem is not None:
            response = await answers.to_mistake(Request(scope), problem)
            response.headers["connection"] = "close"
            return response
        if not _is_plain(scope):
            problem = HTTPException(404, "there is nothing at such a path")
            return await answers.to_mistake(Request(scope), problem)
        if self._hosts and _host_of(scope) not in self._hosts:
            problem = HTTPException(421, "this server goes by another name")
            return await answers.to_mistake(Request(scope), problem)
        return None


def _problem(scope: Scope) -> HTTPException | None:
    """What is wrong with the head of a request, whatever it asks for."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    names = {name for name, _ in headers}
    if names >= {b"content-length", b"transfer-encoding"}:
        # What stands before this server may have read another request, RFC 9112, 6.1.
        return HTTPException(400, "the request has two lengths")
    target = len(scope["raw_path"]) + len(scope["query_string"])
    if target > _TARGET_BYTES_MAX:
        return HTTPException(414, f"what is asked for has at most {_TARGET_BYTES_MAX} bytes")
    # One that comes at once is whole before its parser looks how long it is.
    if len(headers) > _HEADERS_MAX or sum(map(_length, headers)) > HEAD_BYTES_MAX:
        return HTTPException(
            431, f"a request has at most {_HEADERS_MAX} headers of {HEAD_BYTES_MAX} bytes in all"
        )
    if not scope["raw_path"].startswith(b"/"):
        # An address with a host in it could name another one than the header does.
        return HTTPException(400, "what is asked for must be a path")
    if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers):
        return HTTPException(415, "the body of a request is taken as it is, not compressed")
    return None


def _length(header: tuple[bytes, bytes]) -> int:
    name, value = header
    return len(name) + len(value)


def _is_plain(scope: Scope) -> bool:
    """Whether a path can only be read in one way: what stands before the server read it too."""
    path: str = scope["path"]
    segments = path.split("/")[1:]
    return (
        path.isprintable()
        and "\\" not in path
        and b"%2f" not in scope["raw_path"].lower()
        and not {".", ".."}.intersection(segments)
        and "" not in segments[:-1]
    )


def _host_of(scope: Scope) -> str:
    """What a request calls the server, without the port."""
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            bare, colon, port = host.rpartition(":")
            return bare if colon and port.isdecimal() else host
    return ""
