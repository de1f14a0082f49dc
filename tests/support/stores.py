"""Stores of tests, and other processes that have them open."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from compute_market.store.environment import Creation
from compute_market.store.schema import HEADS
from compute_market.store.store import Store
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.forked import Forked, commands

ROOT = Path(__file__).parents[2]
LARGE_BYTES = 1_000_000

PRELUDE = """
import os, sys, time
from compute_market.errors import MarketError
from compute_market.store.environment import Creation, verify
from compute_market.store.schema import COUNTERS, HEADS, META
from compute_market.store.store import Store

def open_store(market_id=bytes(16), *, sleep=time.sleep, **options):
    return Store.open(sys.argv[1], creation=Creation(0, market_id), sleep=sleep, **options)

def open_to_look(**options):
    return Store.open(sys.argv[1], sleep=time.sleep, **options)

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()

def attempt(label, action):
    try:
        say(label, "ok", action())
    except MarketError as error:
        say(label, error.token, error.message, "|", error.hint)

def hold_still(txn):
    say("holding")
    hear()

def hold(txn):
    txn.put(HEADS, b"uncommitted", b"1")
    say("holding")
    hear()
"""


class Child:
    """Another process that has the store of a test open."""

    def __init__(
        self, path: Path, body: str, arguments: tuple[str, ...], before: tuple[str, ...] = ()
    ) -> None:
        program = PRELUDE + textwrap.dedent(body)
        words = (program, str(path), *arguments)
        pipe = subprocess.PIPE
        self.process: Forked | subprocess.Popen[bytes]
        if before:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-c", *words],
                cwd=ROOT,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                # A run in the background of a shell ignores it, and so would its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        else:
            given = {"environment": os.environ, "directory": ROOT, "stdin": pipe}
            self.process = commands().start("-c", *words, **given)
        self.pid = self.process.pid

    def hear(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        return line.decode().strip() if line else f"ended: {self.process.stderr.read().decode()}"

    def tell(self, text: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


Spawn = Callable[..., Child]


def open_store(
    path: Path, *, now_ms: int = 0, market_id: bytes = bytes(16), **options: Any
) -> Store:
    """The store in a directory, made there if need be. It knows no older schema."""
    creation = Creation(now_ms, market_id)
    return Store.open(str(path), **({"creation": creation, "sleep": time.sleep} | options))


def open_to_look(path: Path, **options: Any) -> Store:
    """The store in a directory as a command opens it that brings nothing new."""
    return Store.open(str(path), **({"sleep": time.sleep} | options))


# Most tests of the store put plain bytes into a table that holds such: HEADS, where it is not said.


def put(key: bytes, value: bytes = b"1", table: Table[bytes] = HEADS) -> Callable[[Txn], None]:
    return lambda txn: txn.put(table, key, value)


def get(key: bytes, table: Table[bytes] = HEADS) -> Callable[[Txn], bytes | None]:
    return lambda txn: txn.get(table, key)


def give_back_the_last_pages(store: Store) -> None:
    """The last commit takes pages and gives them back: LMDB counts them, and does not write them.

    More than `LARGE_BYTES` are in the file then.
    """

    def put_and_delete(txn: Txn) -> None:
        txn.put(HEADS, b"small")
        txn.put(HEADS, b"large", bytes(LARGE_BYTES))
        txn.delete(HEADS, b"large")

    store.update(lambda txn: txn.put(HEADS, b"before", bytes(4096)), now_ms=0)
    store.update(lambda txn: txn.delete(HEADS, b"before"), now_ms=0)
    store.update(put_and_delete, now_ms=0)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its name."""
    files = (found for found in sorted(directory.rglob("*")) if found.is_file())
    return {str(found.relative_to(directory)): found.read_bytes() for found in files}


def in_a_mount(directory: Path, options: str, body: str) -> dict[str, str]:
    """Run `body` with a file system of its own at `directory`; what it said, by first word.

    It lives in a mount namespace that ends with the process. Skips where that is not permitted.
    """
    directory.mkdir()
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounting = f'mount -t tmpfs -o {options} tmpfs "$0"'
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    probe = subprocess.run([*mount, mounting, directory], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no mount namespace: {probe.stderr.decode().strip()}")
    found = subprocess.run(
        [
            *mount,
            mounting + ' && exec "$@"',
            directory,
            sys.executable,
            "-c",
            "import os\n" + PRELUDE + textwrap.dedent(body),
            directory / "market",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, (found.returncode, found.stdout, found.stderr)
    return dict(line.split(" ", 1) for line in found.stdout.splitlines())


@contextmanager
def raw(path: Path) -> Iterator[Callable[[Table[Any]], Any]]:
    """Write past the store, as damage does: from a table to a cursor over what is stored in it.

    The store must be closed.
    """
    with (
        lmdb.open(str(path), max_dbs=256, lock=False) as environment,
        environment.begin(write=True) as txn,
    ):
        yield lambda table: txn.cursor(environment.open_db(table.name.encode(), txn=txn))


def drop(path: Path, tables: Iterable[Table[Any]]) -> None:
    """Take tables out of a closed store, as if a release had made it that did not have them."""
    with (
        lmdb.open(str(path), max_dbs=256, lock=False) as environment,
        environment.begin(write=True) as txn,
    ):
        for table in tables:
            txn.drop(environment.open_db(table.name.encode(), txn=txn))


def flip(path: Path, table: Table[Any], key: bytes, bit: int = 0) -> None:
    """Turn one bit of a stored value."""
    with raw(path) as stored:
        cursor = stored(table)
        assert cursor.set_key(key)
        cursor.put(key, flipped(cursor.value(), bit))


def flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
