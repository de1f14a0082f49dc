"""Scores told to peers: each is told all, each is reported, and none can do harm."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from compute_market.offers import standing
from compute_market.reputation import gossip
from compute_market.store.txn import Txn
from tb_cli import reputation_sync
from tests.support.cli import Cli, Done
from tests.support.serving import serving

pytest_plugins = ("tests.support.cli",)

CLOSED = "http://127.0.0.1:1"


def pardon(cli: Cli, *providers: str, delta: int = 5) -> None:
    """Scores that a market has seen earned."""

    def act(txn: Txn) -> None:
        for each in providers:
            standing.pardon(txn, each, delta, "a reason")

    cli.update(act)


@pytest.fixture
def their_home(cli: Cli) -> Path:
    """The home of another market, which trusts the key of this one."""
    cli.ok("key", "new", "node")
    key_id = cli.document("key", "show", "node")["key_id"]
    path = cli.directory / "theirs"
    cli.ok("--home", path, "state", "init")
    (path / "config.toml").write_text(f'[net]\ntrusted = ["{key_id}"]\n')
    return path


def peers(cli: Cli, *urls: str, timeout: int = 1) -> None:
    listed = ", ".join(f'"{each}"' for each in urls)
    text = f"courier_timeout_secs = {timeout}\n[net]\npeers = [{listed}]\n"
    (cli.home / "config.toml").write_text(text)


def sync(cli: Cli, *options: str) -> Done:
    """Run it; what a server in this process says of its requests is left out."""
    done = cli("net", "reputation", "sync", *options)
    err = [line for line in done.err.splitlines(True) if not line.startswith('{"at_ms":')]
    return done._replace(err="".join(err))


def test_scores_are_told_to_a_peer_and_taken_once(cli: Cli, their_home: Path) -> None:
    pardon(cli, "acme", "bolt")
    cli.post(provider="boaster")  # Whose score is nothing but what it says of itself.
    with serving(str(their_home)) as far:
        peers(cli, far.url)
        first = sync(cli, "--json")
        assert (first.code, first.err) == (0, "")
        assert first.json == [{"peer": far.url, "sent": 2, "applied": 2, "ignored": 0}]
        again = sync(cli)
        assert again == (0, f"{far.url}: sent 2, applied 0, ignored 2\n", "")
    shown = cli.document("--home", their_home, "net", "reputation", "show")
    assert {each["provider"]: each["score"] for each in shown} == {"acme": 5, "bolt": 5}


def test_more_scores_than_fit_one_message_are_told(
    cli: Cli, their_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pardon(cli, *(f"p{number}" for number in range(7)))
    monkeypatch.setattr(reputation_sync, "_SCORES_A_CALL", 3)
    with serving(str(their_home)) as far:
        peers(cli, far.url)
        assert sync(cli).out == f"{far.url}: sent 7, applied 7, ignored 0\n"


def test_longest_message_fits_a_request(cli: Cli, their_home: Path) -> None:
    count = reputation_sync._SCORES_A_CALL
    pardon(cli, *(f"{number:0128d}" for number in range(count)), delta=-1000)
    with serving(str(their_home)) as far:
        peers(cli, far.url, timeout=60)
        assert sync(cli).out == f"{far.url}: sent {count}, applied {count}, ignored 0\n"


def test_dry_run_tells_nobody(cli: Cli, their_home: Path) -> None:
    pardon(cli, "acme")
    with serving(str(their_home)) as far:
        peers(cli, far.url)
        (cli.home / "keys" / "node.key").unlink()
        before = cli.files()
        done = sync(cli, "-n")
        assert done.out == f"dry_run: {far.url}: sent 1, applied 0, ignored 0\n"
        assert done.code == 0
        assert sync(cli, "-n", "--json").json[0]["dry_run"]
    assert cli.files() == before


def test_peer_that_fails_is_told_and_holds_up_no_other(cli: Cli, their_home: Path) -> None:
    pardon(cli, "acme")
    with serving(str(their_home)) as far:
        peers(cli, CLOSED, far.url)
        done = sync(cli)
    assert done.code == 10
    assert done.out.splitlines() == [
        f"{CLOSED}: sent 0, applied 0, ignored 0; failed: connection refused",
        f"{far.url}: sent 1, applied 1, ignored 0",
    ]


def test_peer_whose_address_cannot_be_one_is_refused_with_its_line(cli: Cli) -> None:
    cli.ok("state", "init")
    peers(cli, CLOSED, "http://a:secret@h/")
    done = sync(cli)
    assert (done.code, done.out, "secret" in done.err) == (2, "", False)
    assert "config.toml:3: net.peers: an address has no user and no password in it" in done.err


def test_peer_that_does_not_trust_the_key_refuses(cli: Cli, their_home: Path) -> None:
    pardon(cli, "acme")
    (their_home / "config.toml").unlink()
    with serving(str(their_home)) as far:
        peers(cli, far.url)
        done = sync(cli, "--json")
    assert done.code == 10
    assert "is not trusted here" in done.json[0]["error"]


def test_who_has_opted_out_tells_nobody(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("state", "init")
    peers(cli, CLOSED)
    monkeypatch.setenv("TB_REPUTATION_GOSSIP", "false")
    done = sync(cli, "--json")
    assert (done.code, done.out, done.error["reason"]) == (5, "", "gossip_off")


def test_market_without_peers_says_so_and_keeps_the_snapshot(cli: Cli) -> None:
    cli.ok("state", "init")
    pardon(cli, "acme")
    assert sync(cli, "-n").out.startswith("dry_run: no peers: ")
    assert not (cli.home / "reputation.json").exists()
    assert sync(cli).out.startswith("no peers: ")
    assert json.loads((cli.home / "reputation.json").read_text())["acme"]["score"] == 5
    assert sync(cli, "--json").json == []


@contextmanager
def answering(answer: bytes, *, hold: bool = False) -> Iterator[str]:
    """Something that takes a request and answers with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(2**20)
                connection.sendall(answer)
                if hold:
                    done.wait(20)
                # What is left unread would reset the connection, maybe before the answer is read.
                connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    while connection.recv(2**20):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


