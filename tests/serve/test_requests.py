"""What a market answers to what is no request, and to clients that do not go on."""

import json
import os
import socket
from contextlib import suppress

import pytest

from tb_cli.network import door, node
from tests.support.cli import Cli
from tests.support.peer import logged, parcel, taken, wait_until
from tests.support.serving import Serving, serving

pytest_plugins = ("tests.support.cli", "tests.support.peer")
pytestmark = pytest.mark.usefixtures("trusting")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 200_000, -32700),
        (b'{"method": "x", "params": ' + b"[" * 200_000, -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"method": 5}', -32600),
        (b'{"method": "x", "id": {}}', -32600),
        (b'{"method": "compute.job_submit", "params": {"job_id": "j1"}}', -32601),
    ],
    ids=lambda value: str(value)[:40],
)
def test_call_that_is_none_has_an_error_with_a_number(far: Serving, body: bytes, code: int) -> None:
    answer = far.ask("POST", "/", body)
    assert (answer.status, answer.json["error"]["code"]) == (200, code)


def test_id_of_a_call_is_given_back(far: Serving) -> None:
    for call_id in (7, "seven", None):
        answer = far.ask("POST", "/", json.dumps({"method": "x", "id": call_id}).encode())
        assert answer.json["id"] == call_id


def test_request_that_is_too_long_is_sent_away(far: Serving) -> None:
    assert far.ask("POST", "/", bytes(2**20 + 1)).status == 413
    with far.begun(bytes(2**20 + 1), path="/") as begun:  # It does not say how long it is.
        assert begun.answer().status == 413


def test_request_whose_length_is_too_great_is_sent_away_before_it_comes(far: Serving) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    for length in (2**20 + 1, 10**19):
        with socket.create_connection(("127.0.0.1", far.port), timeout=20) as connection:
            connection.sendall(head % length)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")
            # Who sends it all the same is not cut off: the answer would be lost.
            connection.sendall(bytes(2**20))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(2**16):
                pass


def test_bodies_of_all_requests_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "BODIES_BYTES_MAX", 300_000)
    call = b'{"method": "x", "params": "' + b"x" * 200_000
    with serving() as far:
        with far.begun(call, path="/") as first, far.begun(call, path="/") as second:
            answers = sorted([first.answer(), second.answer()])
        assert [each.status for each in answers] == [408, 503]
        assert answers[1].json["error"]["data"]["retryable"]
        # What they held is given back.
        assert far.ask("POST", "/", call).json["error"]["code"] == -32700


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/courier.deliver", 405),
        ("DELETE", "/", 405),
    ],
)
def test_request_for_what_is_not_there_is_told_so(
    far: Serving, method: str, path: str, status: int
) -> None:
    assert far.ask(method, path).status == status


def test_request_that_calls_the_server_by_another_name_is_not_answered(far: Serving) -> None:
    """As a page in a browser does, whose own name leads here by now."""
    assert far.ask("GET", "/healthz", Host="evil.example").status == 421
    for host in ("localhost", "127.0.0.1", "LOCALHOST:80", f"127.0.0.1:{far.port}"):
        assert far.ask("GET", "/healthz", Host=host).status == 200


def test_request_with_two_lengths_is_refused_and_the_connection_closed(far: Serving) -> None:
    with socket.create_connection(("127.0.0.1", far.port), timeout=10) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"
        )
        with suppress(ConnectionResetError):
            answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_bytes_that_are_no_http_leave_a_line_in_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving() as far, socket.create_connection(("127.0.0.1", far.port)) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in connection.recv(2**16)
    assert [line["error"] for line in logged(capsys.readouterr().err)] == [
        "Invalid HTTP request received."
    ]


# Clients.


def test_bytes_that_are_no_http_leave_it_serving(far: Serving) -> None:
    for nonsense in (
        b"\0" * 100_000,
        b"\x16\x03\x01\x02\0\x01",
        b"GET / HTTP/9\r\n\r\n",
        b"\r\n" * 9,
    ):
        with socket.create_connection(("127.0.0.1", far.port)) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            with suppress(ConnectionError):
                assert b"200" not in connection.recv(2**16).split(b"\r\n")[0]
    assert far.ask("GET", "/healthz").status == 200


def test_slow_clients_neither_stop_it_nor_stay(far: Serving) -> None:
    silent = [socket.create_connection(("127.0.0.1", far.port)) for _ in range(200)]
    try:
        for number, each in enumerate(silent):
            each.settimeout(10)
            if number % 2:
                each.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        assert far.ask("GET", "/healthz").status == 200
        assert [each.recv(1) for each in silent] == [b""] * 200
    except ConnectionResetError:
        pass  # It was closed as well.
    finally:
        for each in silent:
            each.close()
    with far.begun(parcel()[:-1]) as begun:
        assert begun.answer().status == 408


def test_client_that_goes_leaves_nothing(cli: Cli, far: Serving) -> None:
    box = cli.home / "inbox"
    with far.begun(parcel()[:-1]):
        wait_until(lambda: box.exists() and os.listdir(box) != [])
    wait_until(lambda: os.listdir(box) == [])
    assert far.ask("GET", "/healthz").status == 200
    assert taken(far) == 0


def test_connections_that_say_nothing_make_room_for_others(
    far: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "CONNECTIONS_MAX", 3)
    silent = [socket.create_connection(("127.0.0.1", far.port)) for _ in range(5)]
    for each in silent[:2]:  # Before their time is over.
        each.settimeout(10)
        with suppress(ConnectionResetError):
            assert each.recv(1) == b""
    assert far.ask("GET", "/healthz").status == 200
    for each in silent:
        each.close()
