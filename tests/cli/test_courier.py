"""`compute courier`: what is stored, what lies in the spool, and when it goes."""

import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from compute_market.courier import courier
from compute_market.courier.courier import Attempted
from compute_market.courier_records import BundleReceipt
from compute_market.errors import IntegrityError
from tb_cli.frame import bundle_content, bundles
from tb_cli.frame.home import Home
from tests.support.cli import Cli
from tests.support.effort import effort

pytest_plugins = ("tests.support.cli",)

SEND = ("compute", "courier", "send")
LIST = ("compute", "courier", "list")
RESEND = ("compute", "courier", "resend")
GIB = 2**30


def made(cli: Cli, content: bytes = b"hallo", name: str = "b.bin") -> Path:
    path = cli.directory / name
    path.write_bytes(content)
    return path


def send(cli: Cli, content: bytes = b"hallo", *more: str, sender: str = "alice") -> dict[str, Any]:
    found: dict[str, Any] = cli.document(*SEND, made(cli, content), sender, *more)
    return found


def spool(cli: Cli) -> dict[str, bytes]:
    """What is in the spool by name, leftovers too."""
    root = cli.home / "spool"
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def name_of(content: bytes) -> str:
    return blake3(content).hexdigest()


def ended(cli: Cli, *ids: str, outcome: Any = "acknowledged") -> None:
    """What a flush does in the end."""
    told = [Attempted(receipt(cli, each).seq, outcome, 1, 0) for each in ids]
    cli.update(lambda txn: courier.record(txn, told))


def receipt(cli: Cli, bundle_id: str) -> BundleReceipt:
    return cli.view(lambda txn: courier.get(txn, courier.parse_id(bundle_id)))


# Sending.