def http(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def test_peer_whose_clock_is_behind_is_told_of(cli: Cli) -> None:
    cli.ok("key", "new", "node")
    pardon(cli, "acme")
    with answering(http(b'{"result": {"applied": 0, "ignored": 1, "from_the_future": 1}}')) as url:
        peers(cli, url)
        done = sync(cli)
    assert done == (
        0,
        f"{url}: sent 1, applied 0, ignored 1 (1 from the future, by its clock)\n",
        "",
    )


ODD = {
    "nothing": (b"", "without response"),
    "no HTTP": (b"\0\x1b[2J\n", "no answer of HTTP"),
    "no JSON": (http(b"<html>"), "no answer of JSON-RPC"),
    "an array": (http(b"[]"), "no answer of JSON-RPC"),
    "an empty answer": (http(b"{}"), "an answer that says nothing"),
    "nested too deep": (
        http(b'{"x":' + b"[" * 2000),
        "no answer of JSON-RPC: nested too deep",
    ),
    "a lie": (http(b'{"result": {"applied": -1, "ignored": 0}}'), "no answer of JSON-RPC"),
    "too few": (http(b'{"result": {"applied": 0, "ignored": 0}}'), "told 1 scores and says that"),
    "too many": (http(b'{"result": {"applied": 9, "ignored": 5}}'), "applied 9 and ignored 5"),
    "other parts": (
        http(b'{"result": {"applied": 1, "ignored": 0, "from_the_future": 1}}'),
        "1 of them from the future",
    ),
    "a flood": (http(b"[" * 100_000), "more than"),
    "a redirect": (http(b"", "302 Found", "Location: http://evil/\r\n"), "no redirect is followed"),
    "an error": (http(b'{"error": {"code": 1, "message": "no\\u001b[2J"}}'), "no\\x1b[2J"),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "cut off"),
}


@pytest.mark.parametrize(("answer", "problem"), ODD.values(), ids=ODD)
def test_odd_answer_of_a_peer_is_told_in_one_line(cli: Cli, answer: bytes, problem: str) -> None:
    cli.ok("key", "new", "node")
    pardon(cli, "acme")
    with answering(answer) as url:
        peers(cli, url)
        done = sync(cli)
    assert (done.code, done.err) == (10, "")
    assert done.out.startswith(f"{url}: sent 0, applied 0, ignored 0; failed: ")
    assert problem in done.out
    assert done.out.count("\n") == 1


def test_peer_that_hangs_is_given_up(cli: Cli) -> None:
    cli.ok("key", "new", "node")
    with answering(b"HTTP/1.1 200 OK\r\n", hold=True) as url:
        peers(cli, url)
        done = sync(cli)
    assert (done.code, "no answer within 1 s" in done.out) == (10, True)


def test_scores_told_round_a_ring_come_to_rest(cli: Cli, their_home: Path) -> None:
    """What was heard is told on, and is no news to whom it came from."""
    pardon(cli, "acme")
    with serving(str(their_home)) as far:
        peers(cli, far.url)
        sync(cli)
        entries = far.view(lambda txn: gossip.told(txn, gossip.reputation.entries(txn)))
    ours = cli.view(lambda txn: gossip.told(txn, gossip.reputation.entries(txn)))
    assert entries == ours
