"""Opening: what is made, what is refused, what a look leaves alone, and too little room."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from compute_market.errors import (
    BusyError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    UsageError,
)
from compute_market.home import file_at
from compute_market.store import copies, pages
from compute_market.store.environment import fill_up, length_of, verify
from compute_market.store.schema import (
    HEADS,
    META,
    pack_u64,
)
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.stores import (
    LARGE_BYTES,
    PRELUDE,
    ROOT,
    Spawn,
    contents,
    get,
    give_back_the_last_pages,
    in_a_mount,
    open_store,
    open_to_look,
    put,
)

# Every test here is over in a second or two; one that is not waits for a lock nobody gives back.
pytestmark = pytest.mark.timeout(30)

PAGE = 4096


def test_open_creates_a_private_directory_with_a_genesis(path: Path) -> None:
    previous = os.umask(0)
    try:
        store = open_store(path / "deeper", now_ms=1_234, market_id=b"m" * 16)
    finally:
        os.umask(previous)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in (path / "deeper").iterdir()}
    assert modes == {"data.mdb": 0o600, "lock.mdb": 0o600, "write.lock": 0o600}
    assert (path / "deeper").stat().st_mode & 0o777 == 0o700
    assert store.view(get(b"market_id", META), now_ms=0) == b"m" * 16
    assert store.view(get(b"genesis_ms", META), now_ms=0) == pack_u64(1_234)
    store.close()
    # A second opening changes nothing of it.
    store = open_store(path / "deeper", now_ms=9_999, market_id=b"x" * 16)
    assert store.view(get(b"market_id", META), now_ms=0) == b"m" * 16
    assert store.view(get(b"genesis_ms", META), now_ms=0) == pack_u64(1_234)
    store.close()


def test_open_uses_an_empty_directory_as_it_is(path: Path) -> None:
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    open_store(path).close()
    assert path.stat().st_mode & 0o777 == 0o755


def test_open_is_durable_and_has_room_for_many_readers(store: Store) -> None:
    flags = store._env.flags()
    assert (flags["sync"], flags["metasync"], flags["writemap"], flags["lock"]) == (
        True,
        True,
        False,
        True,
    )
    assert store._env.info()["max_readers"] >= 512


def test_open_writes_file_format_1_whatever_the_environment_says(
    path: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
    child = spawn("open_store().close()")
    assert child.process.wait() == 0
    # The first meta page: a page header of 16 bytes, the magic number, the version.
    magic, version = struct.unpack_from("<II", (path / "data.mdb").read_bytes(), 16)
    assert (magic, version) == (0xBEEFC0DE, 1)


@pytest.mark.parametrize("place", ["market", "market/below", "market/data.mdb"])
def test_open_refuses_a_file_in_the_way(tmp_path: Path, path: Path, place: str) -> None:
    if place == "market/data.mdb":
        (path / "data.mdb").mkdir(parents=True)
        place = "market"
    else:
        path.write_text("mine")
    with pytest.raises(UsageError, match="market") as caught:
        open_store(tmp_path / place)
    assert "--home" in (caught.value.hint or "")
    if path.is_file():
        assert path.read_text() == "mine"


@pytest.mark.parametrize("kept", [0, 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 4 * PAGE, "all but one byte"])
def test_open_names_a_truncated_file(path: Path, store: Store, kept: int | str) -> None:
    """In processes of their own, because reading past the end of a mapped file kills a process.

    Nothing kept is damage as well: the write lock's file shows that there was a market.
    """
    store.update(lambda txn: [txn.put(HEADS, b"%d" % i, bytes(500)) for i in range(50)], now_ms=0)
    store.close()
    length = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", kept if isinstance(kept, int) else length - 1)
    body = "attempt('open', lambda: open_store().view(lambda t: list(t.scan(HEADS)), now_ms=0))"
    found = subprocess.run(
        [sys.executable, "-c", PRELUDE + body, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, signal.Signals(-found.returncode).name
    assert found.stdout.startswith("open integrity ")
    assert str(path) in found.stdout
    assert "backup" in found.stdout


@pytest.mark.parametrize("content", [bytes(20_000), b"\xff" * 20_000, b"not a database"])
def test_open_names_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(content)
    with pytest.raises(IntegrityError, match=str(path)) as caught:
        open_store(path)
    assert "backup" in (caught.value.hint or "")
    assert (path / "data.mdb").read_bytes() == content


def _take_and_give_back(txn: Txn) -> None:
    txn.put(HEADS, b"large", bytes(5_000))
    txn.delete(HEADS, b"large")


def test_open_accepts_a_file_that_lacks_pages_nobody_wrote(path: Path, store: Store) -> None:
    """Pages that a transaction takes at the end of the file and gives back are never written.

    The file is then shorter than the number of the last page says, and nothing is wrong with it.
    """
    store.update(put(b"a", bytes(100)), now_ms=0)
    store.update(put(b"a", bytes(200)), now_ms=0)

    store.update(_take_and_give_back, now_ms=0)
    store.close()
    reopened = open_store(path)
    assert reopened.view(get(b"a"), now_ms=0) == bytes(200)
    reopened.update(
        lambda txn: [txn.put(HEADS, b"%d" % i, bytes(500)) for i in range(99)], now_ms=0
    )
    assert reopened.view(lambda txn: txn.size(HEADS), now_ms=0) == 100
    reopened.close()


def test_open_closes_the_environment_when_it_fails(path: Path, store: Store) -> None:
    store.update(lambda txn: txn.put(META, b"schema", bytes([99])), now_ms=0)
    store.close()
    failures = []  # They keep what was opened alive: it would be "already open" the second time.
    for _ in range(2):
        with pytest.raises(IntegrityError, match="schema 99") as caught:
            open_store(path)
        failures.append(caught)


@pytest.mark.parametrize("lost", ["data.mdb", "lock.mdb", "write.lock"])
def test_open_without_one_of_the_files_begins_no_new_market(
    path: Path, store: Store, lost: str
) -> None:
    """The two lock files hold nothing and are made again; the data is not."""
    store.update(put(b"a"), now_ms=0)
    store.close()
    (path / lost).unlink()
    if lost == "data.mdb":
        with pytest.raises(IntegrityError, match=r"data\.mdb") as caught:
            open_store(path, market_id=b"x" * 16)
        assert "backup" in (caught.value.hint or "")
        assert not (path / "data.mdb").exists()
    else:
        reopened = open_store(path, market_id=b"x" * 16)
        assert reopened.view(get(b"a"), now_ms=0) == b"1"
        assert reopened.view(get(b"market_id", META), now_ms=0) == bytes(16)
        reopened.update(put(b"b"), now_ms=0)
        reopened.close()


def test_creating_at_once_gives_one_market(path: Path, spawn: Spawn) -> None:
    body = """
        say("ready"); hear()
        store = open_store(market_id=sys.argv[2].encode() * 16)
        say(store.view(lambda txn: txn.get(META, b"market_id"), now_ms=0).hex())
    """
    for attempt in range(3):
        children = [spawn(body, str(number)) for number in range(4)]
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.tell()
        found = [child.hear() for child in children]
        assert len(set(found)) == 1, found
        assert found[0] in {f"3{number}" * 16 for number in range(4)}
        path.rename(path.with_name(f"market{attempt}"))


def test_opening_clears_the_slot_of_a_killed_reader(path: Path, spawn: Spawn) -> None:
    """Pages that a dead reader pins are not used again, and the file would grow for ever."""
    watcher = spawn("store = open_store(); say('open'); hear()")  # Keeps the lock file alive.
    assert watcher.hear() == "open"
    reader = spawn("open_store().view(lambda txn: (say(txn.size(HEADS)), hear()), now_ms=0)")
    assert reader.hear() == "0"
    reader.kill()
    store = open_store(path)
    for number in range(30):
        store.update(put(b"a", bytes([number]) * 100_000), now_ms=0)
    store.close()
    assert (path / "data.mdb").stat().st_size < 1_000_000


def test_opening_leaves_a_living_reader_alone(path: Path, spawn: Spawn) -> None:
    store = open_store(path)
    store.update(put(b"a", b"old" * 1000), now_ms=0)
    store.close()
    reader = spawn("""
        def look(txn):
            say("looking"); hear()
            return txn.get(HEADS, b"a")[:3].decode()
        say(open_store().view(look, now_ms=0))
    """)
    assert reader.hear() == "looking"
    store = open_store(path)
    for _ in range(10):
        store.update(put(b"a", b"new" * 1000), now_ms=0)
    reader.tell()
    assert reader.hear() == "old"
    store.close()


def test_a_full_map_is_busy_and_nothing_is_written(path: Path) -> None:
    store = open_store(path, map_size=2**20)
    store.update(put(b"kept"), now_ms=0)

    def fill(txn: Txn) -> None:
        for number in range(300):
            txn.put(HEADS, b"%d" % number, bytes(10_000))

    with pytest.raises(BusyError, match=str(path)) as caught:
        store.update(fill, now_ms=0)
    assert "map_size_gib" in (caught.value.hint or "")
    assert store.view(lambda txn: txn.size(HEADS), now_ms=0) == 1
    store.update(put(b"more"), now_ms=0)
    store.close()
    larger = open_store(path, map_size=2**24)
    larger.update(fill, now_ms=0)
    assert larger.view(lambda txn: txn.size(HEADS), now_ms=0) == 302
    larger.close()


def test_a_commit_that_gives_back_its_last_pages_leaves_a_whole_file(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB does not write them. A file that is too short would be walked at every opening."""
    give_back_the_last_pages(store)
    monkeypatch.setattr(pages, "walked", lambda path: pytest.fail("the whole file was read"))
    store.remap()
    assert (path / "data.mdb").stat().st_size > LARGE_BYTES


