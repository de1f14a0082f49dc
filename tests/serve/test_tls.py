"""Certificates are read anew while a server runs; nobody who is connected notices."""

import json
import signal
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from compute_market.rpc import INVALID_REQUEST
from tests.support.cli import Cli
from tests.support.processes import until
from tests.support.serving import Process, made_certificate

pytest_plugins = ("tests.support.cli",)


def test_hangup_has_the_certificate_read_anew_and_drops_nobody(cli: Cli, tmp_path: Path) -> None:
    cli.ok("state", "init")
    certificate, key = made_certificate(tmp_path)
    log = tmp_path / "log"
    with log.open("wb") as err:
        options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--log-format", "text")
        serve = Process(cli, *options, stderr=err)
    first = context_of(certificate)
    # A request that is under way all the time.
    kept = HTTPSConnection("localhost", serve.far.port, context=first, timeout=20)
    kept.putrequest("POST", "/")
    kept.putheader("Content-Length", "2")
    kept.endheaders(b"{")

    made_certificate(tmp_path)
    second = context_of(certificate)
    serve.process.send_signal(signal.SIGHUP)
    until(lambda: has_told(log, "read the certificate anew"))
    check_health(serve, second)
    with pytest.raises(ssl.SSLCertVerificationError):
        check_health(serve, first)

    # Files that are of no use, or do not go together, change nothing.
    key.write_text("no key")
    serve.process.send_signal(signal.SIGHUP)
    until(lambda: has_told(log, "the certificate stays the one before: --tls-cert or --tls-key: "))
    check_health(serve, second)
    kept.send(b"}")
    assert json.load(kept.getresponse())["error"]["code"] == INVALID_REQUEST
    kept.close()
    assert serve.end(signal.SIGTERM)[0] == 0


def has_told(log: Path, text: str) -> bool:
    return text in log.read_text()


def context_of(certificate: Path) -> ssl.SSLContext:
    """What believes this certificate and no other."""
    return ssl.create_default_context(cafile=str(certificate))


def check_health(serve: Process, context: ssl.SSLContext) -> None:
    """On a new connection."""
    connection = HTTPSConnection("localhost", serve.far.port, context=context, timeout=20)
    try:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    finally:
        connection.close()
