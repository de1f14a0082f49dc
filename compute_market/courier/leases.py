"""Leases of bundles that wait: no two flushes forward the same one.

A bundle that waits stands here under its seq, in the order of sending, with the end of its lease
and who has that. Market time ends a lease, so that a flush that died blocks nobody for long.
"""

from collections.abc import Iterable

from compute_market.store.schema import BUNDLES_PENDING, pack_u64, unpack_u64
from compute_market.store.txn import Txn

HOLDER_BYTES = 8
# The end of a lease in ms, and who has it.
LEASE_BYTES = 8 + HOLDER_BYTES
_NONE = bytes(LEASE_BYTES)
_PAGE = 1000


def has_pending(txn: Txn) -> bool:
    """Whether any bundle waits to be forwarded."""
    return txn.size(BUNDLES_PENDING) > 0


def wait(txn: Txn, seq: int) -> None:
    """Let a bundle wait for whichever flush comes first."""
    txn.put(BUNDLES_PENDING, pack_u64(seq), _NONE)


def end(txn: Txn, seq: int) -> None:
    """Let it wait no more. Raises IntegrityError where it does not."""
    txn.remove(BUNDLES_PENDING, pack_u64(seq))


def page(
    txn: Txn, after: bytes | None, limit: int
) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Bundles that wait behind a key, with their leases, and the last key; None at the end."""
    start = None if after is None else after + b"\0"
    found = txn.collect(BUNDLES_PENDING, limit, start=start)
    return found, found[-1][0] if len(found) == limit else None


def one(txn: Txn, seq: int) -> list[tuple[bytes, bytes]]:
    """A page of one bundle; an empty one where it does not wait."""
    key = pack_u64(seq)
    lease = txn.get(BUNDLES_PENDING, key)
    return [] if lease is None else [(key, lease)]


def is_free(txn: Txn, lease: bytes, holder: bytes) -> bool:
    """Whether a flush may have a bundle, by the lease that it has now."""
    return lease[8:] == holder or end_ms(lease) <= txn.now_ms


def end_ms(lease: bytes) -> int:
    """When a lease ends, or has ended."""
    return unpack_u64(lease[:8])


def take(txn: Txn, holder: bytes, keys: Iterable[bytes]) -> None:
    """Give a flush the leases of bundles from now on."""
    lease = pack_u64(txn.now_ms + txn.config.courier_lease_secs * 1000) + holder
    for key in keys:
        txn.put(BUNDLES_PENDING, key, lease)


def renew(txn: Txn, holder: bytes, seqs: Iterable[int]) -> set[int]:
    """Let the leases of a flush begin anew; those of them that it still has."""
    held = {seq for seq in seqs if holder_of(txn, seq) == holder}
    take(txn, holder, map(pack_u64, held))
    return held


def free(txn: Txn) -> None:
    """End every lease: the flushes that had them are at work in another copy of the market."""
    after: bytes | None = None
    while True:
        found, after = page(txn, after, _PAGE)
        for key, lease in found:
            if lease != _NONE:
                txn.put(BUNDLES_PENDING, key, _NONE)
        if after is None:
            return


def holder_of(txn: Txn, seq: int) -> bytes | None:
    """Who has the lease of a bundle, or had it last; None where it does not wait."""
    lease = txn.get(BUNDLES_PENDING, pack_u64(seq))
    return None if lease is None else lease[8:]


def until_ms(txn: Txn, seq: int) -> int | None:
    """When the lease of a bundle ends, None if no flush has it."""
    lease = txn.get(BUNDLES_PENDING, pack_u64(seq))
    found_ms = 0 if lease is None else end_ms(lease)
    return found_ms if found_ms > txn.now_ms else None
