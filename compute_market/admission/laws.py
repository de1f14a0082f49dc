"""What the audit checks of usage and of the consumer pool."""

from collections import Counter
from collections.abc import Iterator

from compute_market.admission import mempool, shares
from compute_market.amounts import AMOUNT_MAX
from compute_market.laws import Law, Violation, same_size
from compute_market.mempool_records import Pool, Transaction
from compute_market.store.schema import (
    CONSUMER_POOL,
    MEMPOOL,
    MEMPOOL_NEXT_BLOCK,
    MEMPOOL_SENDERS,
    META,
    USAGE,
    USAGE_RECENT,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn


def _usage(txn: Txn) -> Iterator[Violation]:
    law = "every party is found by its last charge"
    expected = 0
    for key, payload in txn.scan(USAGE):
        usage = USAGE.decode(key, payload)
        if min(usage.used_micro, usage.burst_micro) < 0:
            yield Violation("usage", repr(key), "usage and bursts are not negative", str(usage))
        if shares.is_party(key):
            expected += 1
            if txn.get(USAGE_RECENT, pack_u64(usage.at_ms) + key) is None:
                yield Violation("usage_recent", repr(key), law, "missing")
    yield from same_size(txn, USAGE_RECENT, expected, law)


def _pool(txn: Txn) -> Iterator[Violation]:
    """What is kept beside the pool is what its transactions and the last fees come to."""
    arrivals: list[int] = []
    sent: Counter[str] = Counter()
    last_seq = txn.number("mempool_seq")
    for key, each in txn.page(MEMPOOL, None, txn.size(MEMPOOL) + 1)[0]:
        arrivals.append(each.at_ms)
        sent[each.sender] += 1
        if not _can_be(each, last_seq) or key != mempool.key_of(each.fee, each.bytes, each.seq):
            yield Violation(
                "mempool",
                each.tx_id,
                "a transaction is where its fee per byte and its number put it",
                str(each),
            )
    arrivals.sort()
    yield from _senders(txn, sent)
    yield from _kept(txn, arrivals)


def _senders(txn: Txn, sent: Counter[str]) -> Iterator[Violation]:
    stored = {key.decode(): unpack_u64(value) for key, value in txn.scan(MEMPOOL_SENDERS)}
    for sender in sorted(stored.keys() | sent.keys()):
        if stored.get(sender, 0) != sent[sender]:
            yield Violation(
                "mempool_senders",
                sender,
                "the transactions of a sender are those of it in the pool",
                f"{stored.get(sender, 0)}, the pool has {sent[sender]}",
            )


def _kept(txn: Txn, arrivals: list[int]) -> Iterator[Violation]:
    if mempool.arrivals_of(txn) != arrivals:
        yield Violation(
            "meta",
            "mempool_arrivals",
            "the arrivals are those of the pool, in order",
            f"{len(arrivals)} are in the pool",
        )
    fees = mempool.fees_of(txn)
    due = mempool.with_fees(mempool.measured(Pool(), arrivals), fees) if fees else Pool()
    if mempool.stored(txn) != due:
        yield Violation(
            "consumer_pool",
            "pool",
            "size, ages and fees are what pool and fee window come to",
            f"{mempool.stored(txn)}, not {due}",
        )
    next_block = txn.number(MEMPOOL_NEXT_BLOCK)
    waits = 0 < next_block < mempool.NO_BLOCK
    if waits != bool(arrivals) or bool(next_block) != bool(fees):
        yield Violation(
            "meta",
            MEMPOOL_NEXT_BLOCK,
            "a block is to come while transactions wait for it",
            str(next_block),
        )


def _can_be(transaction: Transaction, last_seq: int) -> bool:
    return (
        1 <= transaction.seq <= last_seq
        and 1 <= transaction.fee <= AMOUNT_MAX
        and 1 <= transaction.bytes <= mempool.BYTES_MAX
    )


LAWS = (
    Law(_usage, (USAGE, USAGE_RECENT)),
    Law(_pool, (MEMPOOL, MEMPOOL_SENDERS, CONSUMER_POOL, META)),
)
