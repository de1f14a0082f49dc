"""What the audit checks of bundles: where they wait, their copies, their rewards and counters."""

from collections import Counter
from collections.abc import Iterator

from compute_market import metrics
from compute_market.courier import courier, leases
from compute_market.courier_records import BundleReceipt
from compute_market.errors import UsageError
from compute_market.laws import Law, Violation, same_size
from compute_market.settlement import ledger
from compute_market.store.schema import (
    BUNDLE_COPIES,
    BUNDLE_IDS,
    BUNDLE_RECEIPTS,
    BUNDLES_ENDED,
    BUNDLES_PENDING,
    COUNTERS,
    META,
    POSTINGS,
    pack_u64,
)
from compute_market.store.txn import Txn

_IS_WHOLE = "a bundle receipt is what its kind and state demand"
_IS_NUMBERED = "every bundle receipt has a number of its own, in the order of sending"
_HAS_ID = "every bundle receipt is found by its id, and no other"
_WAITS = "every pending bundle waits once, and no other"
_HAS_LEASE = "a lease has a holder, and nothing else has"
_IS_TO_GO = "every bundle that has ended is to be forgotten, and no other"
_COPIES = "a bundle has a copy for each of its receipts, all of one size"
_REWARDS = "what a bundle has earned was paid once, to its sender"
_ATTEMPTS = "no fewer attempts are counted than receipts tell of, nor more failures"


def _states(txn: Txn) -> Iterator[Violation]:
    """Each receipt is whole, found by its id, and in the index of its state alone."""
    count = pending = ended = 0
    last = txn.number("bundle_seq")
    for key, payload in txn.scan(BUNDLE_RECEIPTS):
        count += 1
        receipt = BUNDLE_RECEIPTS.decode(key, payload)
        named = courier.id_text(receipt.receipt_id)
        if not _is_whole(receipt):
            detail = f"{receipt.kind}, {receipt.state}"
            yield Violation("bundle_receipts", named, _IS_WHOLE, detail)
        if pack_u64(receipt.seq) != key or not 0 < receipt.seq <= last:
            detail = f"it is number {receipt.seq} of {last}, under {key.hex()}"
            yield Violation("bundle_receipts", named, _IS_NUMBERED, detail)
        if txn.get(BUNDLE_IDS, pack_u64(receipt.receipt_id)) != key:
            yield Violation("bundle_ids", named, _HAS_ID, "missing, or of another")
        if receipt.state == "pending":
            pending += 1
            lease = txn.get(BUNDLES_PENDING, key)
            if lease is None:
                yield Violation("bundles_pending", named, _WAITS, "missing")
            elif len(lease) != leases.LEASE_BYTES or any(lease[:8]) != any(lease[8:]):
                yield Violation("bundles_pending", named, _HAS_LEASE, lease.hex())
        else:
            ended += 1
            if txn.get(BUNDLES_ENDED, courier.ended_key(receipt)) is None:
                yield Violation("bundles_ended", named, _IS_TO_GO, "missing")
    yield from same_size(txn, BUNDLE_IDS, count, _HAS_ID)
    yield from same_size(txn, BUNDLES_PENDING, pending, _WAITS)
    yield from same_size(txn, BUNDLES_ENDED, ended, _IS_TO_GO)


def _copies(txn: Txn) -> Iterator[Violation]:
    receipts: Counter[bytes] = Counter()
    sizes: dict[bytes, int] = {}
    for receipt in courier.receipts(txn):
        receipts[receipt.bundle_hash] += 1
        if sizes.setdefault(receipt.bundle_hash, receipt.size) != receipt.size:
            named = courier.id_text(receipt.receipt_id)
            detail = f"{receipt.size} bytes, and {sizes[receipt.bundle_hash]} elsewhere"
            yield Violation("bundle_receipts", named, _COPIES, detail)
    stored = txn.sums(BUNDLE_COPIES)
    for bundle_hash in sorted(receipts.keys() | stored.keys()):
        is_, should = stored.get(bundle_hash, 0), receipts[bundle_hash]
        if is_ != should:
            detail = f"{is_} copies, {should} receipts"
            yield Violation("bundle_copies", bundle_hash.hex(), _COPIES, detail)


def _rewards(txn: Txn) -> Iterator[Violation]:
    """Receipts are forgotten in time, and postings are not."""
    paid: dict[str, int] = {}
    for posting in txn.records(POSTINGS):
        if posting.event != "courier:reward":
            continue
        receipt = _named(txn, posting.ref)
        is_paid = posting.ref in paid
        paid[posting.ref] = paid.get(posting.ref, 0) + posting.amount
        if is_paid or (receipt is not None and posting.credit != ledger.wallet(receipt.sender)):
            detail = f"{posting.ref} to {posting.credit}"
            yield Violation("postings", str(posting.seq), _REWARDS, detail)
    for receipt in courier.receipts(txn):
        named = courier.id_text(receipt.receipt_id)
        if paid.get(named, 0) != receipt.reward_ct:
            detail = f"{receipt.reward_ct} CT, postings say {paid.get(named, 0)}"
            yield Violation("bundle_receipts", named, _REWARDS, detail)


def _counters(txn: Txn) -> Iterator[Violation]:
    told = sum(receipt.attempts for receipt in courier.receipts(txn))
    attempts = metrics.value(txn, "courier_flush_attempt_total")
    failures = metrics.value(txn, "courier_flush_failure_total")
    if attempts < told or attempts < failures:
        detail = f"{attempts} attempts, {failures} failures; receipts tell of {told}"
        yield Violation("counters", "courier_flush_attempt_total", _ATTEMPTS, detail)


def _is_whole(receipt: BundleReceipt) -> bool:
    is_handoff = receipt.kind == "handoff"
    return (
        (receipt.state == "pending") == (receipt.ended_ms is None)
        and is_handoff == (receipt.job_id is not None) == (receipt.offer_id is not None)
        and is_handoff == (receipt.told is not None)
        and not (is_handoff and receipt.reward_ct)
        and not (receipt.acknowledged_ms is None and _is_acknowledged(receipt))
    )


def _is_acknowledged(receipt: BundleReceipt) -> bool:
    """Whether it is, or must have been: only what was acknowledged earns."""
    return receipt.state == "acknowledged" or receipt.reward_ct > 0


def _named(txn: Txn, text: str) -> BundleReceipt | None:
    """The receipt of an id as it is written; None for what is no id."""
    try:
        return courier.find(txn, courier.parse_id(text))
    except UsageError:
        return None


LAWS = (
    Law(_states, (BUNDLE_RECEIPTS, BUNDLE_IDS, BUNDLES_PENDING, BUNDLES_ENDED, META)),
    Law(_copies, (BUNDLE_RECEIPTS, BUNDLE_COPIES.table)),
    Law(_rewards, (BUNDLE_RECEIPTS, BUNDLE_IDS, POSTINGS)),
    Law(_counters, (BUNDLE_RECEIPTS, COUNTERS.table)),
)
