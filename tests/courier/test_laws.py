"""The laws of bundles, each broken by hand: the audit names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute_market import metrics
from compute_market.courier import courier, laws
from compute_market.courier_records import Progress
from compute_market.settlement import modes
from compute_market.store.schema import (
    BUNDLE_COPIES,
    BUNDLE_IDS,
    BUNDLE_RECEIPTS,
    BUNDLES_ENDED,
    BUNDLES_PENDING,
    pack_u64,
)
from compute_market.store.txn import Txn
from tests.support.bundles import bundle, claim, record
from tests.support.laws import Case, check_named, edit, laws_in, posting_seq, repost, set_sum
from tests.support.market import Market

# Receipts by their seqs, and the ids that each has.
PENDING, LEASED, PAID, REFUSED, HANDOFF = range(1, 6)
IDS = {each: 100 - each for each in (PENDING, LEASED, PAID, REFUSED, HANDOFF)}
NAMES = {each: courier.id_text(IDS[each]) for each in IDS}

IS_WHOLE = "a bundle receipt is what its kind and state demand"
IS_NUMBERED = "every bundle receipt has a number of its own, in the order of sending"
HAS_ID = "every bundle receipt is found by its id, and no other"
WAITS = "every pending bundle waits once, and no other"
HAS_LEASE = "a lease has a holder, and nothing else has"
IS_TO_GO = "every bundle that has ended is to be forgotten, and no other"
COPIES = "a bundle has a copy for each of its receipts, all of one size"
REWARDS = "what a bundle has earned was paid once, to its sender"
ATTEMPTS = "no fewer attempts are counted than receipts tell of, nor more failures"


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A market with bundles in every state."""
    market = Market(Path(tmp_path_factory.mktemp("sending")))
    market.update(lambda txn: modes.arm(txn, 0))
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.post()
    market.submit()
    handoff = {"kind": "handoff", "job_id": "job", "offer_id": "o-1", "told": Progress(0, 1)}
    for seq, receipt_id in IDS.items():
        more = handoff if seq == HANDOFF else {}
        sent = bundle(bundle_hash=bytes([seq // 2]) * 32, **more)
        market.update(lambda txn: courier.send(txn, sent, iter([receipt_id])))  # noqa: B023 - at once
    record(market, "acknowledged", claim(market, only=IDS[PAID]).receipts, attempts=2)
    record(market, "refused", claim(market, only=IDS[REFUSED]).receipts, error="no")
    claim(market, only=IDS[LEASED])
    assert market.violations() == []
    return market


def change(seq: int, /, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, BUNDLE_RECEIPTS, pack_u64(seq), **changes)


def drop(seq: int) -> Callable[[Txn], object]:
    return lambda txn: txn.delete(BUNDLE_RECEIPTS, pack_u64(seq))


def lead(receipt_id: int, seq: int) -> Callable[[Txn], None]:
    return lambda txn: txn.put(BUNDLE_IDS, pack_u64(receipt_id), pack_u64(seq))


def lease(seq: int, change: Callable[[bytes], bytes]) -> Callable[[Txn], None]:
    """Change the lease of a bundle that waits."""

    def damage(txn: Txn) -> None:
        found = txn.get(BUNDLES_PENDING, pack_u64(seq))
        assert found is not None
        txn.put(BUNDLES_PENDING, pack_u64(seq), change(found))

    return damage


def ended(txn: Txn) -> bytes:
    return courier.ended_key(courier.get(txn, IDS[PAID]))


CASES = (
    Case(IS_WHOLE, "bundle_receipts", NAMES[PENDING], change(PENDING, state="refused")),
    Case(IS_WHOLE, "bundle_receipts", NAMES[PENDING], change(PENDING, ended_ms=1)),
    Case(IS_WHOLE, "bundle_receipts", NAMES[PAID], change(PAID, ended_ms=None)),
    Case(IS_WHOLE, "bundle_receipts", NAMES[PAID], change(PAID, acknowledged_ms=None)),
    Case(IS_WHOLE, "bundle_receipts", NAMES[PENDING], change(PENDING, job_id="job")),
    Case(IS_WHOLE, "bundle_receipts", NAMES[HANDOFF], change(HANDOFF, offer_id=None)),
    Case(IS_WHOLE, "bundle_receipts", NAMES[HANDOFF], change(HANDOFF, told=None)),
    Case(IS_WHOLE, "bundle_receipts", NAMES[PENDING], change(PENDING, told=Progress(0, 1))),
    Case(IS_WHOLE, "bundle_receipts", NAMES[HANDOFF], change(HANDOFF, kind="bundle")),
    Case(IS_WHOLE, "bundle_receipts", NAMES[HANDOFF], change(HANDOFF, reward_ct=1)),
    Case(IS_NUMBERED, "bundle_receipts", NAMES[LEASED], change(LEASED, seq=PENDING)),
    Case(IS_NUMBERED, "bundle_receipts", NAMES[PENDING], change(PENDING, seq=99)),
    Case(
        IS_NUMBERED,
        "bundle_receipts",
        NAMES[HANDOFF],
        lambda txn: txn.set_number("bundle_seq", REFUSED),
    ),
    Case(HAS_ID, "bundle_ids", courier.id_text(7), change(PENDING, receipt_id=7)),
    Case(HAS_ID, "bundle_ids", NAMES[PENDING], lead(IDS[PENDING], LEASED)),
    Case(
        HAS_ID,
        "bundle_ids",
        NAMES[PENDING],
        lambda txn: txn.delete(BUNDLE_IDS, pack_u64(IDS[PENDING])),
    ),
    Case(HAS_ID, "bundle_ids", "*", lead(7, PENDING)),
    Case(
        WAITS,
        "bundles_pending",
        NAMES[PENDING],
        lambda txn: txn.delete(BUNDLES_PENDING, pack_u64(PENDING)),
    ),
    Case(WAITS, "bundles_pending", "*", lambda txn: txn.put(BUNDLES_PENDING, pack_u64(99))),
    Case(WAITS, "bundles_pending", "*", drop(PENDING)),
    Case(
        HAS_LEASE,
        "bundles_pending",
        NAMES[LEASED],
        lease(LEASED, lambda found: bytes(8) + found[8:]),
    ),
    Case(
        HAS_LEASE,
        "bundles_pending",
        NAMES[LEASED],
        lease(LEASED, lambda found: found[:8] + bytes(8)),
    ),
    Case(HAS_LEASE, "bundles_pending", NAMES[PENDING], lease(PENDING, lambda found: found[:-1])),
    Case(
        IS_TO_GO,
        "bundles_ended",
        NAMES[PAID],
        lambda txn: txn.delete(BUNDLES_ENDED, ended(txn)),
    ),
    Case(IS_TO_GO, "bundles_ended", "*", lambda txn: txn.put(BUNDLES_ENDED, bytes(16))),
    Case(IS_TO_GO, "bundles_ended", "*", drop(REFUSED)),
    Case(COPIES, "bundle_receipts", NAMES[PAID], change(PAID, size=6)),
    Case(COPIES, "bundle_copies", (bytes([1]) * 32).hex(), drop(LEASED)),
    Case(
        COPIES,
        "bundle_copies",
        (b"x" * 32).hex(),
        lambda txn: set_sum(txn, BUNDLE_COPIES, b"x" * 32, 1),
    ),
    Case(REWARDS, "bundle_receipts", NAMES[PAID], change(PAID, reward_ct=2)),
    Case(REWARDS, "bundle_receipts", NAMES[REFUSED], change(REFUSED, reward_ct=1)),
    Case(
        REWARDS,
        "postings",
        posting_seq("courier:reward", NAMES[PAID]),
        repost("courier:reward", NAMES[PAID], credit="wallet/prov"),
    ),
    Case(REWARDS, "bundle_receipts", NAMES[PAID], repost("courier:reward", NAMES[PAID], ref="x")),
    Case(
        ATTEMPTS,
        "counters",
        "courier_flush_attempt_total",
        lambda txn: metrics.count(txn, "courier_flush_attempt_total", by=-1),
    ),
    Case(
        ATTEMPTS,
        "counters",
        "courier_flush_attempt_total",
        lambda txn: metrics.count(txn, "courier_flush_failure_total", by=9),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(sending: Market, case: Case) -> None:
    check_named(sending, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
