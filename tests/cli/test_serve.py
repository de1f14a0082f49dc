"""What a market answers over HTTP: bundles are taken once, and nothing harms it."""

import json
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from compute_market import rpc
from compute_market.chain import market_id
from compute_market.courier import deliveries, envelope
from compute_market.courier.envelope import Acknowledgement, Entry
from compute_market.reputation import gossip, reputation
from compute_market.reputation.gossip import METHOD as GOSSIP
from compute_market.reputation.gossip import Told
from compute_market.signatures.keys import Key
from tb_cli.frame import inbox
from tb_cli.network import door, node
from tests.support.cli import Cli
from tests.support.deliveries import CONTENT, entry, handoff
from tests.support.importing import THEIRS
from tests.support.processes import locked
from tests.support.receipt_file import KEY, OTHER_KEY
from tests.support.serving import Answer, Far, Process, Serving, made_certificate, serving

pytest_plugins = ("tests.support.cli",)


@pytest.fixture(autouse=True)
def market(cli: Cli) -> None:
    cli.ok("state", "init")
    (cli.home / "config.toml").write_text(
        f'courier_timeout_secs = 1\n[net]\ntrusted = ["{KEY.key_id.hex()}"]\n'
    )


@pytest.fixture
def far(market: None) -> Iterator[Serving]:
    """The server, from outside."""
    with serving() as found:
        yield found


def parcel(sent: Entry | None = None, content: bytes = CONTENT, key: Key = KEY) -> bytes:
    """A bundle as it is posted."""
    return envelope.text(THEIRS, key, [sent or entry(content=content)]) + content


def acknowledged(answer: Answer) -> Acknowledgement:
    assert answer.status == 200, answer
    return envelope.parse_acknowledgement(answer.body, "the answer")


def stored(cli: Cli) -> dict[str, bytes]:
    """The files of the inbox."""
    found = cli.home / "inbox"
    return {path.name: path.read_bytes() for path in found.iterdir()} if found.exists() else {}


def taken(far: Serving) -> int:
    return far.view(lambda txn: len(list(deliveries.deliveries(txn))))


def logged(err: str) -> list[dict[str, object]]:
    """The lines of the log, without the one that there is no price board yet."""
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return [line for line in lines if not line.get("told", "").startswith("no price board")]


def test_bundle_is_taken_and_acknowledged(cli: Cli, far: Serving) -> None:
    answer = acknowledged(far.deliver(parcel()))
    sent = entry()
    assert [(each.receipt_id, each.outcome) for each in answer.taken] == [(1, "taken")]
    assert answer.market_id == far.view(market_id)
    assert (answer.to_market_id, answer.envelope) == (THEIRS, answer.envelope)
    path = cli.home / "inbox" / sent.bundle_hash.hex()
    assert stored(cli) == {path.name: CONTENT}
    assert path.stat().st_mode & 0o777 == 0o600
    # The key that has signed is the one of the node, made for it.
    far.stop()
    listed = cli.document("key", "list")
    assert [(each["name"], each["key_id"]) for each in listed] == [
        ("node", answer.key.key_id.hex())
    ]


def test_bundle_that_comes_twice_is_stored_once_and_acknowledged_again(
    cli: Cli, far: Serving
) -> None:
    first, second = (acknowledged(far.deliver(parcel())) for _ in range(2))
    assert first.taken == second.taken
    assert taken(far) == 1
    assert len(stored(cli)) == 1
    # Another one with the same content is another delivery and the same file.
    acknowledged(far.deliver(parcel(entry(2))))
    assert (taken(far), len(stored(cli))) == (2, 1)


def test_empty_and_long_bundles_are_taken(cli: Cli, far: Serving) -> None:
    for number, content in enumerate((b"", os.urandom(3 * 2**20 + 1)), 1):
        answer = acknowledged(far.deliver(parcel(entry(number, content), content)))
        assert answer.taken[0].outcome == "taken"
        assert stored(cli)[entry(1, content).bundle_hash.hex()] == content


