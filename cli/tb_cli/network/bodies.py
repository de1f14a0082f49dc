"""The bodies of requests: read as they come, in bounded time and bounded memory."""

import asyncio
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from compute_market.errors import BusyError

BODY_MAX: Final = 2**20  # bytes of a request that is read whole
# What a body must come at on the average, in bytes a second, beyond the patience with it.
_PACE_MIN: Final = 1024


class Memory:
    """So many bytes are held of all bodies together."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max


class Body:
    """The bytes of a request as they come. What does not come in time is answered by 408.

    What is held of it, and given back at the end of the `with` block, is part of a `memory`.
    BusyError says that there is none left.
    """

    def __init__(self, request: Request, patience_s: float, memory: Memory) -> None:
        self._receive = request.receive
        # By then the length is a number of at most 20 digits, if it is told: see `entrance`.
        self._told = int(request.headers.get("content-length", "0"))
        self._is_whole = False  # nothing of it is to come
        self._patience_s = patience_s
        self._memory = memory
        self._held = 0
        self._began = asyncio.get_running_loop().time()
        self._received = 0
        self._buffer = b""

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self.hold(-self._held)

    def hold(self, count: int) -> None:
        """Hold so many bytes more."""
        if count > self._memory.left:
            raise BusyError("too much of the bodies of requests is held", reason="no_memory")
        self._memory.left -= count
        self._held += count

    async def chunk(self) -> bytes:
        """The next bytes, none at the end. They are held no longer."""
        found, self._buffer = self._buffer or await self._next(), b""
        self.hold(-len(found))
        return found

    async def line(self, most: int) -> bytes:
        """The next line with its newline; no more than so many bytes of it."""
        while (end := self._buffer.find(b"\n") + 1) == 0 and len(self._buffer) < most:
            found = await self._next()
            if not found:
                break
            self._buffer += found
        length = min(end or len(self._buffer), most)
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    async def whole(self) -> bytes:
        """All of it, which is answered by 413 when it is more than `BODY_MAX`.

        That is at once where its length says so: who asks first whether to send it need not.
        """
        _check_length(self._told)
        found = bytearray()
        while chunk := await self._next():
            found += chunk
            _check_length(len(found))
        return bytes(found)

    async def _next(self) -> bytes:
        found = b""
        while not found and not self._is_whole:
            message = await self._message()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            found = message.get("body", b"")
            self._is_whole = not message.get("more_body", False)
        self._received += len(found)
        self.hold(len(found))
        return found

    async def _message(self) -> Message:
        """What the server has of it next."""
        by_pace = self._began + self._received / _PACE_MIN
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now, by_pace) + self._patience_s):
                return await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, "the body of the request does not come") from error


def _check_length(count: int) -> None:
    if count > BODY_MAX:
        raise HTTPException(413, f"a request has at most {BODY_MAX} bytes")
