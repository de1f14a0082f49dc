"""`key`: names, files and who may read them."""

import os
import stat
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from compute_market.signatures import keys
from tb_cli.frame import key_files
from tb_cli.frame.home import Home
from tests.support.cli import Cli
from tests.support.verbs import FRIEND

pytest_plugins = ("tests.support.cli",)

FRIEND_ID = "cbf3cc754c4f14f3da827ad59ffa814a057a31ea581a9eac502bc496b37614b6"


def directory(cli: Cli) -> Path:
    return cli.home / "keys"


def made(cli: Cli, name: str = "k1") -> str:
    """Make a key; returns its id."""
    found: str = cli.document("key", "new", name)["key_id"]
    return found


def test_new_writes_a_private_file_and_tells_the_log(cli: Cli) -> None:
    document = cli.document("key", "new", "k1")
    assert list(document) == ["name", "key_id", "kind", "changed"]
    assert (document["name"], document["kind"], document["changed"]) == ("k1", "own", True)
    assert [path.name for path in directory(cli).iterdir()] == ["k1.key"]
    assert stat.S_IMODE(directory(cli).stat().st_mode) == 0o700
    assert stat.S_IMODE((directory(cli) / "k1.key").stat().st_mode) == 0o600
    (event,) = cli.document("log", "--event", "key_made")
    assert event["detail"] == {"name": "k1", "key_id": document["key_id"]}


def test_new_draws_another_key_each_time(cli: Cli) -> None:
    assert made(cli) != made(cli, "k2")


def test_new_keeps_a_key_that_is_there(cli: Cli) -> None:
    key_id = made(cli)
    before = cli.files()
    done = cli("key", "new", "k1")
    assert (done.code, done.out) == (6, "")
    assert f"key k1 exists with id {key_id}" in done.err
    assert cli("key", "new", "k1", "-n").code == 6
    assert cli.files() == before


def test_new_takes_no_name_of_another_key(cli: Cli) -> None:
    cli.ok("key", "import-public", "friend", FRIEND)
    assert cli("key", "new", "friend").code == 6
    assert cli.ok("key", "list") == f"friend\t{FRIEND_ID}\tpublic\n"


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "a b", "-", FRIEND_ID])
def test_name_that_is_none_is_refused(cli: Cli, name: str) -> None:
    for words in (("new", "--", name), ("import-public", "--", name, FRIEND)):
        assert cli("key", *words).code == 2
    assert not cli.home.exists()


@pytest.mark.parametrize("name", ["a.key", "a.pub", "a:b@c+d-e", "N" * 128])
def test_name_can_be_any_other_id(cli: Cli, name: str) -> None:
    key_id = made(cli, name)
    assert cli.ok("key", "list") == f"{name}\t{key_id}\town\n"


def test_list_is_in_order_of_names(cli: Cli) -> None:
    assert cli("key", "list").code == 3
    cli.ok("state", "init")
    assert cli.ok("key", "list") == ""
    ids = {name: made(cli, name) for name in ("b", "a", "c")}
    cli.ok("key", "import-public", "bb", FRIEND)
    rows = [(name, ids.get(name, FRIEND_ID), name in ids) for name in ("a", "b", "bb", "c")]
    expected = [
        {"name": name, "key_id": key_id, "kind": "own" if own else "public"}
        for name, key_id, own in rows
    ]
    assert cli.document("key", "list") == expected


def test_show_tells_the_public_part_alone(cli: Cli) -> None:
    key_id = made(cli)
    document = cli.document("key", "show", "k1")
    assert list(document) == ["name", "key_id", "kind", "algorithm", "public_key"]
    assert document["algorithm"] == "ML-DSA-65"
    assert cli.document("key", "show", key_id) == document
    seed = key_files.own(Home(str(cli.home)), "k1").seed
    assert seed is not None
    for words in (("show", "k1"), ("show", "k1", "--json"), ("show", "k1", "--public"), ("list",)):
        assert seed.hex() not in cli.ok("key", *words)


def test_show_of_no_key_says_how_to_have_one(cli: Cli) -> None:
    cli.ok("state", "init")
    for name in ("nobody", "0" * 64):
        done = cli("key", "show", name)
        assert done.code == 3
        assert done.err.startswith(f"error[not_found]: no key {name}\nhint: ")


def test_public_file_is_what_import_takes(cli: Cli) -> None:
    key_id = made(cli)
    public = cli.ok("key", "show", "k1", "--public")
    assert public == cli.ok("key", "show", "k1", "--public", "--json")
    (cli.directory / "k1.pub").write_text(public)
    other = ("--home", str(cli.directory / "other"))
    markets = cli.markets()
    done = cli(*other, "key", "import-public", "peer", "k1.pub")
    assert (done.code, done.out) == (0, f"imported key peer: {key_id}\n")
    assert done.err == cli.told(markets, ())
    again = f"key peer exists, unchanged: {key_id}\n"
    assert cli.ok(*other, "key", "import-public", "peer", "-", stdin=public) == again
    assert cli.ok(*other, "key", "show", "peer", "--public") == public
    (event,) = cli.document(*other, "log")
    assert (event["event"], event["detail"]) == ("key_imported", {"name": "peer", "key_id": key_id})


