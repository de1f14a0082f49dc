"""`compute courier receive`: what another home has forwarded to a directory, whole or damaged."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from compute_market.courier import deliveries, envelope
from compute_market.courier.envelope import Entry
from compute_market.signatures.keys import Key
from tests.support.cli import Cli
from tests.support.deliveries import CONTENT, entry, handoff
from tests.support.importing import THEIRS
from tests.support.receipt_file import KEY, OTHER_KEY

pytest_plugins = ("tests.support.cli",)

RECEIVE = ("compute", "courier", "receive")
ONE = "received 1 bundles, 0 seen before\n"


@pytest.fixture(autouse=True)
def market(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that believes `KEY`."""
    cli.ok("state", "init")
    monkeypatch.setenv("TB_NET_TRUSTED", KEY.key_id.hex())


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A directory with one bundle."""
    return put(tmp_path / "stick", entry())


def put(stick: Path, *entries: Entry, key: Key = KEY, content: bytes | None = CONTENT) -> Path:
    """Have an envelope there, and the one content that its bundles have."""
    for name in ("bundles", "envelopes"):
        (stick / name).mkdir(parents=True, exist_ok=True)
    if content is not None:
        (stick / "bundles" / blake3(content).hexdigest()).write_bytes(content)
    text = envelope.text(THEIRS, key, entries)
    (stick / "envelopes" / f"{len(os.listdir(stick / 'envelopes'))}.tb").write_bytes(text)
    return stick


def inbox(cli: Cli) -> dict[str, bytes]:
    directory = cli.home / "inbox"
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def taken(cli: Cli) -> list[int]:
    found = cli.view(lambda txn: list(deliveries.deliveries(txn)))
    return [each.receipt_id for _, each in found]


def test_what_was_forwarded_is_taken_and_kept(cli: Cli, stick: Path) -> None:
    assert cli.ok(*RECEIVE, stick) == ONE
    assert inbox(cli) == {blake3(CONTENT).hexdigest(): CONTENT}
    (path,) = (cli.home / "inbox").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert taken(cli) == [1]


def test_what_was_taken_is_known_again(cli: Cli, stick: Path) -> None:
    cli.ok(*RECEIVE, stick)
    before = cli.files()
    assert cli.document(*RECEIVE, stick) == {
        "received": 0,
        "seen": 1,
        "failed": 0,
        "changed": False,
        "errors": [],
    }
    assert cli.files() == before
    (stick / "bundles" / blake3(CONTENT).hexdigest()).unlink()  # It is not looked at any more.
    assert cli.ok(*RECEIVE, stick) == "received 0 bundles, 1 seen before\n"


def test_bundles_of_one_home_reach_another(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, and back: the outbox of one is received by the other."""
    there = cli.directory / "there"
    cli.ok("--home", there, "state", "init")
    key_id = cli.document("key", "new", "node")["key_id"]
    monkeypatch.setenv("TB_NET_TRUSTED", key_id)
    for content in (b"one", b"", b"one"):
        (cli.directory / "b").write_bytes(content)
        cli.ok("compute", "courier", "send", cli.directory / "b", "alice")
    cli.ok("compute", "courier", "flush")
    words = ("--home", there, *RECEIVE, cli.home / "outbox")
    assert cli.ok(*words) == "received 3 bundles, 0 seen before\n"
    assert {path.read_bytes() for path in (there / "inbox").iterdir()} == {b"one", b""}
    assert cli.ok(*words) == "received 0 bundles, 3 seen before\n"


@pytest.mark.parametrize("what", ["stick", "empty", "nowhere", "stranger", "stick/envelopes/0.tb"])
def test_home_without_a_market_is_told_and_nothing_is_made(
    cli: Cli, stick: Path, what: str
) -> None:
    (cli.directory / "empty").mkdir()
    put(cli.directory / "stranger", entry(), key=OTHER_KEY)
    missing = cli.directory / "missing"
    for more in ((), ("-n",)):
        done = cli("--home", missing, *RECEIVE, stick.parent / what, *more)
        assert (done.code, f"no market in {missing}" in done.err) == (3, True)
        assert not missing.exists()


def test_one_envelope_may_be_named(cli: Cli, stick: Path) -> None:
    put(stick, entry(2), entry(3))
    assert cli.ok(*RECEIVE, stick / "envelopes" / "0.tb") == ONE
    assert cli.ok(*RECEIVE, stick) == "received 2 bundles, 1 seen before\n"


def test_dry_run_takes_nothing(cli: Cli, stick: Path) -> None:
    before = cli.files()
    assert cli.ok(*RECEIVE, stick, "-n") == f"dry_run: {ONE}"
    assert cli.files() == before


def test_envelope_of_a_stranger_is_refused_and_nothing_of_it_kept(cli: Cli, tmp_path: Path) -> None:
    stick = put(tmp_path / "stick", entry(), key=OTHER_KEY)
    done = cli(*RECEIVE, stick)
    assert (done.code, done.out) == (5, "received 0 bundles, 0 seen before, 1 failed\n")
    assert "not trusted" in done.err
    assert (taken(cli), (cli.home / "inbox").exists()) == ([], False)


