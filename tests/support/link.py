"""A TCP link on loopback to a server that comes and goes: cut at any byte, recorded, replayed."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import NamedTuple

_PIECE = 4096


class Cut(NamedTuple):
    """After how many bytes each direction of a connection ends both; None: never."""

    up: int | None = None
    down: int | None = None


WHOLE = Cut()


class Link:
    """What listens, and passes on to the port `to` what is sent; it is down while that is None."""

    def __init__(self, cuts: Callable[[], Cut]) -> None:
        self.to: int | None = None
        self.cuts = cuts
        self.requests: list[bytearray] = []  # what was sent up on each connection
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def accept(self) -> None:
        """Serve connections until it is closed."""
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.to or 1))
            except OSError:
                near.close()
                continue
            cut = self.cuts()
            record = bytearray()
            self.requests.append(record)
            for source, sink, most, kept in (
                (near, far, cut.up, record),
                (far, near, cut.down, None),
            ):
                Thread(target=_pump, args=(source, sink, most, kept), daemon=True).start()

    def replay(self, request: bytes) -> bytes:
        """Send what was recorded once more, past all cuts; what is answered."""
        assert self.to is not None
        with socket.create_connection(("127.0.0.1", self.to)) as connection:
            connection.settimeout(20)
            with suppress(OSError):  # It may be answered before its end.
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(OSError):
                while piece := connection.recv(_PIECE):
                    answer += piece
            return answer

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def _pump(
    source: socket.socket, sink: socket.socket, most: int | None, record: bytearray | None
) -> None:
    passed = 0
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            if most is not None:
                piece = piece[: most - passed]
            passed += len(piece)
            if record is not None:
                record += piece
            sink.sendall(piece)
            if passed == most:
                break
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def link(cuts: Callable[[], Cut] = lambda: WHOLE) -> Iterator[Link]:
    found = Link(cuts)
    thread = Thread(target=found.accept)
    thread.start()
    try:
        yield found
    finally:
        found.close()
        thread.join()
