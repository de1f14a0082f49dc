"""The consumer pool: transactions that wait for a block, and the fees that were paid last.

They leave as blocks pass, the best fee per byte first, and of equal ones the oldest. Whoever is
admitted at one height leaves with the next block or a later one. Every change of the market lets
the blocks that have passed take what is theirs first (`drain`); a view shows the pool without it
(`present`). The only writer of its tables.

What is asked often is kept as the pool changes: the arrivals in order, the fee window, and the few
numbers that follow from them. Nobody sorts or walks the pool for an answer, but for a view that
comes after a block too small to take all of it.
"""

from bisect import bisect_left, insort
from struct import pack, unpack

from msgspec import Struct

from compute_market import chain, events
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.mempool_records import Pool, Transaction
from compute_market.records import Refused, check_id, replace
from compute_market.store.schema import (
    CONSUMER_POOL,
    MEMPOOL,
    MEMPOOL_NEXT_BLOCK,
    MEMPOOL_SENDERS,
    META,
    pack_u64,
    unpack_u64,
)
from compute_market.store.table import damaged
from compute_market.store.txn import Txn
from compute_market.text import counted

FEES_KEPT = 50
BYTES_MAX = 2**20
# The block that takes the next of an empty pool: one behind any that could be to come.
NO_BLOCK = AMOUNT_MAX + 2

_POOL = b"pool"
_ARRIVALS = b"mempool_arrivals"
_FEES = b"mempool_fees"
_RATE_BYTES = 16
# What a rate is subtracted from, so that the best one sorts first: none is as high.
_RATE_END = (1 << 8 * _RATE_BYTES) - 1


class Taken(Struct, frozen=True, gc=False):
    """A transaction that was admitted."""

    transaction: Transaction
    evicted: Transaction | None  # that had to go for it


def check_asked(sender: str, fee: int, size: int) -> None:
    """Raise UsageError unless it can be a transaction: a fee, and a size of at most 1 MiB."""
    check_id(sender, "sender")
    for what, value, most in (("fee", fee, AMOUNT_MAX), ("bytes", size, BYTES_MAX)):
        if type(value) is not int or not 1 <= value <= most:
            raise UsageError(f"{what} is not a whole number within 1…{most}")


def submit(txn: Txn, sender: str, fee: int, size: int) -> Taken | Refused:
    """Let a transaction of `size` bytes into the pool. A full one gives up its lowest fee per byte.

    A refusal is recorded: `sender_limit`, or `pool_full` when no other pays less per byte. Raises
    UsageError for what can be no transaction.
    """
    check_asked(sender, fee, size)
    pool = stored(txn)
    seq = txn.number("mempool_seq") + 1
    key = key_of(fee, size, seq)
    sent = sent_by(txn, sender)
    if sent >= txn.config.mempool_sender_limit:
        return _refuse(txn, sender, fee, size, _sender_limit(txn, sender, sent))
    evicted = None
    if pool.size >= txn.config.mempool_lane_limit:
        last, evicted = _lowest(txn)
        if key > last:
            return _refuse(txn, sender, fee, size, _pool_full(txn, pool, evicted))
    # After this point it must succeed.
    arrivals = arrivals_of(txn)
    if evicted is not None:
        _evict(txn, last, evicted, arrivals)
    admitted = Transaction(seq, sender, fee, size, txn.now_ms)
    txn.set_number("mempool_seq", seq)
    txn.write(MEMPOOL, key, admitted)
    txn.put(MEMPOOL_SENDERS, sender.encode(), pack_u64(sent_by(txn, sender) + 1))
    insort(arrivals, txn.now_ms)
    fees = [*fees_of(txn), fee][-FEES_KEPT:]
    txn.put(META, _FEES, _packed(fees))
    _keep(txn, with_fees(pool, fees), arrivals)
    txn.set_number(MEMPOOL_NEXT_BLOCK, chain.height(txn) + 1)
    events.note(txn, "tx_admitted", owner=sender, tx_id=admitted.tx_id, fee=fee, bytes=size)
    return Taken(admitted, evicted)


def drain(txn: Txn, height: int) -> int:
    """Let the blocks up to a height take what is theirs; how many transactions."""
    pool = stored(txn)
    count = _due(txn, pool, height)
    arrivals: list[int] = []
    if count == pool.size:
        txn.clear(MEMPOOL)
        txn.clear(MEMPOOL_SENDERS)
    else:
        arrivals = arrivals_of(txn)
        for key, payload in txn.collect(MEMPOOL, count):
            _remove(txn, key, MEMPOOL.decode(key, payload), arrivals)
    _keep(txn, pool, arrivals)
    txn.set_number(MEMPOOL_NEXT_BLOCK, height + 1 if arrivals else NO_BLOCK)
    return count


def present(txn: Txn) -> Pool:
    """The pool as it is now: without what blocks have taken since the last change."""
    pool = stored(txn)
    if not pool.size:
        return pool
    height = chain.height(txn)
    if txn.pool is None or txn.pool[0] != height:
        txn.pool = height, _at(txn, pool, height)
    found: Pool = txn.pool[1]
    return found


def stored(txn: Txn) -> Pool:
    """The pool as the last change left it."""
    return txn.read(CONSUMER_POOL, _POOL) or Pool()


def arrivals_of(txn: Txn) -> list[int]:
    """When the transactions of the pool came, in order."""
    return _unpacked(txn.get(META, _ARRIVALS) or b"")


def fees_of(txn: Txn) -> list[int]:
    """The last fees that were admitted, at most `FEES_KEPT`, the oldest first."""
    return _unpacked(txn.get(META, _FEES) or b"")


def sent_by(txn: Txn, sender: str) -> int:
    """How many transactions of the pool are of one sender."""
    return unpack_u64(txn.get(MEMPOOL_SENDERS, sender.encode()) or b"")


