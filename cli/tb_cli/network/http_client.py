"""One request to another market by HTTP: bounded, never redirected, its certificate verified."""

import http.client
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from threading import Event, Lock, Timer
from typing import Final

from compute_market.config import addresses
from compute_market.errors import BusyError, MarketError
from compute_market.text import cause_of, clipped, one_line

OK: Final = 200
# Of an answer that is an error so much is read to tell what it was.
_ERROR_BYTES: Final = 2000
_REDIRECTS: Final = range(300, 400)
# What a server does with a connection that it had kept open for longer than it would.
_STALE: Final = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)

Connection = http.client.HTTPConnection
Body = Callable[[], Iterable[bytes]]


class Address:
    """Where a URL leads to. `path` stands for the one of a URL that has none.

    Raises UsageError for what is no address.
    """

    def __init__(self, url: str, path: str) -> None:
        found = addresses.parse(url)
        self._host, self._port = found.host, found.port
        # Reading the certificates of those who are believed takes longer than a request.
        self._context = ssl.create_default_context() if found.is_secure else None
        self.target = (path if found.path in ("", "/") else found.path) + found.query
        self.url = url

    def connect(self, timeout_s: float) -> Connection:
        if self._context is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)


class Client:
    """Requests to one address, from several threads; connections are used again.

    Neither a connection that gives no sign for `timeout_s` is waited for, nor an answer that takes
    longer than that in all once everything was sent.
    """

    def __init__(self, url: str, path: str, timeout_s: float) -> None:
        self._address = Address(url, path)
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._is_closed = False

    def post(
        self, body: Body, length: int, headers: Mapping[str, str], answer_bytes_max: int
    ) -> bytes:
        """The answer to a POST of the `length` bytes that a call of `body` gives part by part.

        Raises BusyError saying what was wrong: no connection, a certificate that does not verify,
        any status but 200, an answer that is too long, too late or cut off; and what `body` raises,
        with which the request ends before its last byte.
        """
        while True:
            connection, is_used = self._taken()
            is_whole = False
            try:
                answer = self._asked(connection, body, length, headers, answer_bytes_max)
                is_whole = True
                return answer
            except _STALE as error:
                if not is_used or self._is_closed:
                    raise self._failed(cause_of(error)) from error
            except TimeoutError as error:
                raise self._failed(f"no answer within {self._timeout_s:g} s") from error
            except ssl.SSLCertVerificationError as error:
                problem = f"its certificate does not verify: {error.verify_message}"
                raise self._failed(problem) from error
            except OSError as error:
                raise self._failed(cause_of(error)) from error
            except UnicodeError as error:
                raise self._failed("no host has such a name") from error
            except http.client.HTTPException as error:
                kind = type(error).__name__
                problem = clipped(one_line(str(error) or kind))
                raise self._failed(f"no answer of HTTP: {problem}") from error
            finally:
                self._give_back(connection, is_whole=is_whole)

    def close(self) -> None:
        """End every connection, also those that other threads wait for."""
        with self._lock:
            self._is_closed = True
            left = [*self._idle, *self._busy]
            self._idle.clear()
        for connection in left:
            _cut(connection)

    def _asked(
        self,
        connection: Connection,
        body: Body,
        length: int,
        headers: Mapping[str, str],
        answer_bytes_max: int,
    ) -> bytes:
        connection.putrequest("POST", self._address.target)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(length))
        is_sent = False
        # Who refuses a request may answer before it has read all of it.
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.endheaders()
            for part in body():
                connection.send(part)
            is_sent = True
        response, answer = self._answer(connection, answer_bytes_max)
        if not is_sent:
            connection.close()
        if response.status in _REDIRECTS:
            where = clipped(one_line(response.getheader("Location") or "nowhere"))
            raise self._failed(f"it redirects to {where}, and no redirect is followed")
        if response.status != OK:
            told = answer[:_ERROR_BYTES].decode(errors="replace")
            raise self._failed(f"HTTP {response.status}: {clipped(one_line(told))}")
        if len(answer) > answer_bytes_max:
            raise self._failed(f"the answer has more than {answer_bytes_max} bytes")
        if response.length:
            raise self._failed("the answer is cut off")
        return answer

    def _answer(
        self, connection: Connection, bytes_max: int
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """What is answered, or the beginning of that, if all of it comes in time."""
        is_late = Event()

        def end() -> None:
            is_late.set()
            _cut(connection)

        timer = Timer(self._timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            response = connection.getresponse()
            answer = response.read(bytes_max + 1)
            if is_late.is_set():  # Cut off after its head, an answer without a length reads as one.
                raise TimeoutError
            return response, answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            if is_late.is_set():
                raise TimeoutError from error
            if isinstance(error, ValueError):  # A number of the protocol that is none.
                raise http.client.HTTPException(str(error)) from error
            raise
        finally:
            timer.cancel()

    def _taken(self) -> tuple[Connection, bool]:
        """A connection, and whether it was used before."""
        with self._lock:
            if self._is_closed:
                raise self._failed("it was interrupted")
            is_used = bool(self._idle)
            connection = self._idle.pop() if is_used else self._address.connect(self._timeout_s)
            self._busy.add(connection)
        return connection, is_used

    def _give_back(self, connection: Connection, *, is_whole: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if is_whole and not self._is_closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()

    def _failed(self, problem: str) -> MarketError:
        return BusyError(f"{self._address.url}: {problem}", reason="not_delivered")


def _cut(connection: Connection) -> None:
    """End a connection under whoever waits for it."""
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(2)