@pytest.mark.parametrize("found", ["cut", "another"])
def test_a_file_is_not_filled_up_to_hide_what_happened_to_it(
    path: Path, store: Store, found: str
) -> None:
    """What a cut file is lengthened with would be taken for pages."""
    store.close()
    data = path / "data.mdb"
    with lmdb.open(str(path), max_dbs=9) as env:
        length, identity = length_of(env), file_at(str(data))
        if found == "another":
            shutil.copy(data, path / "copy")
            os.replace(path / "copy", data)
        os.truncate(data, length - PAGE)
        fill_up(str(path), env, identity, length if found == "cut" else 0)
    assert data.stat().st_size == length - PAGE


def test_a_read_only_mount_can_be_read(tmp_path: Path) -> None:
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        """
        import subprocess
        store = open_store()
        store.update(lambda txn: txn.put(HEADS, b"a"), now_ms=0)
        store.close()
        mount = os.path.dirname(sys.argv[1])
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        store = open_store()
        attempt("view", lambda: store.view(lambda txn: txn.size(HEADS), now_ms=0))
        attempt("update", lambda: store.update(lambda txn: None, now_ms=0))
        sys.argv[1] += "2"
        attempt("create", open_store)
        """,
    )
    assert said["view"] == "ok 1"
    assert re.match(r"usage \S+/mount/market is read-only \| .*--home", said["update"])
    assert re.match(r"usage \S+/mount/market2: read-only file system \| .*--home", said["create"])