def test_import_keeps_another_key_of_the_name(cli: Cli) -> None:
    key_id = made(cli)
    done = cli("key", "import-public", "k1", FRIEND)
    assert (done.code, done.out) == (6, "")
    assert f"key k1 exists with id {key_id}, not {FRIEND_ID}" in done.err
    assert [path.name for path in directory(cli).iterdir()] == ["k1.key"]


def test_import_of_the_public_part_of_an_own_key_changes_nothing(cli: Cli) -> None:
    key_id = made(cli)
    public = cli.ok("key", "show", "k1", "--public")
    document = cli.document("key", "import-public", "k1", "-", stdin=public)
    assert document == {"name": "k1", "key_id": key_id, "kind": "own", "changed": False}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + b"\n",
        lambda text: text + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b" " + text,
        lambda text: text.upper(),
        lambda text: b"",
        lambda text: b"\xff" + text,
        lambda text: b"x" * 1_000_000,
    ],
)
def test_import_refuses_what_is_no_public_file(cli: Cli, change: "object") -> None:
    assert callable(change)
    cli.ok("state", "init")
    before = cli.files()
    done = cli("key", "import-public", "friend", "-", "--json", stdin=change(_friend()))
    assert (done.code, done.error["reason"]) == (9, "malformed")
    assert cli.files() == before


def _friend() -> bytes:
    return Path(FRIEND).read_bytes()


def test_import_refuses_a_secret_file(cli: Cli) -> None:
    made(cli)
    assert cli("key", "import-public", "copy", directory(cli) / "k1.key").code == 9


# Who may read and change the files.


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_secret_that_others_may_read_or_change_is_refused(cli: Cli, mode: int) -> None:
    made(cli)
    path = directory(cli) / "k1.key"
    path.chmod(mode)
    for words in (("show", "k1"), ("list",), ("new", "k1")):
        done = cli("key", *words)
        assert done.code == 2
        assert f"{path} may be read or changed by others\nhint: chmod 600 {path}\n" in done.err
    path.chmod(0o600)
    cli.ok("key", "show", "k1")


@pytest.mark.parametrize(("mode", "code"), [(0o644, 0), (0o664, 2), (0o646, 2)])
def test_public_file_may_be_read_by_others_and_not_changed(cli: Cli, mode: int, code: int) -> None:
    cli.ok("key", "import-public", "friend", FRIEND)
    (directory(cli) / "friend.pub").chmod(mode)
    assert cli("key", "show", "friend").code == code


