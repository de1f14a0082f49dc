"""What few do to a table: a new schema, who looks for damage, and who removes a lot of it.

A part of `txn`, which every command imports and few need this of.
"""

from collections.abc import Callable, Iterator
from typing import Any

from compute_market.errors import IntegrityError
from compute_market.store.table import Table, damaged
from compute_market.store.txn import Txn


def rewrite(txn: Txn, table: Table[Any], convert: Callable[[bytes, bytes], bytes | None]) -> None:
    """Replace every value of a table, however it is stored.

    `convert` gets key and stored bytes and returns the payload, or None to remove the entry.
    """
    handle = txn._whole(table)
    txn._forget(table)
    with txn._txn.cursor(db=handle) as cursor:
        present = cursor.first()
        while present:
            key: bytes = cursor.key()
            payload = convert(key, cursor.value())
            if payload is None:
                present = cursor.delete()  # It is at the next entry then.
            else:
                cursor.put(key, table.sealed(key, payload))
                present = cursor.next()


def remove_each(txn: Txn, table: Table[Any], keys: list[bytes]) -> None:
    """Delete entries that must be there. Raises IntegrityError when one of them is missing."""
    held = txn._residents[table]
    if held is None:
        for key in keys:
            txn.remove(table, key)
        return
    txn.writes += len(keys)
    missing = held.delete_each(keys)
    if missing:
        raise damaged(table, missing[0], "it is missing")


def drop(txn: Txn, table: Table[Any]) -> None:
    """Remove a table that no release has any more."""
    txn._forget(table)
    txn._txn.drop(txn._handles.pop(table, None) or txn._handles[table])
    txn._handles.pop(table, None)


def stored_entries(txn: Txn, table: Table[Any]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and bytes of a table as they are stored, whatever their schema."""
    handle = txn._whole(table)
    if handle is not None:
        with txn._txn.cursor(db=handle) as cursor:
            yield from table.stored(cursor)


def examined(txn: Txn, table: Table[Any]) -> Iterator[tuple[bytes, IntegrityError | None]]:
    """Every key of a table and what is wrong with its value."""
    for key, value in stored_entries(txn, table):
        problem = None
        try:
            payload = table.opened(key, value)
            if table.has_records:
                table.decode(key, payload)
        except IntegrityError as error:
            problem = error
        yield key, problem
