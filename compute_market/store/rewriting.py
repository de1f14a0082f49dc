"""What only a new schema does to a table: give all its values another form, or remove it.

A part of `txn`, which every command imports and few need this of.
"""

from collections.abc import Callable
from typing import Any

from compute_market.store.schema import Table
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


def drop(txn: Txn, table: Table[Any]) -> None:
    """Remove a table that no release has any more."""
    txn._forget(table)
    txn._txn.drop(txn._handles.pop(table, None) or txn._handles[table])
    txn._handles.pop(table, None)
