"""A market that answers over HTTP, in a thread of this process, and what its far end says to it."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from socket import create_connection, socket
from threading import Thread
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from starlette.types import ASGIApp

from tb_cli.frame.session import Session
from tb_cli.network import listening, server
from tb_cli.network.endpoints import endpoints_of
from tb_cli.network.node import Node
from tb_cli.network.request_log import RequestLog
from tests.support.cli import Cli

HOSTS = frozenset(("localhost", "127.0.0.1"))


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]  # by names in small letters

    @classmethod
    def of(cls, response: HTTPResponse) -> "Answer":
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, response.read(), headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Far:
    """The far end of a server."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            return Answer.of(connection.getresponse())
        finally:
            connection.close()

    def deliver(self, body: bytes) -> Answer:
        return self.ask("POST", "/courier.deliver", body)

    @contextmanager
    def begun(self, data: bytes, path: str = "/courier.deliver") -> "Iterator[Begun]":
        """A bundle of which this much has been posted; given up if it is not ended."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest("POST", path)
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            begun = Begun(connection)
            begun.send(data)
            yield begun
        finally:
            connection.close()

    def say(self, data: bytes) -> bytes:
        """What is answered to these bytes, until the server closes the connection."""
        with create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            found = b""
            with suppress(ConnectionError):  # It may be closed before all is sent or read.
                connection.sendall(data)
                while chunk := connection.recv(2**16):
                    found += chunk
            return found

    def call(self, method: str, params: Any = None) -> Any:
        """What JSON-RPC answers."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self.ask("POST", "/", json.dumps(call).encode())
        return answer.json


class Serving(Far):
    """That of one in this process, and a look at its market, which nobody else here may open."""

    def __init__(self, session: Session, found: server.Server, opened: socket) -> None:
        super().__init__(opened.getsockname()[1])
        self.view = session.view
        self.session = session
        self._found = found
        self._thread = Thread(target=found.run, args=[[opened]])
        self._thread.start()

    def stop(self) -> None:
        self._found.stop()
        self._thread.join()


class Begun:
    """A request of which a part has been sent."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes) -> Answer:
        """Send the rest."""
        self.send(data)
        self._connection.send(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> Answer:
        return Answer.of(self._connection.getresponse())


class Process:
    """`tb-cli serve` in a process of its own."""

    def __init__(self, cli: Cli, *options: str, port: str = "0", **extra: Any) -> None:
        """`extra` is for Popen. Without a `port` none is given."""
        where = ("--port", port) if port else ()
        self.process = cli.start("serve", *where, "--json", *options, **extra)
        assert self.process.stdout is not None
        text = b"".join(iter(self.process.stdout.readline, b"}\n"))
        self.urls: list[str] = json.loads(text + b"}")["urls"]
        self.url = self.urls[0]
        self.far = Far(int(self.url.rpartition(":")[2]))

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; the exit code and what was told."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, (err or b"").decode()


@contextmanager
def answering(app: ASGIApp, log: RequestLog, patience_s: int = 1) -> Iterator[Far]:
    """A server that runs any application, in a thread of this process."""
    found = server.Server(app, patience_s, log)
    with listening.listen("127.0.0.1", 0) as opened:
        thread = Thread(target=found.run, args=[[opened]])
        thread.start()
        try:
            yield Far(opened.getsockname()[1])
        finally:
            found.stop()
            thread.join()


@contextmanager
def serving(home: str | None = None) -> Iterator[Serving]:
    """The market of a home, that of TB_HOME without one, as `tb-cli serve` answers for it."""
    settings = {} if home is None else {"home": home}
    logging.disable(logging.NOTSET)  # Tests of a cluster in the same process have silenced it.
    with (
        Session.begin(settings) as session,
        RequestLog() as log,
        Node(session) as node,
    ):
        node.token.make()
        app = server.application(endpoints_of(node), HOSTS, log)
        session.tells_of_prices = True
        patience_s = session.config.courier_timeout_secs
        found = server.Server(app, patience_s, log, each_second=node.save_prices)
        with listening.listen("127.0.0.1", 0) as opened:
            far = Serving(session, found, opened)
            try:
                yield far
            finally:
                far.stop()


def made_certificate(directory: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    alternative = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "certificate.pem", directory / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    hidden = NoEncryption() if password is None else BestAvailableEncryption(password)
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    return certificate_path, key_path