def test_bundle_of_a_key_that_is_not_trusted_is_refused(cli: Cli, far: Serving) -> None:
    answer = far.deliver(parcel(key=OTHER_KEY))
    assert (answer.status, answer.json["reason"]) == (403, "untrusted_key")
    assert list(answer.json) == ["error", "reason", "message", "retryable"]
    assert KEY.key_id.hex() not in answer.body.decode()  # Whom the market trusts is its own affair.
    assert (stored(cli), taken(far)) == ({}, 0)


BAD = {
    "cut off": (parcel()[:-1], "wrong_length"),
    "without its bytes": (envelope.text(THEIRS, KEY, [entry()]), "wrong_length"),
    "with more behind": (parcel() + b"x", "wrong_length"),
    "another content": (parcel()[:-1] + b"!", "wrong_hash"),
    "a changed envelope": (parcel().replace(b"alice", b"malory", 1), "bad_signature"),
    "two bundles": (envelope.text(THEIRS, KEY, [entry(1), entry(2)]) + CONTENT, "malformed"),
    "no envelope": (b"x\ny\nz\n", "malformed"),
    "a line without end": (b"x" * 200_000, "malformed"),
    "nothing": (b"", "malformed"),
    "nested too deep": (b'{"x":' + b"[" * 2000 + b"\n{}\n{}\n", "malformed"),
    "zeros": (bytes(100_000), "malformed"),
}


@pytest.mark.parametrize(("body", "reason"), BAD.values(), ids=BAD)
def test_bundle_that_is_not_what_was_signed_is_refused(
    cli: Cli, far: Serving, body: bytes, reason: str
) -> None:
    answer = far.deliver(body)
    assert (answer.status, answer.json["reason"]) == (400, reason)
    assert (stored(cli), taken(far)) == ({}, 0)
    acknowledged(far.deliver(parcel()))


def test_handoff_of_a_job_that_has_ended_is_refused(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "cancel", "j1")
    with serving() as far:
        (answer,) = acknowledged(far.deliver(parcel(handoff(1, "j1")))).taken
        assert answer.outcome == "refused"
        assert "j1 is cancelled" in (answer.error or "")
        assert (stored(cli), taken(far)) == ({}, 0)


def test_bundle_for_which_there_is_no_room_is_left_for_later(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inbox, "RESERVE_BYTES", 2**60)
    with serving() as far:
        answer = far.deliver(parcel())
    assert (answer.status, answer.json["retryable"]) == (503, True)
    assert str(cli.home) not in answer.body.decode()  # It is told to nobody but the operator.
    assert str(cli.home) in str(logged(capsys.readouterr().err)[-1]["error"])


