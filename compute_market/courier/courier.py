"""Bundle receipts: given to the courier, leased to a flush, acknowledged or refused.

The only writer of its tables. The files, of which a hash is all that is known here, are the
caller's: it has brought a bundle to the disk before its receipt is stored, and takes it away only
after the last receipt has gone.

Receipts stand in the order of sending: what a flush goes through lies together. Their ids are drawn
and lead to that. What waits, and which flush has it, is in `leases`.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from compute_market import events, idempotency, metrics
from compute_market.courier import leases
from compute_market.courier_records import BundleKind, BundleReceipt, Progress
from compute_market.errors import (
    ConflictError,
    IntegrityError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.records import replace
from compute_market.settlement import ledger, modes
from compute_market.store.schema import (
    BUNDLE_COPIES,
    BUNDLE_IDS,
    BUNDLE_RECEIPTS,
    BUNDLES_ENDED,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn
from compute_market.text import clipped, quoted

_ID_DIGITS = 16
_HEX = frozenset("0123456789abcdef")


class Bundle(Struct, frozen=True, gc=False):
    """What is sent, from whom, and where to. Its file is on the disk."""

    bundle_hash: bytes
    size: int
    sender: str
    dest: str
    kind: BundleKind = "bundle"
    job_id: str | None = None  # of a handoff
    offer_id: str | None = None
    told: Progress | None = None  # of the job, as the bundle tells it


class Sent(Struct, frozen=True, gc=False):
    """A bundle that was sent, now or under the same key before."""

    id_text: str
    receipt: BundleReceipt | None  # None once it was forgotten
    changed: bool


class Claimed(Struct, frozen=True, gc=False):
    """What a flush has for itself by now."""

    receipts: list[BundleReceipt]
    after: int | None  # the seq to go on after, None at the end
    held: int  # receipts met that another flush has
    held_until_ms: int  # when the last of their leases ends, 0 without one
    refused: int  # handoffs met that are due no more


class Attempted(Struct, frozen=True, gc=False):
    """What came of forwarding one bundle."""

    seq: int
    outcome: Literal["acknowledged", "failed", "refused"]
    attempts: int
    failures: int
    error: str | None = None  # the last one


class Pruned(Struct, frozen=True, gc=False):
    """What was forgotten."""

    receipts: int
    hashes: list[bytes]  # of bundles that no receipt needs by now


def send(txn: Txn, bundle: Bundle, ids: Iterable[int]) -> BundleReceipt:
    """Store the receipt of a bundle under the first of `ids`, 64 random bits each, that is free."""
    receipt_id = next(each for each in ids if txn.get(BUNDLE_IDS, pack_u64(each)) is None)
    receipt = BundleReceipt(
        receipt_id=receipt_id,
        seq=txn.next_number("bundle_seq"),
        kind=bundle.kind,
        bundle_hash=bundle.bundle_hash,
        size=bundle.size,
        sender=bundle.sender,
        dest=bundle.dest,
        sent_ms=txn.now_ms,
        job_id=bundle.job_id,
        offer_id=bundle.offer_id,
        told=bundle.told,
    )
    _write(txn, receipt)
    txn.put(BUNDLE_IDS, pack_u64(receipt_id), pack_u64(receipt.seq))
    txn.add(BUNDLE_COPIES, receipt.bundle_hash, +1)
    leases.wait(txn, receipt.seq)
    _note(txn, "bundle_sent", receipt)
    return receipt


def send_once(txn: Txn, bundle: Bundle, ids: Iterable[int], key: str | None) -> Sent:
    """The same under an idempotency key, if one is given.

    The same call again tells of what was sent then. Raises ConflictError for a key of something
    else.
    """
    asked = {
        "bundle_hash": bundle.bundle_hash.hex(),
        "sender": bundle.sender,
        "dest": bundle.dest,
    }
    done = idempotency.find(txn, key, "bundle_sent", asked)
    if done is not None and done.made is not None:
        return Sent(done.made, find(txn, parse_id(done.made)), changed=False)
    receipt = send(txn, bundle, ids)
    made = id_text(receipt.receipt_id)
    idempotency.remember(txn, key, "bundle_sent", asked, made)
    return Sent(made, receipt, changed=True)


def find(txn: Txn, receipt_id: int) -> BundleReceipt | None:
    """The receipt with an id, or None."""
    seq = txn.get(BUNDLE_IDS, pack_u64(receipt_id))
    return None if seq is None else txn.must_read(BUNDLE_RECEIPTS, seq)


def get(txn: Txn, receipt_id: int) -> BundleReceipt:
    """The receipt. Raises NotFoundError."""
    receipt = find(txn, receipt_id)
    if receipt is None:
        raise NotFoundError(
            f"bundle receipt {id_text(receipt_id)} does not exist",
            hint="see `tb-cli compute courier list`",
        )
    return receipt


def waiting(txn: Txn, after: bytes | None, limit: int) -> tuple[list[BundleReceipt], bytes | None]:
    """What waits behind a key, in the order of sending, and the last key; None at the end."""
    found, last = leases.page(txn, after, limit)
    return [txn.must_read(BUNDLE_RECEIPTS, key) for key, _ in found], last


def oldest_wait_ms(txn: Txn) -> int | None:
    """How long ago the first bundle was sent that waits to be forwarded, 0 without any.

    None where its receipt is damaged, and does not tell.
    """
    try:
        first, _ = waiting(txn, None, 1)
    except IntegrityError:
        return None
    return max(0, txn.now_ms - first[0].sent_ms) if first else 0


def claim(
    txn: Txn, holder: bytes, after: int | None, limit: int, *, only: int | None = None
) -> Claimed:
    """Lease the next pending bundles to a flush, in the order of sending.

    `holder` is 8 random bytes that name the flush; at most `limit` receipts are looked at, those
    behind the seq `after`, or `only` the one with that id. The handoff of a job that is to stay, or
    is told of as it is no more, is refused for good.
    """
    if only is not None:
        found, last = leases.one(txn, get(txn, only).seq), None
    else:
        found, last = leases.page(txn, None if after is None else pack_u64(after), limit)
    receipts: list[BundleReceipt] = []
    held = held_until_ms = refused = 0
    for key, lease in found:
        if not leases.is_free(txn, lease, holder):
            held += 1
            held_until_ms = max(held_until_ms, leases.end_ms(lease))
            continue
        receipt = txn.must_read(BUNDLE_RECEIPTS, key)
        if (problem := _why_not_due(txn, receipt)) is not None:
            _end(txn, receipt, "refused", receipt.attempts, problem.message)
            _handoff_failed(txn, receipt, problem.reason or problem.token)
            refused += 1
        else:
            receipts.append(receipt)
    leases.take(txn, holder, (pack_u64(each.seq) for each in receipts))
    last_seq = None if last is None else unpack_u64(last)
    return Claimed(receipts, last_seq, held, held_until_ms, refused)


def record(txn: Txn, attempted: Iterable[Attempted], holder: bytes | None = None) -> int:
    """Note what came of forwarding, and give leases back; how many receipts are acknowledged.

    With a `holder` only its own leases: one that has ended may be another flush's by now. Without
    an attempt nothing but the lease is given back.

    Whoever was acknowledged before stays so, and is paid once; attempts count all the same. With
    the first acknowledgement of a bundle its sender is paid, if settlement is real then; with that
    of a handoff its job goes over to the other provider, if it still can.
    """
    acknowledged = attempts = failures = 0
    reward_ct = txn.config.courier_reward_ct if modes.is_real(txn) else 0
    for each in attempted:
        attempts += each.attempts
        failures += each.failures
        receipt = txn.read(BUNDLE_RECEIPTS, pack_u64(each.seq))
        if receipt is None or receipt.state != "pending":
            continue
        tried = receipt.attempts + each.attempts
        if each.outcome == "acknowledged":
            _acknowledge(txn, receipt, tried, reward_ct)
            acknowledged += 1
        elif each.outcome == "refused" or (receipt.kind == "handoff" and each.attempts):
            _end(txn, receipt, "refused", tried, each.error)
            if receipt.kind == "handoff":
                _handoff_failed(txn, receipt, "not_delivered")
        else:
            if each.attempts:
                _write(txn, replace(receipt, attempts=tried, last_error=each.error))
            if holder in (None, leases.holder_of(txn, each.seq)):
                leases.wait(txn, each.seq)
    metrics.count(txn, "courier_flush_attempt_total", by=attempts)
    metrics.count(txn, "courier_flush_failure_total", by=failures)
    return acknowledged


def resend(txn: Txn, receipt_id: int) -> BundleReceipt:
    """Forward a bundle again that was acknowledged or refused.

    What was acknowledged once earns nothing any more, also where it had earned nothing then.

    One that waits is free for the next flush at once. Raises NotFoundError, and RefusedError
    (`handoff_ended`) for a handoff that was acknowledged or refused: what it tells is no more.
    """
    receipt = get(txn, receipt_id)
    if receipt.state != "pending":
        if receipt.kind == "handoff":
            raise RefusedError(
                f"handoff {id_text(receipt_id)} is {receipt.state}, and is never sent again",
                hint=f"try `tb-cli compute preempt {receipt.job_id} {receipt.offer_id}`",
                reason="handoff_ended",
            )
        txn.remove(BUNDLES_ENDED, ended_key(receipt))
        receipt = replace(receipt, state="pending", ended_ms=None, last_error=None)
        _write(txn, receipt)
    leases.wait(txn, receipt.seq)
    _note(txn, "bundle_resent", receipt)
    return receipt


def has_old(txn: Txn) -> bool:
    """Whether there is anything to prune."""
    found = txn.first(BUNDLES_ENDED)
    return found is not None and _is_old(txn, found[0])


def prune(txn: Txn, limit: int) -> Pruned:
    """Forget at most `limit` receipts that ended longer ago than they are kept."""
    count = 0
    gone: list[bytes] = []
    for key, _ in txn.collect(BUNDLES_ENDED, limit):
        if not _is_old(txn, key):
            break
        receipt = txn.must_read(BUNDLE_RECEIPTS, key[8:])
        txn.remove(BUNDLES_ENDED, key)
        txn.remove(BUNDLE_RECEIPTS, key[8:])
        txn.remove(BUNDLE_IDS, pack_u64(receipt.receipt_id))
        count += 1
        if txn.add(BUNDLE_COPIES, receipt.bundle_hash, -1) == 0:
            gone.append(receipt.bundle_hash)
    return Pruned(count, gone)


def is_kept(txn: Txn, bundle_hash: bytes) -> bool:
    """Whether a receipt needs the file of a bundle."""
    return txn.sum(BUNDLE_COPIES, bundle_hash) > 0


def id_text(receipt_id: int) -> str:
    """How an id is written: 16 lower-case hex digits."""
    return f"{receipt_id:016x}"


def parse_id(text: str) -> int:
    """The id that is written so. Raises UsageError."""
    if len(text) != _ID_DIGITS or not _HEX.issuperset(text):
        shown = clipped(quoted(text))
        raise UsageError(f"{shown} is no bundle id: {_ID_DIGITS} lower-case hex digits are one")
    return int(text, 16)


def ended_key(receipt: BundleReceipt) -> bytes:
    """Where a receipt stands that is to be forgotten in time."""
    return pack_u64(receipt.ended_ms or 0) + pack_u64(receipt.seq)


def receipts(txn: Txn) -> Iterator[BundleReceipt]:
    """All receipts, in the order of sending."""
    return txn.records(BUNDLE_RECEIPTS)


def _acknowledge(txn: Txn, receipt: BundleReceipt, attempts: int, reward_ct: int) -> None:
    if receipt.acknowledged_ms is None:
        earned = _paid(txn, receipt, reward_ct) if reward_ct and receipt.kind != "handoff" else 0
        receipt = replace(receipt, reward_ct=earned, acknowledged_ms=txn.now_ms)
    receipt = _end(txn, receipt, "acknowledged", attempts)
    if receipt.kind == "handoff" and receipt.job_id is not None and receipt.offer_id is not None:
        from compute_market.jobs import preempt  # Most bundles hand no job over.

        try:
            preempt.take_over(txn, receipt.job_id, receipt.offer_id, receipt.told)
        except (NotFoundError, RefusedError, ConflictError) as error:
            _write(txn, replace(receipt, last_error=error.message))
            _handoff_failed(txn, receipt, error.reason or error.token)


def _paid(txn: Txn, receipt: BundleReceipt, reward_ct: int) -> int:
    """Pay the sender; what it got."""
    ends = ledger.SUPPLY, ledger.wallet(receipt.sender)
    try:
        ledger.transfer(txn, "CT", reward_ct, *ends, "courier:reward", id_text(receipt.receipt_id))
    except RefusedError:  # More than any wallet can hold.
        return 0
    return reward_ct


def _end(
    txn: Txn,
    receipt: BundleReceipt,
    state: Literal["acknowledged", "refused"],
    attempts: int,
    error: str | None = None,
) -> BundleReceipt:
    receipt = replace(
        receipt, state=state, attempts=attempts, ended_ms=txn.now_ms, last_error=error
    )
    _write(txn, receipt)
    leases.end(txn, receipt.seq)
    txn.put(BUNDLES_ENDED, ended_key(receipt))
    _note(txn, "bundle_acknowledged" if state == "acknowledged" else "bundle_refused", receipt)
    return receipt


def _write(txn: Txn, receipt: BundleReceipt) -> None:
    txn.write(BUNDLE_RECEIPTS, pack_u64(receipt.seq), receipt)


def _is_old(txn: Txn, key: bytes) -> bool:
    """Whether it ended so long ago. Nothing grows old while the clock is not believed."""
    before_ms = txn.now_ms - txn.config.courier_retention_secs * 1000
    return txn.timely and unpack_u64(key[:8]) < before_ms


def _why_not_due(txn: Txn, receipt: BundleReceipt) -> MarketError | None:
    """Why the handoff of a job need not be forwarded any more; other bundles always are."""
    if receipt.job_id is None or receipt.offer_id is None:
        return None
    from compute_market.jobs import preempt

    return preempt.why_not(txn, receipt.job_id, receipt.offer_id, receipt.told)


def _handoff_failed(txn: Txn, receipt: BundleReceipt, reason: str) -> None:
    from compute_market.jobs import preempt

    bundle = id_text(receipt.receipt_id)
    preempt.note_failed(txn, receipt.job_id, receipt.offer_id, reason, bundle)


def _note(
    txn: Txn,
    event: Literal["bundle_sent", "bundle_acknowledged", "bundle_refused", "bundle_resent"],
    receipt: BundleReceipt,
) -> None:
    events.note(
        txn,
        event,
        job_id=receipt.job_id,
        owner=receipt.sender,
        bundle=id_text(receipt.receipt_id),
        dest=receipt.dest,
    )
