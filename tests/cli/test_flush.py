"""`compute courier flush` against every kind of destination, right and wrong ones, for real."""

import errno
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from compute_market.courier import courier, envelope
from compute_market.courier.courier import Attempted, Bundle
from compute_market.courier.envelope import Envelope, Taken
from compute_market.metrics import value
from compute_market.records import replace
from compute_market.store.txn import Txn
from tb_cli.frame import bundles
from tests.support.cli import Cli
from tests.support.far_end import Asked, FarEnd, acknowledge, far_end, response
from tests.support.importing import OTHERS
from tests.support.receipt_file import KEY, OTHER_KEY
from tests.support.serving import made_certificate, serving

pytest_plugins = ("tests.support.cli",)

FLUSH = ("compute", "courier", "flush")
HALLO = b"hallo"


@pytest.fixture(autouse=True)
def settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A market with a key, which believes `KEY` and waits little between attempts."""
    monkeypatch.setenv("TB_NET_TRUSTED", KEY.key_id.hex())
    monkeypatch.setenv("TB_COURIER_BACKOFF_MS", "1")
    cli.ok("state", "init")
    cli.ok("key", "new", "node")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory to forward to."""
    path = tmp_path / "stick"
    path.mkdir()
    return path


def send(cli: Cli, dest: str | None = None, content: bytes = HALLO, sender: str = "alice") -> str:
    """Store a bundle; its id."""
    path = cli.directory / "bundle"
    path.write_bytes(content)
    to = () if dest is None else ("--to", dest)
    found: str = cli.document("compute", "courier", "send", path, sender, *to)["id"]
    return found