def test_handoff_of_a_job_that_has_ended_here_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j1")
    stick = put(tmp_path / "stick", handoff(1, "j1"), handoff(2, "j2"), handoff(3, "unknown"))
    for told in ("received 2 bundles, 0 seen before", "received 0 bundles, 2 seen before"):
        done = cli(*RECEIVE, stick)
        assert (done.code, done.out) == (7, f"{told}, 1 failed\n")
        assert "job j1 is cancelled: nothing of it is left to hand over" in done.err
    assert taken(cli) == [2, 3]


def other_bundle(stick: Path) -> None:
    (stick / "bundles" / blake3(CONTENT).hexdigest()).write_bytes(b"another!")


def shorter(stick: Path) -> None:
    (stick / "bundles" / blake3(CONTENT).hexdigest()).write_bytes(CONTENT[:-1])


def longer(stick: Path) -> None:
    (stick / "bundles" / blake3(CONTENT).hexdigest()).write_bytes(CONTENT + b"!")


def no_bundle(stick: Path) -> None:
    (stick / "bundles" / blake3(CONTENT).hexdigest()).unlink()


def link(stick: Path) -> None:
    path = stick / "bundles" / blake3(CONTENT).hexdigest()
    path.rename(stick / "elsewhere")
    path.symlink_to(stick / "elsewhere")


def fifo(stick: Path) -> None:
    path = stick / "bundles" / blake3(CONTENT).hexdigest()
    path.unlink()
    os.mkfifo(path)


def flipped_envelope(stick: Path) -> None:
    path = stick / "envelopes" / "0.tb"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut_envelope(stick: Path) -> None:
    path = stick / "envelopes" / "0.tb"
    os.truncate(path, path.stat().st_size - 1)


def more_behind(stick: Path) -> None:
    with (stick / "envelopes" / "0.tb").open("ab") as file:
        file.write(b"\n")


def rubbish(stick: Path) -> None:
    (stick / "envelopes" / "0.tb").write_bytes(os.urandom(100_000))


def directory(stick: Path) -> None:
    (stick / "envelopes" / "0.tb").unlink()
    (stick / "envelopes" / "0.tb").mkdir()


DAMAGE: dict[Callable[[Path], None], str] = {
    other_bundle: "wrong_hash",
    shorter: "wrong_length",
    longer: "wrong_length",
    no_bundle: "missing_bundle",
    link: "unreadable",
    fifo: "unreadable",
    flipped_envelope: "",
    cut_envelope: "malformed",
    more_behind: "malformed",
    rubbish: "malformed",
    directory: "unreadable",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_and_the_rest_is_taken(
    cli: Cli, stick: Path, damage: Callable[[Path], None]
) -> None:
    damage(stick)
    put(stick, entry(2, b"two"), content=b"two")
    alone = cli(*RECEIVE, stick / "envelopes" / "0.tb", "--json")
    assert alone.code in (3, 9)
    if alone.code == 9:
        (error,) = alone.json["errors"]
        assert error["error"] == "integrity"
        assert DAMAGE[damage] in ("", error["reason"])
    assert taken(cli) == []
    done = cli(*RECEIVE, stick)
    assert (done.code, done.out) == (7, "received 1 bundles, 0 seen before, 1 failed\n")
    assert done.err.count("error[integrity]") == 1
    assert inbox(cli) == {blake3(b"two").hexdigest(): b"two"}
    assert taken(cli) == [2]


def test_damaged_bundle_in_the_inbox_is_put_right(cli: Cli, stick: Path) -> None:
    (cli.home / "inbox").mkdir(mode=0o700)
    path = cli.home / "inbox" / blake3(CONTENT).hexdigest()
    path.touch(0o600)
    path.write_bytes(b"damaged!")
    cli.ok(*RECEIVE, stick)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_place_that_nothing_was_forwarded_to_is_told(cli: Cli, name: str) -> None:
    (cli.directory / "empty").mkdir()
    (cli.directory / "file").write_text("x")
    done = cli(*RECEIVE, cli.directory / name)
    assert done.code == (9 if name == "file" else 3)
    assert f"{cli.directory / name}" in done.err


def test_many_errors_are_told_in_part(cli: Cli, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    for number in range(25):
        put(stick, entry(number, bytes([number])), content=None)
    done = cli(*RECEIVE, stick)
    assert (done.code, done.out) == (9, "received 0 bundles, 0 seen before, 25 failed\n")
    assert done.err.count("error[integrity]") == 20
    assert done.err.endswith("and 5 more errors\n")


def test_full_disk_stops_it(cli: Cli, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import inbox as kept

    monkeypatch.setattr(kept, "RESERVE_BYTES", 1 << 62)
    done = cli(*RECEIVE, stick)
    assert (done.code, done.out) == (8, "")
    assert "does not fit" in done.err