@pytest.mark.parametrize("size", [0, 1, 5, 2**20 - 1, 2**20, 2**20 + 1, 5 * 2**20])
def test_send_keeps_a_private_copy_by_its_hash(cli: Cli, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    document = send(cli, content[:size])
    name = name_of(content[:size])
    assert (document["bundle_hash"], document["bytes"]) == (name, size)
    assert (document["state"], document["acknowledged"]) == ("pending", False)
    assert spool(cli) == {name: content[:size]}
    for path, mode in ((cli.home / "spool", 0o700), (cli.home / "spool" / name, 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_send_says_what_it_stored(cli: Cli) -> None:
    cli.ok("state", "init")
    out = cli.ok(*SEND, made(cli), "alice")
    (found,) = cli.document(*LIST)
    assert out == f"stored bundle {found['id']}: 5 bytes from alice to dir:outbox\n"


def test_send_takes_standard_input(cli: Cli) -> None:
    document = cli.document(*SEND, "-", "alice", stdin=b"piped")
    assert document["bundle_hash"] == name_of(b"piped")
    assert spool(cli) == {name_of(b"piped"): b"piped"}


def test_send_of_the_same_bundle_twice_makes_two_receipts_and_one_copy(cli: Cli) -> None:
    one, two = send(cli), send(cli, sender="bob")
    assert one["id"] != two["id"]
    assert list(spool(cli)) == [name_of(b"hallo")]
    assert [each["id"] for each in cli.document(*LIST, "--pending")] == [one["id"], two["id"]]


def test_send_with_a_key_happens_once(cli: Cli) -> None:
    first = send(cli, b"hallo", "--key", "k")
    again = send(cli, b"hallo", "--key", "k")
    assert (first["changed"], again) == (True, first | {"changed": False})
    done = cli(*SEND, made(cli, b"other"), "alice", "--key", "k")
    assert done.code == 6
    assert list(spool(cli)) == [name_of(b"hallo")]
    ended(cli, first["id"])
    forget(cli)
    again = send(cli, b"hallo", "--key", "k")
    assert again == {"id": first["id"], "changed": False}
    assert spool(cli) == {}


def test_send_copies_what_the_sender_may_change_later(cli: Cli) -> None:
    path = made(cli)
    cli.ok("state", "init")
    cli.ok(*SEND, path, "alice")
    path.write_bytes(b"other")
    assert spool(cli) == {name_of(b"hallo"): b"hallo"}


def test_dry_run_leaves_nothing(cli: Cli) -> None:
    path = made(cli)
    done = cli(*SEND, path, "alice", "-n", "--json")
    assert (done.code, done.json["bundle_hash"]) == (0, name_of(b"hallo"))
    assert not cli.home.exists()
    cli.ok("state", "init")
    before = cli.files()
    cli.ok(*SEND, path, "alice", "-n")
    assert cli.files() == before


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("dir:/mnt/usb", "dir:/mnt/usb"),
        ("dir:usb", "dir:{here}/usb"),
        ("dir:../usb/", "dir:{above}/usb"),
        ("http://a.example/x", "http://a.example/x"),
        ("https://a.example", "https://a.example"),
        ("exec:rclone", "exec:rclone"),
        ("exec:./carry", "exec:{here}/carry"),
    ],
)
def test_destination_means_the_same_wherever_it_is_read(
    cli: Cli, given: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cli.directory)
    places = {"here": os.getcwd(), "above": str(Path.cwd().parent)}
    assert send(cli, b"x", "--to", given)["dest"] == stored.format(**places)


@pytest.mark.parametrize("given", ["", "dir:", "usb", "ftp://a", "exec:", "dir:a\nb", "http://"])
def test_text_that_is_no_destination_is_refused(cli: Cli, given: str) -> None:
    done = cli(*SEND, made(cli), "alice", "--to", given)
    assert (done.code, "is no destination" in done.err) == (2, True)
    assert not cli.home.exists()


def test_sender_must_be_an_id(cli: Cli) -> None:
    assert cli(*SEND, made(cli), "a b").code == 2
    assert not cli.home.exists()


def test_need_stores_only_if_an_offer_fits(cli: Cli) -> None:
    path, job = made(cli), made(cli, b'{"workload": "transcode", "capability": {"cpu_cores": 4}}')
    path = made(cli, b"hallo", "c.bin")
    words = (*SEND, path, "alice", "--need", job)
    done = cli(*words, "--json")
    assert (done.code, done.error["reason"]) == (5, "capability_mismatch")
    assert not cli.home.exists()
    cli.post("--cpu-cores", "2")
    assert cli(*words).code == 5
    assert spool(cli) == {}
    cli.post("--cpu-cores", "4")
    cli.ok(*words)
    assert list(spool(cli)) == [name_of(b"hallo")]


def test_need_is_not_asked_for_again_under_the_same_key(cli: Cli) -> None:
    """It was sent, whatever has become of the offer since."""
    job = made(cli, b'{"workload": "transcode", "capability": {"cpu_cores": 4}}', "j.json")
    offer_id = cli.post("--cpu-cores", "4")
    first = send(cli, b"hallo", "--key", "k", "--need", str(job))
    cli.ok("compute", "offer", "withdraw", offer_id)
    again = send(cli, b"hallo", "--key", "k", "--need", str(job))
    assert again == first | {"changed": False}
    assert len(cli.document(*LIST)) == 1
    for key, content, code in (("k", b"other", 6), ("l", b"hallo", 5)):
        words = ("--key", key, "--need", job)
        assert cli(*SEND, made(cli, content), "alice", *words).code == code
    assert list(spool(cli)) == [name_of(b"hallo")]


# What is no bundle.


def test_what_is_no_file_is_refused_and_nothing_made(cli: Cli) -> None:
    os.mkfifo(cli.directory / "fifo")
    for name in (".", "fifo", "nothing", "/dev/zero"):
        done = cli(*SEND, cli.directory / name, "alice")
        assert (done.code, done.out) == (2, ""), name
    assert not cli.home.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(cli: Cli) -> None:
    path = made(cli)
    path.chmod(0)
    assert cli(*SEND, path, "alice").code == 2


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
def test_file_that_changes_while_it_is_read_is_refused(
    cli: Cli, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    path = made(cli, bytes(3 * 2**20))
    real, calls = bundle_content.fill_from, 0

    def fill(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.truncate(path, {"longer": 4, "shorter": 1, "touched": 3}[change] * 2**20)
            os.utime(path, ns=(0, 0))
        return real(*arguments)

    monkeypatch.setattr(bundle_content, "fill_from", fill)
    done = cli(*SEND, path, "alice", "--json")
    assert (done.code, done.error["reason"]) == (9, "bundle_changed")
    assert spool(cli) == {}
    assert cli.document(*LIST) == []


def test_sparse_file_stays_sparse(cli: Cli) -> None:
    path, size = cli.directory / "sparse", effort(GIB // 4, 100 * GIB)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"island")
    document = cli.document(*SEND, path, "alice")
    copy = cli.home / "spool" / document["bundle_hash"]
    assert (copy.stat().st_size, document["bytes"]) == (size, size)
    assert copy.stat().st_blocks * 512 < 2**20
    with copy.open("rb") as file:
        assert bundle_content.hash_of(file).hex() == copy.name


def test_bundle_for_which_there_is_no_room_is_refused_before_it_is_read(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    found = os.statvfs(cli.home)
    fields = list(found)
    fields[4] = 0  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    done = cli(*SEND, made(cli, bytes(5000)), "alice")
    assert (done.code, "bytes are needed and 0 are free" in done.err) == (8, True)
    assert spool(cli) == {}


# The spool.


@pytest.mark.parametrize("what", ["spool", "spool/new"])
def test_no_link_is_followed(cli: Cli, what: str) -> None:
    cli.ok("state", "init")
    elsewhere = cli.directory / "elsewhere"
    elsewhere.mkdir()
    if what != "spool":
        (cli.home / "spool").mkdir(mode=0o700)
    (cli.home / what).symlink_to(elsewhere)
    done = cli(*SEND, made(cli), "alice")
    assert (done.code, "no link is followed" in done.err) == (2, True)
    assert list(elsewhere.iterdir()) == []


def test_spool_that_others_may_write_is_refused(cli: Cli) -> None:
    send(cli)
    (cli.home / "spool").chmod(0o777)
    done = cli(*SEND, made(cli), "alice")
    assert (done.code, "may be written by others" in done.err) == (2, True)


def test_sending_again_mends_a_damaged_bundle(cli: Cli) -> None:
    path = cli.home / "spool" / send(cli)["bundle_hash"]
    for damage in (b"hullo", b"hallo!", b""):
        path.write_bytes(damage)
        send(cli)
        assert path.read_bytes() == b"hallo"
    path.unlink()
    send(cli)
    assert path.read_bytes() == b"hallo"


def test_opened_bundle_is_the_one_of_its_receipt(cli: Cli) -> None:
    found = receipt(cli, send(cli)["id"])
    home = Home(str(cli.home))
    with bundles.open_checked(home, found) as file:
        assert file.read() == b"hallo"
    path = Path(bundles.path_of(home, found.bundle_hash))
    cli.audited = False
    path.write_bytes(b"more than it was")
    for break_, reason in (
        (lambda: None, "damaged_bundle"),
        (path.unlink, "missing_bundle"),
        (path.mkdir, "damaged_bundle"),
    ):
        break_()
        with pytest.raises(IntegrityError) as told:
            bundles.open_checked(home, found)
        assert told.value.reason == reason


def test_send_beside_who_takes_bundles_away_is_busy(cli: Cli) -> None:
    send(cli)
    with held(cli, fcntl.LOCK_EX):
        done = cli(*SEND, made(cli), "alice", "--lock-timeout", "0")
        assert (done.code, "--lock-timeout" in done.err) == (8, True)


class held:
    """The lock of the spool, in other hands."""

    def __init__(self, cli: Cli, kind: int) -> None:
        self._path, self._kind = cli.home / "spool", kind

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDONLY)
        fcntl.flock(self._descriptor, self._kind)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


# What goes, and when.


def forget(cli: Cli) -> None:
    """Let what has ended grow old, and `tick`."""
    cli.home.joinpath("config.toml").write_text("courier_retention_secs = 0\n")
    cli.advance(1)
    cli.ok("tick")


def test_tick_takes_bundles_away_with_the_last_of_their_receipts(cli: Cli) -> None:
    one, two, other = send(cli), send(cli), send(cli, b"other")
    ended(cli, one["id"])
    cli.ok("tick")
    assert len(cli.document(*LIST)) == 3
    forget(cli)
    assert [each["id"] for each in cli.document(*LIST, "--pending")] == [two["id"], other["id"]]
    assert sorted(spool(cli)) == sorted([name_of(b"hallo"), name_of(b"other")])
    ended(cli, two["id"])
    forget(cli)
    assert spool(cli) == {name_of(b"other"): b"other"}
    assert len(cli.document(*LIST)) == 1


def test_tick_leaves_the_spool_to_who_sends(cli: Cli) -> None:
    ended(cli, send(cli)["id"])
    with held(cli, fcntl.LOCK_SH):
        forget(cli)
        assert list(spool(cli)) == [name_of(b"hallo")]
        assert len(cli.document(*LIST)) == 1
    cli.ok("tick")
    assert (spool(cli), cli.document(*LIST)) == ({}, [])


def test_tick_takes_away_what_killed_commands_left(cli: Cli) -> None:
    kept = send(cli)
    root = cli.home / "spool"
    (root / "new" / "0123456789abcdef").write_bytes(b"half a bun")
    (root / name_of(b"orphan")).write_bytes(b"orphan")
    (root / "notes").write_text("of the operator")
    cli.ok("tick")
    assert sorted(spool(cli)) == sorted([kept["bundle_hash"], "notes"])


def test_dry_tick_takes_nothing_away(cli: Cli) -> None:
    ended(cli, send(cli)["id"])
    cli.home.joinpath("config.toml").write_text("courier_retention_secs = 0\n")
    cli.advance(1)
    cli.ok("tick", "-n")
    assert len(spool(cli)) == 1
    assert len(cli.document(*LIST)) == 1


def test_send_that_is_refused_takes_its_bundle_away(cli: Cli) -> None:
    """Also where another send of the same bundle has a receipt, whose copy stays."""
    send(cli, b"other", "--key", "k")
    assert cli(*SEND, made(cli, b"hallo"), "alice", "--key", "k").code == 6
    assert list(spool(cli)) == [name_of(b"other")]
    assert cli(*SEND, made(cli, b"other"), "bob", "--key", "k").code == 6
    assert list(spool(cli)) == [name_of(b"other")]


def test_send_that_is_refused_beside_others_leaves_its_bundle_to_tick(cli: Cli) -> None:
    send(cli, b"other", "--key", "k")
    with held(cli, fcntl.LOCK_SH):
        assert cli(*SEND, made(cli, b"hallo"), "alice", "--key", "k").code == 6
        assert name_of(b"hallo") in spool(cli)
    cli.ok("tick")
    assert list(spool(cli)) == [name_of(b"other")]


def test_prune_never_takes_a_bundle_that_is_being_sent(cli: Cli) -> None:
    """While some send the same bundle, another looks for those that have no receipt."""
    document = send(cli)
    ended(cli, document["id"])
    forget(cli)
    path = made(cli)
    sends = [cli.start(*SEND, path, "alice", "--json") for _ in range(5)]
    while any(each.poll() is None for each in sends):
        (cli.home / "spool" / "new" / "left").touch()
        assert cli.process("tick").code == 0
    for each in sends:
        _, err = each.communicate()
        assert each.returncode == 0, err
    # While they sent, it may have left that to the next time.
    assert cli.process("tick").code == 0
    assert list(spool(cli)) == [name_of(b"hallo")]
    assert len(cli.document(*LIST)) == 5


# Lists.


def test_list_tells_every_receipt_in_the_order_of_sending(cli: Cli) -> None:
    sent = [send(cli, bytes([n]))["id"] for n in range(5)]
    assert [row[0] for row in cli(*LIST).rows] == sent
    assert [each["id"] for each in cli(*LIST, "--jsonl", "--limit", "2").jsonl] == sent[-2:]
    assert len(cli.document(*LIST, "--pending", "--limit", "1")) == 1
    ended(cli, sent[1])
    assert [each["id"] for each in cli.document(*LIST, "--pending")] == [sent[0], *sent[2:]]


def test_show_tells_one(cli: Cli) -> None:
    document = send(cli)
    del document["changed"]
    assert cli.document("compute", "courier", "show", document["id"]) == document
    assert f"id: {document['id']}\n" in cli.ok("compute", "courier", "show", document["id"])
    assert cli("compute", "courier", "show", "0" * 16).code == 3
    assert cli("compute", "courier", "show", "nothing").code == 2


# Sending again.


def test_resend_lets_it_wait_again(cli: Cli) -> None:
    document = send(cli)
    ended(cli, document["id"])
    out = cli.ok(*RESEND, document["id"])
    assert out == f"bundle {document['id']} waits for the next flush\n"
    assert receipt(cli, document["id"]).state == "pending"
    cli.ok(*RESEND, "-", stdin=f"{document['id']}\n")


def test_resend_of_what_is_not_there_is_told(cli: Cli) -> None:
    document = send(cli)
    ended(cli, document["id"])
    assert cli(*RESEND, "0" * 16).code == 3
    assert cli(*RESEND, "nothing").code == 2
    (cli.home / "spool" / document["bundle_hash"]).unlink()
    done = cli(*RESEND, document["id"], "--json")
    assert (done.code, done.error["reason"]) == (9, "missing_bundle")
    assert receipt(cli, document["id"]).state == "acknowledged"
    assert cli(*RESEND, document["id"], "0" * 16).code == 7


# The audit.


@pytest.fixture
def broken(cli: Cli) -> Path:
    """The spool's file of a bundle that waits."""
    document = send(cli)
    cli.audited = False
    return cli.home / "spool" / document["bundle_hash"]


def test_audit_finds_a_bundle_that_is_missing(cli: Cli, broken: Path) -> None:
    broken.unlink()
    done = cli("compute-market", "audit")
    assert (done.code, f"spool {broken.name}: " in done.out) == (9, True)


def test_audit_finds_a_bundle_of_another_size(cli: Cli, broken: Path) -> None:
    broken.write_bytes(b"hal")
    assert cli("compute-market", "audit").code == 9


def test_state_check_finds_a_flipped_bit(cli: Cli, broken: Path) -> None:
    broken.write_bytes(b"hullo")
    assert cli("compute-market", "audit").code == 0
    done = cli("state", "check")
    assert (done.code, "its bytes are others" in done.out) == (9, True)


def test_audit_does_not_need_a_bundle_that_has_arrived(cli: Cli, broken: Path) -> None:
    (document,) = cli.document(*LIST)
    ended(cli, document["id"])
    broken.unlink()
    assert cli("state", "check").code == 0
    broken.write_bytes(b"hullo")
    assert cli("state", "check").code == 9


def test_shell_completes_ids(cli: Cli) -> None:
    from tb_cli.frame.completion import completions

    bundle_id = send(cli)["id"]
    assert completions("bundle", bundle_id[:5]) == [bundle_id]
    assert completions("bundle", "") == [bundle_id]
    for other in ("zz", "0" * 17, "é"):
        assert completions("bundle", other) == []


# Backups.


@pytest.mark.parametrize("form", ["directory", "tar"])
def test_backup_holds_the_bundles_that_wait(cli: Cli, form: str) -> None:
    waits, arrived = send(cli, b"waits"), send(cli, b"arrived")
    send(cli, b"waits")
    ended(cli, arrived["id"])
    other = cli.directory / "other"
    if form == "directory":
        cli.ok("state", "backup", "copy")
        assert cli("--home", "copy", "state", "check").code == 0
        done = cli("--home", other, "state", "restore", "copy")
    else:
        tar = cli.directory / "backup.tar"
        with tar.open("wb") as file:
            process = cli.start("state", "backup", "-", "--home", cli.home, stdout=file)
            assert process.wait(60) == 0
        done = cli("--home", other, "state", "restore", "-", stdin=tar.read_bytes())
    assert (done.code, done.err) == (0, "")
    assert cli("--home", other, "state", "check").code == 0
    path = other / "spool" / waits["bundle_hash"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == b"waits"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(cli("--home", other, *LIST, "--pending").rows) == 2


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_backup_without_a_bundle_is_a_backup_all_the_same(
    cli: Cli, broken: Path, damage: str
) -> None:
    kept = send(cli, b"kept")
    if damage == "missing":
        broken.unlink()
    else:
        broken.write_bytes(b"hullo")
    done = cli("state", "backup", "copy")
    assert done.code == 0
    assert f"{broken.name}" in done.err
    assert "not in the copy" in done.err
    other = cli.directory / "other"
    done = cli("--home", other, "state", "restore", "copy")
    assert (done.code, broken.name in done.err) == (0, True)
    assert [each.name for each in (other / "spool").iterdir()] == [kept["bundle_hash"]]
    assert cli("--home", other, "state", "check").code == 9


def test_restore_warns_of_a_damaged_bundle_in_a_tar(cli: Cli) -> None:
    cli.audited = False
    document = send(cli, b"a bundle whose bytes are seen in a tar")
    tar = cli.directory / "backup.tar"
    with tar.open("wb") as file:
        assert cli.start("state", "backup", "-", stdout=file).wait(60) == 0
    content = tar.read_bytes().replace(b"whose bytes are", b"whose bytes ape")
    done = cli("--home", cli.directory / "other", "state", "restore", "-", stdin=content)
    assert done.code == 0
    assert f"warning: spool {document['bundle_hash']}: " in done.err


def test_restore_goes_on_where_one_was_killed(cli: Cli) -> None:
    document = send(cli)
    cli.ok("state", "backup", "copy")
    other = cli.directory / "other"
    (other / "spool").mkdir(parents=True, mode=0o700)
    (other / "spool" / document["bundle_hash"]).write_bytes(b"hallo")
    (other / "spool" / name_of(b"another's")).write_bytes(b"another's")
    done = cli("--home", other, "state", "restore", "copy")
    assert (done.code, "spool is in it" in done.err) == (2, True)
    (other / "spool" / name_of(b"another's")).unlink()
    cli.ok("--home", other, "state", "restore", "copy")
    assert cli("--home", other, "state", "check").code == 0