def shown(cli: Cli, bundle_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cli.document("compute", "courier", "show", bundle_id)
    return found


def counters(cli: Cli) -> tuple[int, int]:
    """Attempts, and failures."""
    names = "courier_flush_attempt_total", "courier_flush_failure_total"
    attempts, failures = (cli.view(lambda txn: value(txn, name)) for name in names)  # noqa: B023 - at once
    return attempts, failures


def envelopes(directory: Path) -> list[Envelope]:
    found = sorted((directory / "envelopes").iterdir())
    assert all(path.suffix == ".tb" for path in found)
    return [envelope.parse(path.read_bytes(), path.name) for path in found]


def program(cli: Cli, text: str, name: str = "program") -> str:
    """The destination of a program in Shell."""
    path = cli.directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"exec:{path}"


TAKES = "cat > /dev/null; echo $BUNDLE_HASH"


# What arrives.


def test_flush_forwards_to_the_outbox(cli: Cli) -> None:
    ids = {send(cli), send(cli, content=b""), send(cli, sender="bob")}
    assert cli.ok(*FLUSH) == "acknowledged 3 of 3 bundles\n"
    outbox = cli.home / "outbox"
    assert {path.name: path.read_bytes() for path in (outbox / "bundles").iterdir()} == {
        blake3(content).hexdigest(): content for content in (HALLO, b"")
    }
    (found,) = envelopes(outbox)
    assert {courier.id_text(each.receipt_id) for each in found.entries} == ids
    assert {each.sender for each in found.entries} == {"alice", "bob"}
    for path in outbox.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    for bundle_id in ids:
        document = shown(cli, bundle_id)
        assert (document["acknowledged"], document["attempts"]) == (True, 1)
    assert counters(cli) == (3, 0)


def test_flush_with_nothing_to_forward_says_so(cli: Cli) -> None:
    assert cli.ok(*FLUSH) == "acknowledged 0 of 0 bundles\n"
    send(cli)
    cli.ok(*FLUSH)
    assert cli.document(*FLUSH) == {
        "acknowledged": 0,
        "bundles": 0,
        "refused": 0,
        "failed": 0,
        "left": 0,
        "held": 0,
        "attempts": 0,
        "failures": 0,
        "problems": [],
    }


def test_flush_with_nothing_to_forward_imports_nothing_that_forwards(cli: Cli) -> None:
    send(cli)
    cli.ok(*FLUSH)
    code = (
        "import sys; from tb_cli.entry import call; call(sys.argv[1:]);"
        "print(*(name for name in sys.modules if 'forward' in name or 'courier' in name"
        " or name in ('http', 'ssl', 'concurrent.futures', 'blake3', 'cryptography')))"
    )
    words = [sys.executable, "-c", code, *FLUSH]
    found = subprocess.run(words, capture_output=True, check=True, text=True)
    assert found.stdout.splitlines() == ["acknowledged 0 of 0 bundles", "tb_cli.courier_flush"]


def test_flush_makes_the_key_that_signs_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_NET_KEY", "other")
    send(cli)
    done = cli(*FLUSH)
    key_id = cli.document("key", "show", "other")["key_id"]
    assert done.code == 0
    assert done.err == f"made key other, which signs what goes to other markets: {key_id}\n"
    (found,) = envelopes(cli.home / "outbox")
    assert found.key.key_id.hex() == key_id


def test_flush_forwards_to_a_directory_that_is_there(cli: Cli, there: Path) -> None:
    send(cli, f"dir:{there}")
    assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"
    assert len(envelopes(there)) == 1


def test_long_bundle_with_holes_arrives(cli: Cli, there: Path) -> None:
    content = b"a" + bytes(5 << 20) + b"b" + bytes(3 << 20)
    bundle_id = send(cli, f"dir:{there}", content)
    cli.ok(*FLUSH)
    (path,) = (there / "bundles").iterdir()
    assert path.read_bytes() == content
    assert shown(cli, bundle_id)["bundle_hash"] == path.name


def test_reward_is_paid_once_and_with_the_acknowledgement(cli: Cli) -> None:
    cli.real()
    before = cli.wallet("alice")
    bundle_id = send(cli)
    assert cli.wallet("alice") == before
    cli.ok(*FLUSH)
    assert cli.wallet("alice") == (before[0] + 1, before[1])
    cli.ok("compute", "courier", "resend", bundle_id)
    assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"
    assert cli.wallet("alice") == (before[0] + 1, before[1])
    assert counters(cli) == (2, 0)


# By HTTP.


def test_courier_retry_updates_metrics(cli: Cli) -> None:
    """Two attempts fail and the third arrives: three attempts, two failures, one reward."""
    cli.real()
    before = cli.wallet("alice")[0]

    def answers(asked: Asked) -> bytes | None:
        return response(b"", "503 Busy") if len(far.asked) <= 2 else acknowledge(asked)

    with far_end(answers) as far:
        bundle_id = send(cli, far.url)
        assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"
    assert counters(cli) == (3, 2)
    assert "courier_flush_attempt_total 3.0" in cli.ok("metrics")
    assert "courier_flush_failure_total 2.0" in cli.ok("metrics")
    document = shown(cli, bundle_id)
    assert (document["attempts"], document["acknowledged"]) == (3, True)
    assert document["last_error"] is None
    assert cli.wallet("alice")[0] == before + 1
    assert {asked.line for asked in far.asked} == {"POST /courier.deliver HTTP/1.1"}
    (last,) = {asked.body[len(asked.envelope) :] for asked in far.asked}
    assert last == HALLO


def test_another_market_answers_for_what_it_has(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server takes bundles of every length, over connections that are used again."""
    there = cli.directory / "there"
    cli.ok("--home", there, "state", "init")
    words = ("key", "new", "node")
    key_ids = [cli.document("key", "show", "node")["key_id"]]
    key_ids.append(cli.document("--home", there, *words)["key_id"])
    monkeypatch.setenv("TB_NET_TRUSTED", ",".join(key_ids))
    contents = {b"", HALLO, bytes(3 << 20) + b"x"}
    with serving(str(there)) as far:
        ids = [send(cli, far.url, content) for content in contents]
        assert cli(*FLUSH).out == "acknowledged 3 of 3 bundles\n"
        assert cli("compute", "courier", "resend", *ids).code == 0
        assert cli(*FLUSH, "--parallel", "1").out == "acknowledged 3 of 3 bundles\n"
    assert {path.read_bytes() for path in (there / "inbox").iterdir()} == contents
    assert counters(cli) == (6, 0)


def test_path_of_an_address_is_kept(cli: Cli) -> None:
    with far_end(acknowledge) as far:
        send(cli, f"{far.url}other/path?x=1")
        cli.ok(*FLUSH)
    assert [asked.line for asked in far.asked] == ["POST /other/path?x=1 HTTP/1.1"]


def test_connection_that_was_closed_meanwhile_is_no_failure(cli: Cli) -> None:
    """A server may end a connection that it kept, just when it is to be used again."""

    def answers(asked: Asked) -> bytes | None:
        connections.append(asked)
        # Every second request of a connection meets its end.
        return None if len(connections) == 2 else acknowledge(asked)

    connections: list[Asked] = []
    with far_end(answers) as far:
        send(cli, far.url)
        send(cli, far.url, b"two")
        assert cli.ok(*FLUSH, "--parallel", "1") == "acknowledged 2 of 2 bundles\n"
    assert counters(cli) == (2, 0)


def drip(asked: Asked) -> bytes | None:
    """An answer a byte at a time, which would go on for long."""
    time.sleep(2)
    return b""


def other(**changes: Any) -> Callable[[list[Taken]], list[Taken]]:
    return lambda taken: [replace(each, **changes) for each in taken]


def other_envelope(asked: Asked) -> bytes:
    entry = replace(envelope.parse(asked.envelope, "it").entries[0], sender="mallory")
    return acknowledge(asked, of=envelope.text(OTHERS, OTHER_KEY, [entry]))


FAULTS: dict[str, tuple[Callable[[Asked], bytes | None], str]] = {
    "another hash": (lambda asked: acknowledge(asked, change=other(bundle_hash=bytes(32))), "hash"),
    "another id": (lambda asked: acknowledge(asked, change=other(receipt_id=5)), "other bundles"),
    "a bundle twice": (lambda asked: acknowledge(asked, change=lambda t: t * 2), "other bundles"),
    "another envelope": (other_envelope, "another envelope"),
    "a key not trusted": (lambda asked: acknowledge(asked, key=OTHER_KEY), "not trusted"),
    "a changed answer": (lambda asked: changed(asked), "the signature is not that of key"),
    "rubbish": (lambda _: response(b"{}"), "format is missing"),
    "nothing": (lambda _: response(b""), "it ends too early"),
    "nested too deep": (lambda _: response(b'{"x":' + b"[" * 2000), "the acknowledgement: "),
    "no HTTP": (lambda _: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no answer of HTTP"),
    "a redirect": (
        lambda _: response(b"", "307 Moved", location="http://127.0.0.1:1/"),
        "it redirects to http://127.0.0.1:1/, and no redirect is followed",
    ),
    "an error": (lambda _: response(b"no\nroom\x1b", "507 Full"), r"HTTP 507: no room\x1b"),
    "no word": (lambda _: None, "closed connection without response"),
    "half an answer": (lambda asked: cut(asked), "cut off"),
    "an endless answer": (
        lambda _: response(b"x" * (2 << 20), content_length=str(2 << 40)),
        "more than 1048576 bytes",
    ),
    "a length that is none": (lambda _: response(b"{}", content_length="x"), ""),
    "no answer in time": (drip, "no answer within 1 s"),
}


def cut(asked: Asked) -> bytes:
    """An answer that ends before it is whole."""
    whole = acknowledge(asked)
    head, _, body = whole.partition(b"\r\n\r\n")
    return head + b"\r\nConnection: close\r\n\r\n" + body[: len(body) // 2]


def changed(asked: Asked) -> bytes:
    return acknowledge(asked).replace(b"null", b'"xy"')


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_answer_acknowledges_nothing(
    cli: Cli, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_COURIER_TIMEOUT_SECS", "1")
    answers, problem = FAULTS[name]
    with far_end(answers) as far:
        bundle_id = send(cli, far.url)
        done = cli(*FLUSH, "--max-attempts", "2")
    assert (done.code, done.out) == (10, "acknowledged 0 of 1 bundles\n")
    assert done.err.startswith(f"{far.url}: 1 not taken: ")
    assert problem in done.err
    document = shown(cli, bundle_id)
    assert (document["state"], document["attempts"]) == ("pending", 2)
    assert document["last_error"]
    assert document["next_attempt_at"] is None
    assert counters(cli) == (2, 2)
    assert len(cli.view(lambda txn: list(courier.receipts(txn)))) == 1


def test_nobody_there_is_tried_five_times(cli: Cli) -> None:
    bundle_id = send(cli, "http://127.0.0.1:1/")
    assert cli(*FLUSH).code == 10
    document = shown(cli, bundle_id)
    assert document["attempts"] == 5
    assert "connection refused" in document["last_error"]


def test_bundle_that_is_refused_is_not_sent_again(cli: Cli) -> None:
    def answers(asked: Asked) -> bytes:
        return acknowledge(asked, change=other(outcome="refused", error="no such lane"))

    with far_end(answers) as far:
        bundle_id = send(cli, far.url)
        done = cli(*FLUSH)
        assert (done.code, done.out) == (0, "acknowledged 0 of 1 bundles\n")
        assert cli.ok(*FLUSH) == "acknowledged 0 of 0 bundles\n"
    assert len(far.asked) == 1
    document = shown(cli, bundle_id)
    assert (document["state"], document["last_error"]) == ("refused", "no such lane")


@pytest.mark.parametrize("dest", ["http://user:secret@127.0.0.1/", "http://[::1", "http://a..b/"])
def test_address_that_cannot_be_one_is_refused_when_it_is_given(cli: Cli, dest: str) -> None:
    path = cli.directory / "bundle"
    path.write_bytes(HALLO)
    done = cli("compute", "courier", "send", path, "alice", "--to", dest)
    assert (done.code, done.out, "secret" in done.err) == (2, "", False)
    assert cli.document("compute", "courier", "list") == []


@pytest.mark.parametrize("dest", ["http://[::1", "http://a..b/", f"http://{'a' * 70}/", "x:y", ""])
def test_stored_address_that_cannot_be_one_fails_its_bundle_alone(cli: Cli, dest: str) -> None:
    bundle_id = stored(cli, dest)
    send(cli)
    done = cli(*FLUSH)
    assert (done.code, done.out) == (10, "acknowledged 1 of 2 bundles\n")
    assert done.err.count("\n") == 1
    document = shown(cli, bundle_id)
    assert (document["state"], document["attempts"]) == ("pending", 1)


def stored(cli: Cli, dest: str) -> str:
    """A bundle for a destination that no command takes by now; its id."""
    found = courier.parse_id(send(cli))

    def act(txn: Txn) -> str:
        receipt = courier.get(txn, found)
        bundle = Bundle(receipt.bundle_hash, receipt.size, "alice", dest)
        courier.record(txn, [Attempted(receipt.seq, "refused", 1, 1)])
        return courier.id_text(courier.send(txn, bundle, bundles.random_ids()).receipt_id)

    return cli.update(act)


def test_certificate_that_verifies_is_believed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = made_certificate(cli.directory)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with far_end(acknowledge, certificate) as far:
        send(cli, far.url)
        send(cli, far.url, b"two")
        assert cli.ok(*FLUSH) == "acknowledged 2 of 2 bundles\n"


def test_certificate_of_anybody_is_not_believed(cli: Cli) -> None:
    with far_end(acknowledge, made_certificate(cli.directory)) as far:
        send(cli, far.url)
        done = cli(*FLUSH, "--max-attempts", "1")
    assert done.code == 10
    assert "its certificate does not verify: self-signed certificate" in done.err
    assert far.asked == []


def test_certificate_of_another_host_is_not_believed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = made_certificate(cli.directory)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with far_end(acknowledge, certificate) as far:
        send(cli, far.url.replace("127.0.0.1", "127.0.0.2"))
        done = cli(*FLUSH, "--max-attempts", "1")
    assert done.code == 10
    assert "not_delivered" not in done.err
    assert far.asked == []


# By a program.


def test_program_gets_the_bundle_and_says_its_hash(cli: Cli) -> None:
    content = os.urandom(300_000)
    dest = program(
        cli, f'cat > "{cli.directory}/got"; echo "$BUNDLE_SENDER $BUNDLE_ID" >&2;echo $BUNDLE_HASH'
    )
    send(cli, dest, content)
    assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"
    assert (cli.directory / "got").read_bytes() == content


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cat > /dev/null; echo rubbish", "it printed 'rubbish', not the hash"),
        ("cat > /dev/null", "it printed '', not the hash"),
        ("cat > /dev/null; printf '\\033[2J\\\\'", r"it printed '\x1b[2J\', not the hash"),
        ("cat > /dev/null; echo $BUNDLE_HASH more", "not the hash"),
        (f"{TAKES}; exit 3", "exit code 3"),
        (f"{TAKES}; kill -9 $$", "killed by signal 9"),
        ("cat > /dev/null; yes", "killed after 1 s without an end"),
        (f"{TAKES}; exec 1>&-; sleep 600", "killed after 1 s without an end"),
        ("sleep 600", "killed after 1 s without an end"),
    ],
)
def test_program_that_does_otherwise_acknowledges_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setenv("TB_COURIER_TIMEOUT_SECS", "1")
    bundle_id = send(cli, program(cli, text), bytes(500_000))
    done = cli(*FLUSH, "--max-attempts", "1")
    assert (done.code, done.out) == (10, "acknowledged 0 of 1 bundles\n")
    assert problem in done.err
    assert shown(cli, bundle_id)["state"] == "pending"


@pytest.mark.parametrize(
    ("dest", "problem"),
    [
        ("exec:/nowhere/at/all", "no such file or directory"),
        ("exec:/etc/passwd", "permission denied"),
    ],
)
def test_program_that_cannot_be_started_is_told(cli: Cli, dest: str, problem: str) -> None:
    send(cli, dest)
    done = cli(*FLUSH, "--max-attempts", "1")
    assert done.code == 10
    assert problem in done.err


def test_program_needs_not_read_all(cli: Cli) -> None:
    send(cli, program(cli, "echo $BUNDLE_HASH"), bytes(5 << 20))
    assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"


def test_what_a_program_has_started_is_killed_with_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_COURIER_TIMEOUT_SECS", "1")
    mark = cli.directory / "pid"
    send(cli, program(cli, f"sleep 600 & echo $! > {mark}; wait"))
    assert cli(*FLUSH, "--max-attempts", "1").code == 10
    until = time.monotonic() + 10
    while Path(f"/proc/{mark.read_text().strip()}/cmdline").exists():
        if "Z" in Path(f"/proc/{mark.read_text().strip()}/stat").read_text().split()[2]:
            break
        assert time.monotonic() < until
        time.sleep(0.01)


# To a directory.


def test_directory_that_is_not_there_is_not_made(cli: Cli) -> None:
    path = cli.directory / "unmounted"
    bundle_id = send(cli, f"dir:{path}")
    done = cli(*FLUSH)
    assert done.code == 10
    assert "no such file or directory" in done.err
    assert not path.exists()
    path.mkdir()
    assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"
    assert shown(cli, bundle_id)["attempts"] == 6


def test_directory_inside_the_home_is_made(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_COURIER_DEST", "dir:a/b")
    send(cli)
    cli.ok(*FLUSH)
    assert len(envelopes(cli.home / "a" / "b")) == 1


def test_damaged_file_at_the_destination_is_put_right(cli: Cli, there: Path) -> None:
    (there / "bundles").mkdir()
    path = there / "bundles" / blake3(HALLO).hexdigest()
    path.write_bytes(b"hullo")
    send(cli, f"dir:{there}")
    cli.ok(*FLUSH)
    assert path.read_bytes() == HALLO


@pytest.mark.parametrize("name", ["bundles", "envelopes"])
def test_file_in_the_way_is_told(cli: Cli, there: Path, name: str) -> None:
    (there / name).write_text("")
    send(cli, f"dir:{there}")
    done = cli(*FLUSH, "--max-attempts", "1")
    assert done.code == 10
    assert f"{there}/{name}" in done.err


def test_no_link_at_the_destination_is_followed(cli: Cli, there: Path) -> None:
    (there / "bundles").mkdir()
    precious = cli.directory / "precious"
    precious.write_text("precious")
    (there / "bundles" / blake3(HALLO).hexdigest()).symlink_to(precious)
    send(cli, f"dir:{there}")
    done = cli(*FLUSH, "--max-attempts", "1")
    assert done.code == 10
    assert "link" in done.err
    assert precious.read_text() == "precious"


def full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle alone does not fit."""
    from tb_cli.network import directory

    put = directory._put

    def fits(descriptor: int, piece: bytes) -> None:
        if blake3(piece).hexdigest() == path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(descriptor, piece)

    monkeypatch.setattr(directory, "_put", fits)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (full, "no space left on device"),
        (lambda path, _: path.mkdir(), "is a directory"),
        (lambda path, _: path.symlink_to("/dev/zero"), "is a link"),
        (lambda path, _: os.mkfifo(path), "not a regular file"),
    ],
)
def test_bundle_that_a_directory_cannot_take_fails_alone(
    cli: Cli,
    there: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    problem: str,
) -> None:
    (there / "bundles").mkdir()
    ids = [send(cli, f"dir:{there}", str(n).encode()) for n in range(5)]
    spoil(there / "bundles" / shown(cli, ids[2])["bundle_hash"], monkeypatch)
    done = cli(*FLUSH, "--max-attempts", "2")
    assert (done.code, done.out) == (10, "acknowledged 4 of 5 bundles\n")
    assert f"1 not taken: {there}" in done.err
    assert problem in done.err
    for n, bundle_id in enumerate(ids):
        document = shown(cli, bundle_id)
        assert (document["acknowledged"], document["attempts"]) == (n != 2, 1 + (n == 2))
        assert (document["last_error"] is None) == (n != 2)
    (found,) = envelopes(there)
    assert {courier.id_text(each.receipt_id) for each in found.entries} == {*ids} - {ids[2]}


