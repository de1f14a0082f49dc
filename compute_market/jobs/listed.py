"""Jobs in the orders in which they are listed: live ones by deadline, ended ones by their end."""

from collections.abc import Iterator

from compute_market.store.schema import DEADLINES, ENDED, unpack_u64
from compute_market.store.txn import Txn


def live_ids(txn: Txn) -> Iterator[str]:
    """Ids of every pending, queued and active job, the nearest deadline first."""
    for key, _ in txn.scan(DEADLINES):
        yield key[8:].decode()


def first_ended(txn: Txn) -> tuple[int, str] | None:
    """The unix second in which the first of the ended jobs ended that are kept, and its id."""
    found = txn.first(ENDED)
    return None if found is None else (unpack_u64(found[0][:8]), found[0][8:].decode())
