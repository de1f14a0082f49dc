"""The log of a server: lines of JSON or of words on stderr, which nobody has to read.

Who does not take them holds up nothing: what no longer fits is dropped, and counted in a line of
its own once there is room again.
"""

import os
import select
import sys
import time
from collections import deque
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final, Literal, cast

from msgspec import json

from compute_market.text import printable, printable_json
from tb_cli.frame.clocks import now_ms

# Bytes of lines that wait for their reader.
_WAITING_MAX: Final = 2**20
_PATIENCE_S: Final = 1.0  # at the end
_POLL_S: Final = 0.01

LogFormat = Literal["json", "text"]
# What a request says of itself, in words in this order.
_OF_REQUEST: Final = ("client", "method", "path", "status", "ms")


class RequestLog:
    """Takes the place of stderr in its `with` block: what else is told becomes a line as well.

    No write waits: a pipe that can be written to takes `PIPE_BUF` bytes at once.
    """

    def __init__(self, form: LogFormat = "json") -> None:
        self._line = _json if form == "json" else _words
        self._lock = Lock()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._unfinished = ""

    def __enter__(self) -> "RequestLog":
        self._stream = sys.stderr
        self._stream.flush()
        try:
            self._descriptor: int | None = self._stream.fileno()
        except (OSError, ValueError):
            self._descriptor = None  # It is no file, but something in this process.
        self._poll = select.poll()
        if self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLOUT)
        sys.stderr = cast(Any, self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr = self._stream
        ends = time.monotonic() + _PATIENCE_S
        self.flush()
        while self._waiting and time.monotonic() < ends:
            time.sleep(_POLL_S)
            self.flush()

    def tell(self, **fields: Any) -> None:
        """One line, which begins with the present time."""
        with self._lock:
            self._send()
            if self._dropped and self._bytes < _WAITING_MAX // 2:
                dropped, self._dropped = self._dropped, 0
                self._add({"at_ms": now_ms(), "lines_dropped": dropped})
            self._add({"at_ms": now_ms()} | fields)
            self._send()

    def write(self, text: str) -> int:
        """What is told in words, each line in one of the log."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self.tell(told=line)
        return len(text)

    def flush(self) -> None:
        """Send what its reader takes by now."""
        with self._lock:
            self._send()

    def _add(self, document: dict[str, Any]) -> None:
        line = self._line(document).encode() + b"\n"
        if self._bytes + len(line) > _WAITING_MAX:
            self._dropped += 1
            return
        self._waiting.append(line)
        self._bytes += len(line)

    def _send(self) -> None:
        try:
            while self._waiting and self._is_ready():
                line = self._waiting.popleft()
                self._bytes -= len(line)
                sent = self._written(line)
                if sent < len(line):
                    self._waiting.appendleft(line[sent:])
                    self._bytes += len(line) - sent
        except (OSError, ValueError):
            # Nobody will ever read it.
            self._waiting.clear()
            self._bytes = 0

    def _is_ready(self) -> bool:
        return self._descriptor is None or bool(self._poll.poll(0))

    def _written(self, line: bytes) -> int:
        if self._descriptor is None:
            self._stream.write(line.decode())
            return len(line)
        return os.write(self._descriptor, line[: select.PIPE_BUF])


def _json(document: Any) -> str:
    return printable_json(json.encode(document).decode())


def _words(document: dict[str, Any]) -> str:
    """The same for eyes: the time in UTC, the request, and what else there is to say.

    What others have written is in quotes, or at the end of the line.
    """
    fields = dict(document)
    at = datetime.fromtimestamp(fields.pop("at_ms") / 1000, UTC)
    found = [at.isoformat(timespec="milliseconds").replace("+00:00", "Z")]
    last = [str(fields.pop(name)) for name in ("told", "error") if name in fields]
    if "path" in fields:
        fields |= {"path": _json(fields["path"]), "ms": f"{fields['ms']}ms"}
    found += [str(fields.pop(name)) for name in _OF_REQUEST if name in fields]
    found += [f"{name}={_json(value)}" for name, value in fields.items()]
    return " ".join((*found, *map(printable, last)))
