"""The write lock between real processes that hold it, wait for it and die."""

import json
import os
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from compute_market.errors import (
    BusyError,
)
from compute_market.store.lock import Turnstile
from compute_market.store.schema import (
    HEADS,
)
from compute_market.store.store import Store
from tests.support.processes import locked, until
from tests.support.stores import Child, Spawn, contents, get, open_store, put

# Every test here is over in a second or two; one that is not waits for a lock nobody gives back.
pytestmark = pytest.mark.timeout(30)


# A process that says when it waits for the lock, and one that then writes.
WAITING = """
    def nap(seconds):
        if not naps:
            say("waiting")
        naps.append(seconds)
        time.sleep(seconds)
    naps = []
    store = open_store(sleep=nap)
"""
WAITER = f"""{WAITING}
    attempt("update", lambda: store.update(lambda txn: txn.put(HEADS, b"a", b"1"), now_ms=0))
"""


def test_update_without_the_lock_in_time_names_the_holder(path: Path, holder: Child) -> None:
    naps: list[float] = []
    store = open_store(path, lock_timeout_ms=50, sleep=naps.append)
    with pytest.raises(BusyError, match=f"held by process {holder.pid}$") as caught:
        store.update(put(b"a"), now_ms=0)
    assert caught.value.details == {"holder_pid": holder.pid}
    assert caught.value.retryable
    assert 0.045 <= sum(naps) <= 0.055
    holder.tell()
    assert holder.hear() == "released"
    store.update(put(b"a"), now_ms=0)
    assert store.view(get(b"uncommitted"), now_ms=0) == b"1"
    store.close()


def test_update_with_no_time_to_wait_fails_at_once(path: Path, holder: Child) -> None:
    naps: list[float] = []
    store = open_store(path, lock_timeout_ms=0, sleep=naps.append)
    with pytest.raises(BusyError):
        store.update(put(b"a"), now_ms=0)
    assert naps == []
    store.close()


def test_update_behind_another_waiter_names_the_holder_of_the_lock(
    path: Path, holder: Child, spawn: Spawn
) -> None:
    """The one who waits at the turnstile is not the one who keeps everybody waiting."""
    waiter = spawn(WAITER)
    assert waiter.hear() == "waiting"
    store = open_store(path, lock_timeout_ms=20)
    with pytest.raises(BusyError, match=f"held by process {holder.pid}$"):
        store.update(put(b"a"), now_ms=0)
    store.close()


def test_update_inside_an_update_fails_instead_of_waiting_for_itself(path: Path) -> None:
    store = open_store(path, lock_timeout_ms=20)
    with pytest.raises(BusyError, match=f"held by process {os.getpid()}$"):
        store.update(lambda _: store.update(put(b"a"), now_ms=0), now_ms=0)
    store.update(put(b"b"), now_ms=0)
    assert store.view(lambda txn: txn.size(HEADS), now_ms=0) == 1
    store.close()


def test_killing_the_holder_frees_the_lock_and_shows_nothing(path: Path, holder: Child) -> None:
    store = open_store(path, lock_timeout_ms=0)
    holder.kill()
    store.update(put(b"a"), now_ms=0)
    assert store.view(get(b"uncommitted"), now_ms=0) is None
    assert store.view(get(b"a"), now_ms=0) == b"1"
    store.close()


def test_interrupting_a_waiter_ends_it_while_the_lock_is_held(holder: Child, spawn: Spawn) -> None:
    waiter = spawn(f"""{WAITING}
    try:
        store.update(lambda txn: None, now_ms=0)
    except KeyboardInterrupt:
        say("interrupted")
    """)
    assert waiter.hear() == "waiting"
    waiter.process.send_signal(signal.SIGINT)
    assert waiter.hear() == "interrupted"
    assert waiter.process.wait(5) == 0
    assert holder.process.poll() is None


def test_a_bulk_writer_does_not_starve_a_waiter(path: Path, spawn: Spawn) -> None:
    """It holds the lock nearly always, so without the turnstile chance decides who comes next."""
    bulk = spawn("""
        def step(txn):
            txn.next_number("steps")
            time.sleep(0.004)
        store = open_store()
        say("begun")
        while True:
            store.update(step, now_ms=0)
    """)
    assert bulk.hear() == "begun"
    store = open_store(path)

    def steps() -> int:
        return store.view(lambda txn: txn.number("steps"), now_ms=0)

    passed = []
    after = 0
    for _ in range(15):
        while (before := steps()) == after:
            time.sleep(0.001)
        after = store.update(lambda txn: txn.number("steps"), now_ms=0)
        passed.append(after - before)
    store.close()
    assert sum(passed) <= 3 * len(passed), passed


def test_errors_have_a_json_form(path: Path, holder: Child) -> None:
    store = open_store(path, lock_timeout_ms=0)
    with pytest.raises(BusyError) as caught:
        store.update(put(b"a"), now_ms=0)
    document = json.loads(json.dumps(caught.value.document()))
    assert document["error"] == "busy"
    assert document["retryable"] is True
    assert document["holder_pid"] == holder.pid
    store.close()


