"""The data file without what is free in it, in the place of the one that others may have open.

The new file goes on with the number of the last transaction: LMDB's table of readers, which belongs
to the path and which others have open, names it. Whoever has the old file open finds out by two
marks that the new one is the same market: what the old file became, and what the new one came from.
Both snapshots of the old file have the first mark, and so all that ever was in it.
"""

import os
from contextlib import suppress
from typing import Any, Final

import lmdb

from compute_market.home import FILE_MODE, file_at, give_to_owner
from compute_market.store.creation import sync
from compute_market.store.schema import META

TOKEN_BYTES: Final = 16
_BECAME: Final = b"compacted_to"
_CAME_FROM: Final = b"compacted_from"
# Compactions that a process may sleep through, and still know the file.
_REMEMBERED: Final = 64
_UNFINISHED: Final = ".compact"  # what the name of a data file ends in while it is made
# In a meta page: the record begins behind the header of the page, and the number of its transaction
# is near its end.
_RECORD: Final = 16
_NUMBER: Final = 144
_META_BYTES: Final = 152


def exchange(env: Any, data: str, token: bytes) -> None:
    """Put a compacted copy into the place of the data file of an environment.

    The caller holds the write lock, and opens the new file then. `token`, 16 random bytes, is what
    both are known by. What is killed leaves the old file, and a copy that the next one overwrites.
    """
    page_bytes = int(env.stat()["psize"])
    unfinished = data + _UNFINISHED
    _mark(env, _CAME_FROM, (_marked(env, _CAME_FROM) + token)[-_REMEMBERED * TOKEN_BYTES :])
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, FILE_MODE)
        try:
            env.copyfd(descriptor, compact=True)
            for _ in range(2):
                _mark(env, _BECAME, token)
            _go_on(descriptor, page_bytes, int(env.info()["last_txnid"]))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        give_to_owner(unfinished)
        os.replace(unfinished, data)
    except BaseException:
        with suppress(OSError):
            os.remove(unfinished)
        raise
    sync(os.path.dirname(data))


def is_continued(env: Any, data: str) -> bool:
    """Whether the file that is at the path by now is a compacted copy of what was opened."""
    became = _marked(env, _BECAME)
    if not became or file_at(data) is None:
        return False
    try:
        with lmdb.open(
            data, subdir=False, readonly=True, lock=False, create=False, max_dbs=1, lib_version=0
        ) as other:
            came_from = _marked(other, _CAME_FROM)
    except lmdb.Error:
        return False
    tokens = range(0, len(came_from), TOKEN_BYTES)
    return became in (came_from[at : at + TOKEN_BYTES] for at in tokens)


def _mark(env: Any, key: bytes, value: bytes) -> None:
    with env.begin(write=True) as txn:
        handle = env.open_db(META.name.encode(), txn=txn, create=False)
        txn.put(key, META.sealed(key, value), db=handle)


def _marked(env: Any, key: bytes) -> bytes:
    with env.begin() as txn:
        handle = env.open_db(META.name.encode(), txn=txn, create=False)
        value = txn.get(key, db=handle)
        return b"" if value is None else META.opened(key, value)


def _go_on(descriptor: int, page_bytes: int, number: int) -> None:
    """Let both meta pages of a copy, which has one transaction, stand for the last two of a file.

    LMDB looks for a transaction in the first of them if its number is even, else in the second.
    """
    record = os.pread(descriptor, _META_BYTES - _RECORD, page_bytes + _RECORD)
    at = _NUMBER - _RECORD
    for each in (number - 1, number):
        numbered = record[:at] + each.to_bytes(8, "little") + record[at + 8 :]
        os.pwrite(descriptor, numbered, (each & 1) * page_bytes + _RECORD)
