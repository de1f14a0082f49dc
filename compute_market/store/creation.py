"""The first data file of a market: whole, or not there under its name."""

import os
from contextlib import suppress
from typing import Final

import lmdb

from compute_market.store.schema import META, SCHEMA_VERSION, TABLES, pack_u64

_UNFINISHED: Final = ".new"  # what the name of a data file ends in while it is made


def make_data(data: str, market_id: bytes, genesis_ms: int, map_size: int) -> None:
    """Make the data file with every table in it, in the place of one that holds nothing.

    The caller holds the turnstile. It is made under another name, which a process that is killed
    leaves behind and the next one takes away.
    """
    unfinished = data + _UNFINISHED
    try:
        with suppress(FileNotFoundError):
            os.remove(unfinished)
        _fill(unfinished, market_id, genesis_ms, map_size)
        os.replace(unfinished, data)
    except BaseException:
        with suppress(OSError):
            os.remove(unfinished)
        raise
    sync(os.path.dirname(data))


def sync(path: str) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(unfinished: str, market_id: bytes, genesis_ms: int, map_size: int) -> None:
    with (
        lmdb.open(
            unfinished,
            subdir=False,
            lock=False,
            map_size=map_size,
            max_dbs=len(TABLES),
            mode=0o600,
            lib_version=0,
        ) as env,
        env.begin(write=True) as txn,
    ):
        for table in TABLES:
            handle = env.open_db(table.name.encode(), txn=txn)
            if table is META:
                meta = handle
        for key, value in (
            (b"schema", bytes((SCHEMA_VERSION,))),
            (b"market_id", market_id),
            (b"genesis_ms", pack_u64(genesis_ms)),
        ):
            txn.put(key, META.sealed(key, value), db=meta)