def test_room_is_kept_for_what_is_under_way(
    cli: Cli, far: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = os.statvfs(cli.home)
    room = 300_000  # for one of the two, and the half of another
    monkeypatch.setattr(inbox, "RESERVE_BYTES", disk.f_bavail * disk.f_frsize - room)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    contents = [os.urandom(room * 2 // 3) for _ in range(2)]
    first, second = (parcel(entry(n, each), each) for n, each in enumerate(contents, 1))
    with far.begun(first[:-1000]) as begun:
        wait_until(lambda: (cli.home / "inbox").exists() and os.listdir(cli.home / "inbox") != [])
        # Free is what nothing was written to yet.
        assert far.deliver(second).status == 503
        assert acknowledged(begun.end(first[-1000:])).taken[0].outcome == "taken"
    assert acknowledged(far.deliver(second)).taken[0].outcome == "taken"


def test_bundle_is_not_taken_twice_when_it_comes_twice_at_once(cli: Cli, far: Serving) -> None:
    body = parcel()
    with far.begun(body[:-1]) as first, far.begun(body[:-1]) as second:
        assert [acknowledged(each.end(body[-1:])).taken[0].outcome for each in (second, first)] == [
            "taken",
            "taken",
        ]
    assert (taken(far), len(stored(cli))) == (1, 1)


def test_market_that_others_write_puts_off_what_changes_it_and_goes_on_looking(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("key", "new", "node")
    monkeypatch.setenv("TB_LOCK_TIMEOUT_SECS", "1")
    with serving() as far:
        acknowledged(far.deliver(parcel(entry(1))))
        with locked(cli.home / "market"):
            answer = far.deliver(parcel(entry(2)))
            assert (answer.status, answer.json["retryable"]) == (503, True)
            assert far.ask("GET", "/healthz").status == 200
            # What is known already changes nothing, and needs no lock.
            assert acknowledged(far.deliver(parcel(entry(1)))).taken[0].outcome == "taken"
        assert acknowledged(far.deliver(parcel(entry(2)))).taken[0].outcome == "taken"


# Requests that are none.


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


def wait_until(is_so: Callable[[], bool]) -> None:
    """Until it is so, for a while."""
    for _ in range(500):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to it")


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


# Scores.


def told(*scores: tuple[str, int, int], key: Key = KEY) -> dict[str, str]:
    """The parameters that tell scores with their epochs."""
    entries = [Told(*each) for each in scores]
    (text,) = gossip.messages(entries, key, THEIRS, 0)
    return {"message": text.decode()}


def counts(applied: int, ignored: int, ahead: int) -> dict[str, int]:
    return {"applied": applied, "ignored": ignored, "from_the_future": ahead}


def test_scores_are_taken_when_they_are_news(cli: Cli, far: Serving) -> None:
    news = told(("acme", -5, cli.now), ("bolt", 7, cli.now))
    assert far.call(GOSSIP, news)["result"] == counts(2, 0, 0)
    assert far.call(GOSSIP, news)["result"] == counts(0, 2, 0)
    older = told(("acme", 900, cli.now - 1))
    assert far.call(GOSSIP, older)["result"] == counts(0, 1, 0)
    assert far.view(lambda txn: reputation.score(txn, "acme")) == -5


def test_scores_of_the_future_and_out_of_bounds_are_ignored_and_told(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    lies = told(("acme", 5, cli.now + 1000), ("bolt", 5000, cli.now), ("cog", 1, cli.now))
    with serving() as far:
        assert far.call(GOSSIP, lies)["result"] == counts(1, 2, 1)
    (line,) = logged(capsys.readouterr().err)
    assert line["error"] == "3 scores: applied 1, ignored 2 (1 from the future, 1 no score)"


def test_scores_bar_offers_at_once(cli: Cli) -> None:
    cli.post()
    with serving() as far:
        far.call(GOSSIP, told(("prov", -5, cli.now + 1)))
    done = cli(*cli.job_arguments("j1"), "--json")
    assert (done.code, done.error["reason"]) == (5, "reputation_failure")


def changed() -> dict[str, str]:
    return {"message": told(("acme", 5, 1))["message"].replace("acme", "acne")}


UNBELIEVED = {
    "another key": (told(("acme", 5, 1), key=OTHER_KEY), -32000, "untrusted_key"),
    "changed": (changed(), -32000, "bad_signature"),
    "no message": ({"message": "nonsense"}, -32000, "malformed"),
    "a long line": ({"message": '{"a":1}' * 100_000}, -32000, "malformed"),
    "nested too deep": ({"message": '{"x":' + "[" * 2000 + "\n"}, -32000, "malformed"),
    "a number": ({"message": 5}, -32602, None),
    "nothing": ({}, -32602, None),
    "none": (None, -32602, None),
    "no text": ({"message": "\ud800"}, -32700, None),
    "a list": (["x"], -32602, None),
}


@pytest.mark.parametrize(("params", "code", "reason"), UNBELIEVED.values(), ids=UNBELIEVED)
def test_scores_that_are_not_believed_change_nothing(
    far: Serving, params: object, code: int, reason: str | None
) -> None:
    error = far.call(GOSSIP, params)["error"]
    assert (error["code"], error.get("data", {}).get("reason")) == (code, reason)
    assert far.view(lambda txn: list(reputation.entries(txn))) == []


def test_market_that_has_opted_out_listens_to_nobody(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_REPUTATION_GOSSIP", "false")
    with serving() as far:
        error = far.call(GOSSIP, told(("acme", 5, cli.now)))["error"]
    assert error["data"]["reason"] == "gossip_off"


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
