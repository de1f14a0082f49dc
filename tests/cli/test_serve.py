"""`serve`: how it begins and ends, what it tells of itself, and what goes wrong here."""

import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from compute_market import rpc
from compute_market.courier import deliveries
from compute_market.reputation.gossip import METHOD as GOSSIP
from tests.support.cli import Cli
from tests.support.deliveries import CONTENT, entry
from tests.support.peer import acknowledged, logged, parcel, stored, told, wait_until
from tests.support.processes import locked
from tests.support.serving import Far, Process, made_certificate, serving

pytest_plugins = ("tests.support.cli", "tests.support.peer")
pytestmark = pytest.mark.usefixtures("trusting")


def test_what_is_due_is_told_in_the_log(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "60")
    cli.advance(90)
    with serving() as far:
        far.call(GOSSIP, told(("acme", 5, cli.now)))
    err = capsys.readouterr().err
    assert [line["told"] for line in logged(err) if "told" in line] == ["1 overdue job failed"]
    assert len(logged(err)) == len(err.splitlines())


def test_prices_made_while_it_serves_are_saved_every_interval(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_PRICE_BOARD_SAVE_INTERVAL", "1")
    cli.post("--reputation", "-1", provider="acme")
    assert cli.submit("j1", "--wait")["state"] == "pending"
    board = cli.home / "state" / "price_board.v2.bin"
    with serving() as far:
        for score in (5, 6):  # The first lets the job in, which the next change finds.
            far.call(GOSSIP, told(("acme", score, cli.now)))
        wait_until(board.exists)
    err = logged(capsys.readouterr().err)
    assert {"saved price board: 1 industrial and 0 consumer prices"} <= {
        str(line.get("told")) for line in err
    }


# What goes wrong here.


def test_bug_is_told_in_one_line_and_not_to_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr(deliveries, "wanted", broken)
    with serving() as far:
        answer = far.deliver(parcel())
    assert (answer.status, answer.json["error"]) == (500, "internal")
    assert "nought" not in answer.body.decode()
    err = capsys.readouterr().err
    (line,) = logged(err)
    assert (line["status"], line["error"]) == (500, "ZeroDivisionError: by\nnought")
    assert "Traceback" not in err


def cut_short(cli: Cli) -> None:
    os.truncate(cli.data, 100)


def moved_away(cli: Cli) -> None:
    cli.home.rename(cli.directory / "elsewhere")


@pytest.mark.parametrize("happens", [cut_short, moved_away])
def test_damage_here_is_neither_told_to_others_nor_laid_to_them(
    cli: Cli, happens: Callable[[Cli], None]
) -> None:
    serve = Process(cli)
    happens(cli)
    cli.audited = False
    message = told(("acme", 5, cli.now))
    answers = [serve.far.ask("GET", "/healthz"), serve.far.deliver(parcel())]
    assert [each.status for each in answers] == [500, 500]
    error = serve.far.call(GOSSIP, message)["error"]
    assert error["code"] == rpc.INTERNAL
    documents = [*(each.json for each in answers), error["data"]]
    assert [each["message"] for each in documents] == ["this failed here"] * 3
    # Nothing is made anew in the place of a home.
    assert cli.home.exists() == (happens is cut_short)
    _, err = serve.end(signal.SIGTERM)
    assert all(str(cli.home) in str(line["error"]) for line in logged(err))


def test_damaged_key_of_the_node_is_told_to_nobody_else(cli: Cli) -> None:
    cli.ok("key", "new", "node")
    with serving() as far:
        next((cli.home / "keys").glob("node*")).write_text("damaged")
        answer = far.deliver(parcel())
    assert (answer.status, answer.json["message"]) == (500, "this failed here")


# The command.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_once_what_is_under_way_is_done(cli: Cli, number: int) -> None:
    serve = Process(cli)
    with serve.far.begun(parcel()[:-1]) as begun:
        wait_until(lambda: (cli.home / "inbox").exists() and os.listdir(cli.home / "inbox") != [])
        serve.process.send_signal(number)
        time.sleep(0.2)
        assert acknowledged(begun.end(parcel()[-1:])).taken[0].outcome == "taken"
    code, err = serve.end(0)
    assert code == 0
    made, request = logged(err)
    assert "made key node" in str(made["told"])
    assert (request["path"], request["status"]) == ("/courier.deliver", 200)
    assert stored(cli) == {entry().bundle_hash.hex(): CONTENT}


def test_what_a_killed_server_left_is_taken_away_by_the_next(cli: Cli) -> None:
    serve = Process(cli)
    with serve.far.begun(parcel()[:-1]):
        wait_until(lambda: (cli.home / "inbox").exists() and os.listdir(cli.home / "inbox") != [])
        assert serve.end(signal.SIGKILL)[0] == -signal.SIGKILL
    (left,) = stored(cli)
    assert left.endswith(".part")
    with serving() as far:
        assert stored(cli) == {}
        acknowledged(far.deliver(parcel()))


def test_end_comes_in_time_whoever_holds_the_lock_and_reads_the_log(cli: Cli) -> None:
    """Who waits for the lock is answered, and what nobody reads is not waited for."""
    cli.ok("key", "new", "node")
    serve = Process(cli)
    acknowledged(serve.far.deliver(parcel(entry(1))))
    # More than a pipe holds, with what is to come below.
    asked = f"GET /{'x' * 200} HTTP/1.1\r\nHost: localhost\r\n"
    serve.far.say(f"{asked}\r\n".encode() * 500 + f"{asked}Connection: close\r\n\r\n".encode())
    with locked(cli.home / "market"), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(serve.far.deliver, parcel(entry(2)))
        wait_until(lambda: len(os.listdir(cli.home / "inbox")) > 1)
        began = time.monotonic()
        serve.process.send_signal(signal.SIGTERM)
        assert serve.process.wait(timeout=20) == 0
        assert time.monotonic() - began < 6
        answer = waiting.result()
    assert (answer.status, answer.json["retryable"]) == (503, True)
    serve.process.communicate()


def test_silence_instead_of_a_handshake_is_given_up(cli: Cli) -> None:
    certificate, key = made_certificate(cli.directory)
    serve = Process(cli, "--tls-cert", str(certificate), "--tls-key", str(key))
    silent = socket.create_connection(("127.0.0.1", serve.far.port), timeout=10)
    with silent, suppress(ConnectionResetError):
        assert silent.recv(1) == b""
    _, err = serve.end(signal.SIGTERM)
    (line,) = logged(err)
    assert str(line["error"]).startswith("no handshake: ")


def test_silence_instead_of_a_handshake_keeps_nobody_out(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_COURIER_TIMEOUT_SECS", "60")
    certificate, key = made_certificate(cli.directory)
    serve = Process(cli, "--tls-cert", str(certificate), "--tls-key", str(key))
    resource.prlimit(serve.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    address = ("127.0.0.1", serve.far.port)
    silent = [socket.create_connection(address, timeout=10) for _ in range(40)]
    context = ssl.create_default_context(cafile=str(certificate))
    connection = HTTPSConnection("localhost", serve.far.port, context=context, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    for each in (connection, *silent):
        each.close()
    assert serve.end(signal.SIGTERM)[0] == 0


def test_no_more_are_let_in_than_files_may_be_open(cli: Cli) -> None:
    """And nothing that comes of it is told over and over."""
    serve = Process(cli)
    resource.prlimit(serve.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    begun = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    many = []
    try:
        for _ in range(100):
            many.append(socket.create_connection(("127.0.0.1", serve.far.port), timeout=10))
            with suppress(ConnectionError):
                many[-1].sendall(begun)
        assert len(os.listdir(f"/proc/{serve.process.pid}/fd")) < 64
    finally:
        for each in many:
            each.close()
    wait_until(lambda: is_up(serve.far))
    _, err = serve.end(signal.SIGTERM)
    assert "Traceback" not in err
    assert len(err.splitlines()) < 200


def is_up(far: Far) -> bool:
    with suppress(OSError, HTTPException):
        return far.ask("GET", "/healthz").status == 200
    return False


def test_it_is_reached_by_https_with_a_certificate(cli: Cli) -> None:
    certificate, key = made_certificate(cli.directory)
    serve = Process(cli, "--tls-cert", str(certificate), "--tls-key", str(key))
    assert serve.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(certificate))
    connection = HTTPSConnection("localhost", serve.far.port, context=context, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    assert serve.end(signal.SIGTERM)[0] == 0


def test_it_listens_to_other_machines_only_when_that_is_safe_or_asked_for(cli: Cli) -> None:
    done = cli("serve", "--check", "--port", "0", "--host", "0.0.0.0")
    assert (done.code, done.out) == (2, "")
    assert "--insecure" in done.err
    out = cli.ok("serve", "--check", "--port", "0", "--host", "0.0.0.0", "--insecure")
    assert out.startswith("could serve on http://0.0.0.0:")


def test_address_that_is_of_no_use_is_told(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken_one:
        port = taken_one.getsockname()[1]
        done = cli("serve", "--check", "--port", str(port))
        assert (done.code, done.out) == (8, "")
        assert done.err.startswith(f"error[busy]: port {port} of 127.0.0.1 is in use\n")
    for host in ("LOCALHOST", "127.1", "127.0.0.2"):
        assert "could serve" in cli.ok("serve", "--check", "--port", "0", "--host", host)
    for words in (("--host", "no.such.invalid", "--insecure"), ("--host", "")):
        assert cli("serve", "--check", *words).code == 2


def test_files_of_tls_that_are_of_no_use_are_told(cli: Cli) -> None:
    done = cli("serve", "--check", "--tls-cert", "a.pem")
    assert (done.code, done.err) == (2, "error[usage]: --tls-cert and --tls-key go together\n")
    Path("a.pem").write_text("no certificate")
    for name in ("a.pem", "none.pem", "."):
        done = cli("serve", "--check", "--port", "0", "--tls-cert", name, "--tls-key", name)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error[usage]: --tls-cert or --tls-key: ")


def test_key_that_is_encrypted_is_told_at_once(cli: Cli) -> None:
    certificate, key = made_certificate(cli.directory, password=b"secret")
    done = cli(*("serve", "--check", "--port", "0", "--tls-cert", certificate), *("--tls-key", key))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: --tls-key is encrypted")


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_missing_extra_is_told_in_one_line(
    cli: Cli, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [each for each in sys.modules if each.startswith(("tb_cli.network", name))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    done = cli("serve", "--check", "--port", "0")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"error[usage]: serve needs a package that is not installed: {name}",
        "hint: pip install '.[serve]' in the source directory of tb-cli",
    ]