# One that is stopped, as by Ctrl-Z.


def stop(child: Child) -> None:
    child.process.send_signal(signal.SIGSTOP)
    state = Path(f"/proc/{child.pid}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")


def test_update_names_a_holder_that_is_stopped(path: Path, holder: Child) -> None:
    stop(holder)
    store = open_store(path, lock_timeout_ms=0)
    with pytest.raises(BusyError, match=f"held by process {holder.pid} and is stopped$") as caught:
        store.update(put(b"a"), now_ms=0)
    assert caught.value.hint is not None
    assert f"kill -CONT {holder.pid}" in caught.value.hint
    store.close()


def test_update_names_a_waiter_that_is_stopped(path: Path, holder: Child, spawn: Spawn) -> None:
    """It holds the turnstile, and the lock itself is free: nobody but it could take it."""
    waiter = spawn(WAITER)
    assert waiter.hear() == "waiting"
    stop(waiter)
    holder.tell()
    assert holder.hear() == "released"
    store = open_store(path, lock_timeout_ms=0)
    with pytest.raises(BusyError) as caught:
        store.update(put(b"a"), now_ms=0)
    lock = f"the write lock of {path}"
    assert caught.value.message == f"process {waiter.pid} keeps others from {lock} and is stopped"
    assert caught.value.details == {"holder_pid": waiter.pid}
    waiter.process.send_signal(signal.SIGCONT)
    assert waiter.hear() == "update ok None"
    store.update(put(b"a"), now_ms=0)
    store.close()


# A place that is not what it was.


@pytest.mark.parametrize("what", ["home", "lock", "nothing", "other"])
def test_update_of_a_place_that_changed_while_it_waited_is_a_conflict(
    path: Path, holder: Child, spawn: Spawn, what: str
) -> None:
    waiter = spawn(WAITER)
    assert waiter.hear() == "waiting"
    if what == "lock":
        (path / "write.lock").unlink()
        (path / "write.lock").touch()
    else:
        path.rename(path.with_name("before"))
    if what == "home":
        shutil.copytree(path.with_name("before"), path)
    elif what == "other":
        open_store(path, market_id=bytes([1] * 16)).close()
    before = contents(path)
    holder.tell()
    assert waiter.hear().startswith("update conflict the market in ")
    assert contents(path) == before or what == "lock"
    if path.exists():
        store = open_store(path)
        assert store.view(get(b"a"), now_ms=0) is None
        store.close()


def test_update_in_a_directory_that_is_deleted_while_it_waits_is_a_conflict(
    path: Path, spawn: Spawn
) -> None:
    open_store(path).close()
    with Turnstile(str(path), 0, time.sleep):
        waiter = spawn(WAITER)
        assert waiter.hear() == "waiting"
        shutil.rmtree(path)
    assert waiter.hear().startswith("update conflict the market in ")
    assert not path.exists()


# Processes of the same number.


def test_view_waits_for_a_reader_of_the_same_number_in_another_pid_namespace(path: Path) -> None:
    """LMDB tells readers apart by their process id, and in a container that is most often 1."""
    namespace = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    probe = subprocess.run([*namespace, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no PID namespace: {probe.stderr.decode().strip()}")
    open_store(path).close()
    reader = Child(path, "open_to_look().view(hold_still, now_ms=0)", (), before=namespace)
    others = []
    try:
        assert reader.hear() == "holding"
        body = """
            attempt("view", lambda: open_to_look(lock_timeout_ms=int(sys.argv[2])).view(
                lambda txn: os.getpid(), now_ms=0))
        """
        others.append(Child(path, body, ("20",), before=namespace))
        message = "process 1 of another PID namespace has"
        assert others[0].hear().startswith(f"view busy {message} the store open | containers ")
        body = "say('begun')\n" + textwrap.dedent(body)
        others.append(Child(path, body, ("20000",), before=namespace))
        assert others[1].hear() == "begun"
        time.sleep(0.3)
        reader.tell()
        assert others[1].hear() == "view ok 1"
    finally:
        for child in (reader, *others):
            child.close()


@pytest.mark.parametrize("held", ["write.lock", "."])
def test_a_wait_in_vain_leaves_no_file_open(path: Path, held: str) -> None:
    """Neither behind the write lock nor behind the turnstile, which is the directory itself."""
    store = open_store(path, lock_timeout_ms=0)
    with locked(path / held):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(BusyError):
                store.update(lambda txn: None, now_ms=0)
        assert len(os.listdir("/proc/self/fd")) == before
    store.close()


def test_a_write_lock_that_was_removed_is_made_again(path: Path, store: Store) -> None:
    (path / "write.lock").unlink()
    store.update(put(b"a"), now_ms=0)
    assert (path / "write.lock").stat().st_mode & 0o777 == 0o600