FULL_DISK = """
    mount = os.path.dirname(sys.argv[1])

    def fill(free_pages):
        descriptor = os.open(mount + "/filler", os.O_RDWR | os.O_CREAT)
        try:
            while True:
                os.write(descriptor, bytes(4096))
        except OSError:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 4096 * free_pages)
            os.close(descriptor)

    def grow(txn):
        for number in range(20):
            txn.put(HEADS, b"%d" % number, bytes(3_000))

    def size(txn):
        return txn.size(HEADS)
"""


@pytest.mark.parametrize("free_pages", [0, 1, 4, 9])
def test_a_full_disk_is_busy_and_nothing_is_lost(tmp_path: Path, free_pages: int) -> None:
    """With some pages free, the first write of the commit is cut short instead of refused."""
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent(f"""
        store = open_store()
        store.update(lambda txn: txn.put(HEADS, b"kept"), now_ms=0)
        fill({free_pages})
        attempt("full", lambda: store.update(grow, now_ms=0))
        attempt("after", lambda: store.view(size, now_ms=0))
        store.close()
        store = open_store()
        attempt("reopened", lambda: store.view(size, now_ms=0))
        os.remove(mount + "/filler")
        attempt("retry", lambda: store.update(grow, now_ms=0))
        store.close()
        attempt("end", lambda: open_store().view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy \S+/mount/market: .* \| .*free some disk space", said["full"])
    assert (said["after"], said["reopened"]) == ("ok 1", "ok 1")
    assert (said["retry"], said["end"]) == ("ok None", "ok 21")


@pytest.mark.parametrize("free_pages", [0, 1, 2, 3, 4])
def test_creating_on_a_full_disk_is_busy(tmp_path: Path, free_pages: int) -> None:
    """LMDB maps the lock file: a page of it that the disk has no room for kills the process."""
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent(f"""
        fill({free_pages})
        attempt("full", open_store)
        os.remove(mount + "/filler")
        attempt("retry", lambda: open_store().view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy .* \| .*free some disk space", said["full"])
    assert said["retry"] == "ok 0"


def test_opening_a_restored_copy_on_a_full_disk_is_busy(tmp_path: Path) -> None:
    """A copy that holds the data alone has its lock files still to be made."""
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent("""
        store = open_store()
        store.update(lambda txn: txn.put(HEADS, b"kept"), now_ms=0)
        store.close()
        os.remove(sys.argv[1] + "/lock.mdb")
        fill(0)
        attempt("full", open_store)
        os.remove(mount + "/filler")
        attempt("retry", lambda: open_store().view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy .* \| .*free some disk space", said["full"])
    assert said["retry"] == "ok 1"


def test_a_store_that_cannot_be_written_for_want_of_room_can_still_be_viewed(
    tmp_path: Path,
) -> None:
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent("""
        store = open_store()
        store.update(lambda txn: txn.put(HEADS, b"kept", b"1"), now_ms=0)
        store.close()
        os.remove(sys.argv[1] + "/lock.mdb")
        fill(0)
        store = open_to_look()
        attempt("full", lambda: store.update(grow, now_ms=0))
        attempt("after", lambda: store.view(size, now_ms=0))
        os.remove(mount + "/filler")
        attempt("retry", lambda: store.update(grow, now_ms=0))
        attempt("end", lambda: store.view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy .* \| .*free some disk space", said["full"])
    assert (said["after"], said["retry"], said["end"]) == ("ok 1", "ok None", "ok 21")


# Who only looks.


def test_open_to_look_where_no_market_is_makes_nothing(path: Path) -> None:
    with pytest.raises(NotFoundError, match="no market in") as caught:
        open_to_look(path)
    assert "state init" in (caught.value.hint or "")
    assert not path.exists()
    path.mkdir()
    with pytest.raises(NotFoundError):
        open_to_look(path)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, 2 * PAGE])
def test_open_to_look_at_what_holds_nothing_leaves_it(path: Path, length: int) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(bytes(length))
    with pytest.raises(NotFoundError):
        open_to_look(path)
    assert contents(path) == {"data.mdb": bytes(length)}
    (path / "write.lock").touch()
    with pytest.raises(IntegrityError, match="there was a market"):
        open_to_look(path)
    assert contents(path) == {"data.mdb": bytes(length), "write.lock": b""}


def of_a_backup(path: Path) -> None:
    (path / "lock.mdb").unlink()
    (path / "write.lock").unlink()


def of_a_live_home(path: Path) -> None:
    pass


def shorter_than_its_header_says(path: Path) -> None:
    store = open_store(path)
    store.update(put(b"a", bytes(200)), now_ms=0)
    store.update(
        lambda txn: (txn.put(HEADS, b"l", bytes(5_000)), txn.delete(HEADS, b"l")), now_ms=0
    )
    store.close()
    of_a_backup(path)


@pytest.mark.parametrize("prepare", [of_a_live_home, of_a_backup, shorter_than_its_header_says])
def test_looking_creates_no_file_and_changes_no_byte(
    path: Path, store: Store, tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    store.update(put(b"a", bytes(100)), now_ms=0)
    store.close()
    prepare(path)
    before = contents(path)
    (tmp_path / "copy").mkdir()
    store = open_to_look(path)
    assert len(store.view(get(b"a"), now_ms=0) or b"") >= 100
    assert verify(str(path), 0, time.sleep) == []
    copies.backup(store, str(tmp_path / "copy"))
    store.remap()
    store.update(put(b"a"), now_ms=0, dry_run=True)
    assert len(store.view(get(b"a"), now_ms=0) or b"") >= 100
    # LMDB writes into its table of readers, of which nothing is left when they are gone.
    assert contents(path).keys() == before.keys()
    assert contents(path)["data.mdb"] == before["data.mdb"]
    store.update(put(b"a"), now_ms=0)
    assert store.view(get(b"a"), now_ms=0) == b"1"
    assert contents(path).keys() == {"data.mdb", "lock.mdb", "write.lock"}
    store.close()


def test_a_writer_waits_for_who_reads_a_backup(path: Path, store: Store, spawn: Spawn) -> None:
    """No table of readers shows them, so that a second writer would use their pages again."""
    store.update(put(b"a", b"old" * 5_000), now_ms=0)
    store.close()
    of_a_backup(path)
    reader = spawn("""
        def look(txn):
            say("looking"); hear()
            return txn.get(HEADS, b"a")[:3].decode()
        store = open_to_look()
        say(store.view(look, now_ms=0)); hear()
        say(store.view(look, now_ms=0))
    """)
    assert reader.hear() == "looking"
    store = open_to_look(path, lock_timeout_ms=20)
    with pytest.raises(BusyError, match="lock"):
        store.update(put(b"a", b"new" * 5_000), now_ms=0)
    waiter = spawn("""
        def nap(seconds):
            if not naps:
                say("waiting")
            naps.append(seconds)
            time.sleep(seconds)
        naps = []
        open_store(sleep=nap).update(lambda txn: txn.put(HEADS, b"a", b"new" * 5_000), now_ms=0)
        say("written")
    """)
    assert waiter.hear() == "waiting"
    reader.tell()
    assert reader.hear() == "old"
    assert waiter.hear() == "written"
    reader.tell()
    assert reader.hear() == "looking"
    reader.tell()
    assert reader.hear() == "new"
    store.close()


def test_who_opened_a_backup_sees_whole_snapshots_of_a_market_that_came_alive(
    path: Path, store: Store, spawn: Spawn
) -> None:
    def write(number: int) -> Callable[[Txn], None]:
        def action(txn: Txn) -> None:
            for key in range(40):
                txn.put(HEADS, b"%d" % key, b"%d " % number * 200)

        return action

    store.update(write(0), now_ms=0)
    store.close()
    of_a_backup(path)
    reader = spawn("""
        store = open_to_look()
        seen = set()
        say("open")
        while len(seen) < 30:
            values = {value for _, value in store.view(lambda t: list(t.scan(HEADS)), now_ms=0)}
            assert len(values) == 1, values
            seen |= values
        say("seen")
    """)
    assert reader.hear() == "open"
    store = open_store(path)
    number = 0
    while reader.process.poll() is None:
        number += 1
        store.update(write(number), now_ms=0)
    assert reader.hear() == "seen"
    store.close()


def test_a_backup_on_a_read_only_mount_can_be_read(tmp_path: Path) -> None:
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        """
        import subprocess
        store = open_store()
        store.update(lambda txn: txn.put(HEADS, b"a", b"1"), now_ms=0)
        store.close()
        os.remove(sys.argv[1] + "/lock.mdb")
        os.remove(sys.argv[1] + "/write.lock")
        mount = os.path.dirname(sys.argv[1])
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        store = open_to_look()
        attempt("view", lambda: store.view(lambda txn: txn.size(HEADS), now_ms=0))
        attempt("verify", lambda: verify(sys.argv[1], 0, time.sleep))
        attempt("try", lambda: store.update(lambda txn: None, now_ms=0, dry_run=True))
        say("files", *os.listdir(sys.argv[1]))
        store.close()
        attempt("create", lambda: open_store().view(lambda txn: txn.size(HEADS), now_ms=0))
        """,
    )
    assert (said["view"], said["verify"], said["files"]) == ("ok 1", "ok []", "data.mdb")
    assert said["try"].startswith("usage ")
    assert said["create"] == "ok 1"


# A home that is replaced by another one.


def test_update_of_a_market_that_was_replaced_is_a_conflict(path: Path, store: Store) -> None:
    """What it wrote would be gone with the file that it has open."""
    store.update(put(b"a"), now_ms=0)
    path.rename(path.with_name("before"))
    for _ in range(2):
        with pytest.raises(ConflictError, match="replaced"):
            store.update(put(b"b"), now_ms=0)
        if not path.exists():
            shutil.copytree(path.with_name("before"), path)
    assert store.view(get(b"b"), now_ms=0) is None
    store.close()
    store = open_to_look(path)
    store.update(put(b"b"), now_ms=0)
    store.close()
