"""Finding an instant in what is stored in the order of time, without a walk to it."""

from collections.abc import Callable
from typing import Any, TypeVar

from compute_market.store.schema import pack_u64, unpack_u64
from compute_market.store.table import Table
from compute_market.store.txn import Txn

R = TypeVar("R")


def first_where(
    txn: Txn, table: Table[Any], is_there: Callable[[bytes, bytes], bool]
) -> tuple[int, int] | None:
    """The number of the first entry of a table that is somewhere, and the last number.

    The keys of the table are `pack_u64`, and `is_there` says of a key and a payload whether that
    entry is there already; once one is, all behind it are. The former number is one beyond the last
    when none is. None for an empty table. Looks at the logarithm of the entries.
    """
    first = txn.first(table)
    if first is None:
        return None
    low, last = unpack_u64(first[0]), unpack_u64(next(txn.scan_back(table))[0])
    high = last + 1
    while low < high:
        middle = (low + high) // 2
        found = txn.first(table, start=pack_u64(middle))
        if found is None or is_there(*found):
            high = middle
        else:
            low = unpack_u64(found[0]) + 1
    found = txn.first(table, start=pack_u64(low))
    return (low if found is None else unpack_u64(found[0])), last
