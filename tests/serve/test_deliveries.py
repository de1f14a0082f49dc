"""What a market answers to bundles: they are taken once, and nothing else is."""

import os

import pytest

from compute_market.chain import market_id
from compute_market.courier import envelope
from tb_cli.frame import inbox
from tests.support.cli import Cli
from tests.support.deliveries import CONTENT, entry, handoff
from tests.support.importing import THEIRS
from tests.support.peer import acknowledged, logged, parcel, stored, taken, wait_until
from tests.support.processes import locked
from tests.support.receipt_file import KEY, OTHER_KEY
from tests.support.serving import Serving, serving

pytest_plugins = ("tests.support.cli", "tests.support.peer")
pytestmark = pytest.mark.usefixtures("trusting")


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