def key_of(fee: int, size: int, seq: int) -> bytes:
    """The key of a transaction in the order in which blocks take them.

    Two fees per byte that differ do so by 2^-40 at least, for no size is above 2^20: with 64 binary
    places no two of them become one.
    """
    rate = (fee << 64) // size
    return (_RATE_END - rate).to_bytes(_RATE_BYTES, "big") + pack_u64(seq)


def measured(pool: Pool, arrivals: list[int]) -> Pool:
    """A pool with the numbers that its arrivals, in order, come to."""
    p50_ms, p95_ms = (at_percentile(arrivals, pct) for pct in (50, 95))
    return replace(pool, size=len(arrivals), p50_ms=p50_ms, p95_ms=p95_ms)


def with_fees(pool: Pool, fees: list[int]) -> Pool:
    """A pool with the percentiles of a fee window: of n sorted fees, that at floor(n·q)."""
    ordered = sorted(fees)
    count = len(ordered)
    return replace(pool, fee_p50=ordered[count // 2], fee_p90=ordered[count * 9 // 10])


def at_percentile(arrivals: list[int], pct: int) -> int:
    """When the one came whose age is a percentile; `arrivals` are in order. 0 when there is none.

    Of n ages, the youngest first, it is that at (n − 1)·q, rounded half up.
    """
    if not arrivals:
        return 0
    last = len(arrivals) - 1
    return arrivals[last - (2 * last * pct + 100) // 200]


def age_ms(txn: Txn, since_ms: int) -> int:
    """How long ago an arrival was; 0 for that of an empty pool."""
    return max(0, txn.now_ms - since_ms) if since_ms else 0


def _at(txn: Txn, pool: Pool, height: int) -> Pool:
    """The pool as the blocks up to a height leave it."""
    count = _due(txn, pool, height)
    if not count:
        return pool
    if count == pool.size:
        return measured(pool, [])
    arrivals = arrivals_of(txn)
    for key, payload in txn.collect(MEMPOOL, count):
        _forget(arrivals, MEMPOOL.decode(key, payload))
    return measured(pool, arrivals)


def _due(txn: Txn, pool: Pool, height: int) -> int:
    """How many transactions the blocks up to a height take."""
    begin = txn.number(MEMPOOL_NEXT_BLOCK)
    if not 0 < begin <= height:
        return 0
    return min(pool.size, (height - begin + 1) * txn.config.block_tx_capacity)


def _lowest(txn: Txn) -> tuple[bytes, Transaction]:
    """The key and the transaction that a full pool gives up first."""
    for key, payload in txn.scan_back(MEMPOOL):
        return key, MEMPOOL.decode(key, payload)
    raise damaged(CONSUMER_POOL, _POOL, "it counts transactions that are not there")


def _evict(txn: Txn, key: bytes, gone: Transaction, arrivals: list[int]) -> None:
    _remove(txn, key, gone, arrivals)
    sender, tx_id = gone.sender, gone.tx_id
    events.note(txn, "tx_evicted", owner=sender, tx_id=tx_id, fee=gone.fee, bytes=gone.bytes)


def _forget(arrivals: list[int], gone: Transaction) -> None:
    """Take the arrival of a transaction out of those of the pool."""
    place = bisect_left(arrivals, gone.at_ms)
    if arrivals[place : place + 1] != [gone.at_ms]:
        raise damaged(META, _ARRIVALS, f"it lacks that of {gone.tx_id}")
    del arrivals[place]


def _remove(txn: Txn, key: bytes, gone: Transaction, arrivals: list[int]) -> None:
    txn.remove(MEMPOOL, key)
    _forget(arrivals, gone)
    sender, left = gone.sender.encode(), sent_by(txn, gone.sender) - 1
    if left:
        txn.put(MEMPOOL_SENDERS, sender, pack_u64(left))
    else:
        txn.remove(MEMPOOL_SENDERS, sender)


def _keep(txn: Txn, pool: Pool, arrivals: list[int]) -> None:
    txn.pool = None
    txn.put(META, _ARRIVALS, _packed(arrivals))
    txn.write(CONSUMER_POOL, _POOL, measured(pool, arrivals))


def _packed(numbers: list[int]) -> bytes:
    return pack(f">{len(numbers)}Q", *numbers)


def _unpacked(stored: bytes) -> list[int]:
    return list(unpack(f">{len(stored) // 8}Q", stored))


def _refuse(txn: Txn, sender: str, fee: int, size: int, refused: Refused) -> Refused:
    """Remember why a transaction was not let in."""
    events.note(
        txn,
        "tx_refused",
        owner=sender,
        reason=refused.reason,
        message=refused.message,
        fee=fee,
        bytes=size,
    )
    return refused


def _sender_limit(txn: Txn, sender: str, sent: int) -> Refused:
    limit = txn.config.mempool_sender_limit
    return Refused(
        "sender_limit",
        f"the consumer pool holds {sent} of {sender}, and mempool_sender_limit is {limit}",
        "send it again once a block has taken one of them",
        _block_ms(txn),
        is_for_now=True,
    )


def _pool_full(txn: Txn, pool: Pool, lowest: Transaction) -> Refused:
    return Refused(
        "pool_full",
        f"the consumer pool holds {counted(pool.size, 'transaction')}, and none pays less per "
        f"byte: the lowest pays {lowest.fee} for {counted(lowest.bytes, 'byte')}",
        "pay more per byte, or send it again once a block has passed",
        _block_ms(txn),
        is_for_now=True,
    )


def _block_ms(txn: Txn) -> int | None:
    """After what time a block has passed for sure; None where none does by itself."""
    return txn.config.block_interval_secs * 1000 or None
