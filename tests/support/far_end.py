"""A far end of HTTP on loopback that says whatever a test wants, right or wrong."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from compute_market.courier import envelope
from compute_market.courier.envelope import Taken
from compute_market.signatures.keys import Key
from tests.support.importing import THEIRS
from tests.support.receipt_file import KEY

OK = "200 OK"


class Asked(NamedTuple):
    """A request as it came."""

    line: str
    body: bytes

    @property
    def envelope(self) -> bytes:
        return b"".join(self.body.splitlines(keepends=True)[:3])


# What is sent back as it is, or None for a connection that is closed without a word.
Answers = Callable[[Asked], bytes | None]


class FarEnd:
    """Its port, and what it was asked."""

    def __init__(self, listening: socket.socket, answers: Answers, scheme: str) -> None:
        self._listening = listening
        self._answers = answers
        self.asked: list[Asked] = []
        self.url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/"
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return  # It is closed.
            Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, suppress(OSError):
            while (asked := _request(file)) is not None:
                self.asked.append(asked)
                answer = self._answers(asked)
                if answer is None:
                    return
                connection.sendall(answer)
                if b"Connection: close" in answer:
                    return


@contextmanager
def far_end(answers: Answers, certificate: tuple[Path, Path] | None = None) -> Iterator[FarEnd]:
    listening = socket.create_server(("127.0.0.1", 0))
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        listening = context.wrap_socket(listening, server_side=True)
        scheme = "https"
    with listening:
        yield FarEnd(listening, answers, scheme)
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)  # So that `accept` ends.


def response(body: bytes, status: str = OK, **headers: str) -> bytes:
    """A whole answer. `content_length` is that of the body unless given."""
    fields = {"content_length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def acknowledge(
    asked: Asked,
    *,
    key: Key = KEY,
    change: Callable[[list[Taken]], list[Taken]] = list,
    of: bytes | None = None,
) -> bytes:
    """The acknowledgement of all bundles of a request; `of` another envelope, if given."""
    found = envelope.parse(asked.envelope if of is None else of, "it")
    taken = [Taken(each.receipt_id, each.bundle_hash, "taken") for each in found.entries]
    return response(envelope.acknowledgement(THEIRS, key, found, change(taken)))


def _request(file: Any) -> Asked | None:
    """The next request of a connection, None at its end or where it is cut off."""
    lines = []
    while (line := file.readline()) not in (b"", b"\r\n"):
        lines.append(line.decode().strip())
    length = next((x.split(":")[1] for x in lines if x.lower().startswith("content-length")), "0")
    body = file.read(int(length))
    return Asked(lines[0], body) if lines and len(body) == int(length) else None