@pytest.mark.parametrize("name", ["outbox", "outbox/bundles", "outbox/envelopes", "a"])
def test_no_link_in_the_home_is_followed(
    cli: Cli, there: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "a":
        monkeypatch.setenv("TB_COURIER_DEST", "dir:a/b")
        (there / "b").mkdir()
    cli.real()
    bundle_id = send(cli)
    link = cli.home / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(there)
    before = cli.wallet("alice")
    for _ in range(2):
        done = cli(*FLUSH, "--max-attempts", "1")
        assert (done.code, done.out) == (10, "acknowledged 0 of 1 bundles\n")
        assert f"{link}: is a link, and no link is followed here" in done.err
    cli.ok("compute", "courier", "resend", bundle_id)
    stored(cli, f"dir:{cli.home}/outbox" if name != "a" else f"dir:{link}/b")  # No way round.
    assert cli(*FLUSH, "--max-attempts", "1").code == 10
    assert [path for path in there.rglob("*") if path.is_file()] == []
    assert cli.wallet("alice") == before


@pytest.mark.parametrize("name", ["market", "keys", "spool", "inbox", "bids", "spool/x", "."])
def test_nothing_is_forwarded_into_what_is_the_homes_own(cli: Cli, there: Path, name: str) -> None:
    send(cli)
    cli.ok(*FLUSH)
    (cli.home / name).mkdir(exist_ok=True)
    (there / "way").symlink_to(cli.home / name)
    path = cli.directory / "bundle"
    before = cli.files()
    for dest in (f"dir:{cli.home}/{name}", f"dir:{there}/way", f"dir:home/{name}/"):
        done = cli("compute", "courier", "send", path, "alice", "--to", dest)
        assert (done.code, "belongs to the market itself" in done.err) == (2, True), dest
    assert cli.files() == before
    ids = [stored(cli, dest) for dest in (f"dir:{cli.home}/{name}", f"dir:{name}")]
    assert cli(*FLUSH).code == 10
    assert {shown(cli, each)["attempts"] for each in ids} == {1}
    assert not list((cli.home / name).glob("bundles")) + list((cli.home / name).glob("envelopes"))


# What is wrong with the spool.


@pytest.fixture
def ways(cli: Cli, there: Path) -> Iterator[dict[str, str]]:
    """A destination of each kind that takes everything."""
    with ExitStack() as stack:
        far: FarEnd = stack.enter_context(far_end(acknowledge))
        yield {"dir": f"dir:{there}", "http": far.url, "exec": program(cli, TAKES)}


def missing(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, 3)


@pytest.mark.parametrize("way", ["dir", "http", "exec"])
@pytest.mark.parametrize("damage", [missing, flipped, cut_short])
def test_bundle_that_is_damaged_is_told_and_kept_while_others_go_on(
    cli: Cli, ways: dict[str, str], way: str, damage: Callable[[Path], None]
) -> None:
    content = bytes(3 << 20) + b"x"
    bundle_id = send(cli, ways[way], content)
    others = [send(cli, ways[way], str(n).encode()) for n in range(3)]
    damage(cli.home / "spool" / blake3(content).hexdigest())
    done = cli(*FLUSH)
    assert (done.code, done.out) == (10, "acknowledged 3 of 4 bundles\n")
    assert blake3(content).hexdigest() in done.err
    document = shown(cli, bundle_id)
    assert (document["state"], document["attempts"]) == ("pending", 1)
    assert all(shown(cli, each)["acknowledged"] for each in others)
    send(cli, ways[way], content)  # This puts it right.
    assert cli.ok(*FLUSH) == "acknowledged 2 of 2 bundles\n"


# Many, and several at once.


def test_dead_destination_does_not_block_others(cli: Cli) -> None:
    dead = [send(cli, "http://127.0.0.1:1/", b"dead") for _ in range(3)]
    live = [send(cli, content=str(n).encode()) for n in range(3)]
    done = cli(*FLUSH, "--parallel", "1")
    assert (done.code, done.out) == (10, "acknowledged 3 of 6 bundles\n")
    assert all(shown(cli, each)["acknowledged"] for each in live)
    assert {shown(cli, each)["attempts"] for each in dead} == {5}


@pytest.mark.parametrize("order", ["hangs first", "hangs last"])
def test_destination_that_hangs_does_not_have_all_threads(cli: Cli, order: str) -> None:
    """All that others take has arrived while what hangs first still hangs."""
    hangs = program(cli, f"echo . >> {cli.directory}/hung; exec sleep 600", "hangs")
    works = program(cli, f"{TAKES}; echo . >> {cli.directory}/taken", "works")
    for dest in (works, hangs) if order == "hangs last" else (hangs, works):
        for _ in range(12):
            send(cli, dest)
    flush = cli.start(*FLUSH, env=os.environ | {"TB_COURIER_TIMEOUT_SECS": "60"})
    until = time.monotonic() + 30
    try:
        while lines(cli.directory / "taken") < 12:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        flush.send_signal(signal.SIGINT)
        flush.communicate(timeout=20)
    assert lines(cli.directory / "hung") <= 3


def lines(path: Path) -> int:
    return path.read_text().count(".") if path.exists() else 0


def test_destination_that_takes_nothing_is_given_up(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli.network import forwarding

    monkeypatch.setattr(forwarding, "_GIVE_UP_AFTER", 4)
    for _ in range(12):
        send(cli, "http://127.0.0.1:1/")
    done = cli(*FLUSH, "--parallel", "1", "--max-attempts", "1")
    assert (done.code, done.out) == (10, "acknowledged 0 of 12 bundles\n")
    assert "12 not taken" in done.err
    assert counters(cli) == (4, 4)


def test_limit_leaves_the_rest(cli: Cli) -> None:
    ids = [send(cli, content=str(n).encode()) for n in range(5)]
    done = cli(*FLUSH, "--limit", "2")
    assert (done.code, done.out) == (10, "acknowledged 2 of 5 bundles\n")
    assert [shown(cli, each)["acknowledged"] for each in ids] == [True] * 2 + [False] * 3
    assert cli(*FLUSH, "--limit", "0").code == 10
    assert cli.ok(*FLUSH, "--limit", "3") == "acknowledged 3 of 3 bundles\n"


def test_window_is_smaller_than_the_queue(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.network import forwarding

    monkeypatch.setattr(forwarding, "WINDOW", 4)
    monkeypatch.setattr(forwarding, "PAGE", 2)
    for _ in range(7):
        send(cli)
        send(cli, program(cli, TAKES))
        send(cli, "http://127.0.0.1:1/")
    done = cli(*FLUSH)
    assert (done.code, done.out) == (10, "acknowledged 14 of 21 bundles\n")
    assert counters(cli) == (14 + 35, 35)


def test_whole_window_that_is_done_at_once_is_not_the_end(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli.network import forwarding

    monkeypatch.setattr(forwarding, "WINDOW", 3)
    monkeypatch.setattr(forwarding, "PAGE", 2)
    for _ in range(9):
        send(cli)
    done = cli(*FLUSH)
    assert (done.code, done.out) == (0, "acknowledged 9 of 9 bundles\n")


def test_page_that_another_flush_has_is_not_the_end(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli.network import forwarding

    monkeypatch.setattr(forwarding, "PAGE", 2)
    for _ in range(7):
        send(cli)
    cli.update(lambda txn: courier.claim(txn, b"flush 02", None, 4))
    done = cli(*FLUSH)
    assert (done.code, done.out) == (10, "acknowledged 3 of 7 bundles\n")
    assert cli(*FLUSH, "--limit", "0").out == "acknowledged 0 of 4 bundles\n"


def test_dry_run_forwards_nothing(cli: Cli) -> None:
    bundle_id = send(cli)
    before = cli.files()
    assert cli.ok(*FLUSH, "-n") == "dry_run: acknowledged 1 of 1 bundles\n"
    assert cli.files() == before
    assert shown(cli, bundle_id)["attempts"] == 0


def test_flush_says_what_another_has(cli: Cli) -> None:
    for _ in range(3):
        send(cli, program(cli, TAKES))
    cli.update(lambda txn: courier.claim(txn, b"another!", None, 2))
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(cli.now + 300))
    done = cli(*FLUSH)
    assert (done.code, done.out) == (10, "acknowledged 1 of 3 bundles\n")
    assert done.err == f"2 are held by another flush until {until}\n"
    done = cli(*FLUSH, "--json")
    assert (done.code, done.json["held"], done.json["left"]) == (10, 2, 2)
    cli.advance(301)
    assert cli.document(*FLUSH)["held"] == 0


def test_destinations_beyond_those_that_are_told_are_counted(cli: Cli) -> None:
    for n in range(23):
        send(cli, f"exec:/nowhere/{n % 22}")
    done = cli(*FLUSH, "--max-attempts", "1")
    assert done.err.count(" not taken: ") == 20
    assert done.err.endswith("\nand 2 more destinations took less than all\n")


def test_two_flushes_at_once_forward_each_bundle_once(cli: Cli) -> None:
    log = cli.directory / "log"
    dest = program(cli, f"cat > /dev/null; echo $BUNDLE_ID >> {log}; echo $BUNDLE_HASH")
    ids = {send(cli, dest, str(n).encode()) for n in range(20)}
    both = [cli.start(*FLUSH, "--parallel", "2", "--limit", "10") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    cli(*FLUSH)  # What one looked at while the other had it.
    assert sorted(log.read_text().split()) == sorted(ids)
    assert counters(cli) == (20, 0)


def test_lease_of_a_killed_flush_ends_by_itself(cli: Cli) -> None:
    bundle_id = send(cli, program(cli, "echo $$ > pid; touch began; exec sleep 600"))
    process = cli.start(*FLUSH, "--parallel", "1")
    wait_for(cli.directory / "began")
    process.kill()
    process.communicate()
    os.kill(int((cli.directory / "pid").read_text()), signal.SIGKILL)
    cli.now_ms = time.time_ns() // 10**6
    done = cli(*FLUSH)
    assert (done.code, done.out) == (10, "acknowledged 0 of 1 bundles\n")
    assert shown(cli, bundle_id)["next_attempt_at"] is not None
    program(cli, TAKES)
    cli.advance(400)
    assert cli.ok(*FLUSH) == "acknowledged 1 of 1 bundles\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_flush_that_is_interrupted_gives_its_leases_back(cli: Cli, number: int) -> None:
    done_id = send(cli, content=b"done")
    ids = [send(cli, program(cli, "touch began; sleep 600")) for _ in range(2)]
    process = cli.start(*FLUSH, "--parallel", "2")
    wait_for(cli.directory / "began")
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out == b""
    assert err.decode().splitlines()[-1] == (
        "interrupted: acknowledged 1 of 3 bundles; run it again"
    )
    assert shown(cli, done_id)["acknowledged"]
    program(cli, TAKES)
    assert cli.ok(*FLUSH) == "acknowledged 2 of 2 bundles\n"
    assert all(shown(cli, each)["acknowledged"] for each in ids)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_terminal_shows_how_far_a_flush_is(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_COURIER_BACKOFF_MS", "1600")
    send(cli)
    send(cli, "http://127.0.0.1:1/")
    master, slave = pty.openpty()
    process = cli.start(*FLUSH, "--max-attempts", "2", stderr=slave, afresh=True)
    process.communicate(timeout=60)
    os.close(slave)
    shown = b""
    with suppress(OSError):
        while part := os.read(master, 65_536):
            shown += part
    os.close(master)
    assert b"sent 1, retried 0, left 1 (next try in 2 s)" in shown
    assert shown.decode().splitlines()[-1].endswith("connection refused")


def test_long_copy_to_a_directory_is_interrupted(cli: Cli, there: Path) -> None:
    path = cli.directory / "long"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    cli.ok("compute", "courier", "send", path, "alice", "--to", f"dir:{there}")
    process = cli.start(*FLUSH)
    until = time.monotonic() + 30
    while not list((there / "bundles").glob(".*.part")):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list((there / "bundles").iterdir()) == []


def test_json_tells_what_went_wrong_by_destination(cli: Cli) -> None:
    send(cli)
    send(cli, "http://127.0.0.1:1/")
    done = cli(*FLUSH, "--json", "--max-attempts", "2")
    assert (done.code, done.err) == (10, "")
    assert json.loads(done.out) == {
        "acknowledged": 1,
        "bundles": 2,
        "refused": 0,
        "failed": 1,
        "left": 1,
        "held": 0,
        "attempts": 3,
        "failures": 2,
        "problems": [
            {
                "dest": "http://127.0.0.1:1/",
                "bundles": 1,
                "error": "http://127.0.0.1:1/: connection refused",
            }
        ],
    }