def test_directory_that_others_may_write_is_refused(cli: Cli) -> None:
    made(cli)
    directory(cli).chmod(0o770)
    for words in (("show", "k1"), ("list",), ("new", "k2"), ("import-public", "f", FRIEND)):
        done = cli("key", *words)
        assert done.code == 2
        assert f"{directory(cli)} may be written by others" in done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_refused(cli: Cli) -> None:
    made(cli)
    path = directory(cli) / "k1.key"
    os.chown(path, 12345, 12345)
    done = cli("key", "show", "k1")
    assert (done.code, done.err.splitlines()[0]) == (
        2,
        f"error[usage]: {path} belongs to another user",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts in the home of another user")
def test_root_makes_keys_of_a_home_for_its_owner(cli: Cli) -> None:
    cli.ok("state", "init")
    for path in (cli.home, *cli.home.rglob("*")):
        os.chown(path, 12345, 12345)
    for words in (("new", "k1"), ("show", "k1"), ("list",)):
        done = cli("key", *words)
        assert done.code == 0, done
    for path in (directory(cli), directory(cli) / "k1.key"):
        assert path.stat().st_uid == 12345


@pytest.mark.parametrize("link", ["keys", "keys/k1.key", "keys/k1.pub"])
def test_no_link_is_followed(cli: Cli, link: str) -> None:
    made(cli, "k0")
    elsewhere = cli.directory / "elsewhere"
    if link == "keys":
        directory(cli).rename(elsewhere)
    else:
        elsewhere.write_bytes(_friend())
    (cli.home / link).symlink_to(elsewhere)
    for words in (("show", "k1"), ("list",), ("new", "k1"), ("import-public", "k1", FRIEND)):
        done = cli("key", *words)
        assert (done.code, "no link is followed here" in done.err) == (2, True), words


def test_what_is_no_file_is_refused(cli: Cli) -> None:
    cli.ok("state", "init")
    directory(cli).mkdir(mode=0o700)
    os.mkfifo(directory(cli) / "k1.key", mode=0o600)
    assert cli("key", "show", "k1").code == 2
    (directory(cli) / "k2.key").mkdir()
    assert cli("key", "show", "k2").code == 2


def test_damaged_file_is_named(cli: Cli) -> None:
    made(cli)
    path = directory(cli) / "k1.key"
    path.write_bytes(path.read_bytes().replace(b'"seed":"', b'"seed":"0')[:-2])
    done = cli("key", "list", "--json")
    assert (done.code, done.error["reason"]) == (9, "malformed")
    assert str(path) in done.error["message"]


# Killed commands, and others at the same time.


def test_new_finishes_what_was_begun(cli: Cli) -> None:
    """Killed after the key had its name and before the log told of it."""
    cli.ok("state", "init")
    home = Home(str(cli.home))
    key = keys.key_of(bytes(32))
    with (
        key_files.alone(home),
        pytest.raises(KeyboardInterrupt),
        key_files.written(home, "k1", key),
    ):
        raise KeyboardInterrupt
    assert made(cli) == key.key_id.hex()
    assert [path.name for path in directory(cli).iterdir()] == ["k1.key"]
    assert len(cli.document("log", "--event", "key_made")) == 1
    assert cli("key", "new", "k1").code == 6


def test_new_tells_the_log_once_of_what_was_begun(cli: Cli) -> None:
    """Killed after the log told of it."""
    key_id = made(cli)
    os.link(directory(cli) / "k1.key", directory(cli) / ".k1.new")
    assert made(cli) == key_id
    assert len(cli.document("log", "--event", "key_made")) == 1


def test_new_begins_anew_where_half_a_file_was_left(cli: Cli) -> None:
    cli.ok("state", "init")
    directory(cli).mkdir(mode=0o700)
    (directory(cli) / ".k1.new").write_text("{")
    made(cli)
    assert [path.name for path in directory(cli).iterdir()] == ["k1.key"]


def test_new_beside_another_process_is_busy(cli: Cli) -> None:
    made(cli)
    with key_files.alone(Home(str(cli.home))):
        for words in (("new", "k2"), ("import-public", "friend", FRIEND)):
            done = cli("key", *words, "--lock-timeout", "0")
            assert (done.code, "--lock-timeout" in done.err) == (8, True)
        cli.ok("key", "list")


def test_backup_holds_no_key(cli: Cli) -> None:
    made(cli)
    cli.ok("state", "backup", "copy")
    assert not (cli.directory / "copy" / "keys").exists()


def test_shell_completes_names(cli: Cli) -> None:
    from tb_cli.frame.completion import completions

    assert completions("key", "") == []
    made(cli, "alpha")
    made(cli, "beta")
    assert completions("key", "a") == ["alpha"]


def test_new_waits_for_another_process_and_keeps_its_key(cli: Cli) -> None:
    cli.ok("state", "init")
    home = Home(str(cli.home))
    taken, release = Event(), Event()

    def other() -> None:
        with key_files.alone(home), key_files.written(home, "k1", keys.key_of(bytes(32))):
            taken.set()
            release.wait(10)

    thread = Thread(target=other)
    thread.start()
    assert taken.wait(10)
    Timer(0.2, release.set).start()
    assert cli("key", "new", "k1", "--lock-timeout", "10").code == 6
    thread.join()


def test_own_key_is_the_one_of_its_id_whatever_other_names_it_has(cli: Cli) -> None:
    key_id = made(cli)
    public = cli.ok("key", "show", "k1", "--public")
    done = cli("key", "import-public", "a", "-", stdin=public)
    assert (done.code, f"{key_id} is a key of your own, k1" in done.err) == (6, True)
    # As a home may have it whose key was imported before its secret was put there.
    (directory(cli) / "a.pub").write_text(public)
    (directory(cli) / "a.pub").chmod(0o600)
    assert cli.document("key", "show", key_id)["name"] == "k1"
    home = Home(str(cli.home))
    for name in ("k1", "a", key_id):
        assert key_files.own_named(home, name)[0] == "k1"
    cli.ok("compute-market", "receipts", "export", "--key", key_id)


@pytest.mark.parametrize("file", ["aa.pub", "a b.pub", "aa.key", f"{FRIEND_ID}.pub"])
def test_file_that_is_no_key_is_named_and_blocks_no_other(cli: Cli, file: str) -> None:
    key_id = made(cli)
    cli.ok("key", "import-public", "friend", FRIEND)
    bad = directory(cli) / file
    bad.touch(0o600)
    bad.write_text("junk\n")
    done = cli("key", "list")
    assert (done.code, done.out) == (9, f"friend\t{FRIEND_ID}\tpublic\nk1\t{key_id}\town\n")
    assert str(bad) in done.err
    assert cli("key", "show", key_id).code == 0
    done = cli("key", "show", FRIEND_ID)
    assert (done.code, f"warning: {bad}" in done.err) == (0, True)
