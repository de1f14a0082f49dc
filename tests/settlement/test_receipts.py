"""Receipts: their keys, the chain they form, and what becomes of a damaged one."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from blake3 import blake3

from compute_market.errors import BusyError, ConflictError, IntegrityError
from compute_market.jobs.cancel import cancel
from compute_market.jobs.prove import prove
from compute_market.jobs.waiting import match_pending
from compute_market.receipt_records import Receipt, Settlement
from compute_market.records import replace
from compute_market.settlement import modes, receipts, settlement
from compute_market.store.schema import JOBS, QUARANTINE, RECEIPT_CHAIN, RECEIPTS
from compute_market.store.txn import Txn
from tests.support.market import DIGEST, Market
from tests.support.state import put_payload, three_receipts


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Market]:
    """A market with one paid receipt, for tests that damage it: no audit at the end."""
    found = Market(tmp_path / "market")
    found.configure(settle_mode="real")
    found.deposit("buyer", ct=1000)
    found.deposit("prov", ct=10)
    found.post()
    found.submit()
    found.prove()
    yield found
    found.store.close()


def all_receipts(market: Market) -> list[Receipt]:
    return market.view(lambda txn: list(txn.records(RECEIPTS)))


def only_receipt(market: Market) -> Receipt:
    (receipt,) = all_receipts(market)
    return receipt


def damage(market: Market, key: bytes) -> None:
    market.alone(lambda txn: put_payload(txn, RECEIPTS, key, b"\xc1"))


def reissue(market: Market, job_id: str = "job") -> tuple[Receipt, bool, Settlement]:
    """Issue and settle the receipt of an ended job again, as a replay would."""
    job = market.job(job_id)

    def action(txn: Txn) -> tuple[Receipt, bool, Settlement]:
        receipt, is_new = receipts.issue(txn, job, job.placed)
        return receipt, is_new, settlement.settle(txn, job, job.placed, receipt)

    return market.update(action)


# Keys.


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        (
            ("job", "buyer", "prov", 5, 1),
            "291dd6b55e3a3d7bdb78fe9ddffdd84dbea179e65f80d35418e627035e16edfd",
        ),
        (
            ("job", "buyer", "provider", 10, 1),
            "5e915f35f7bb87c38ef92cfcfc2ba91169514d7dc9528008b6dd6252ca58d6fd",
        ),
    ],
)
def test_key_of_meets_the_fixed_points(fields: tuple[str, str, str, int, int], digest: str) -> None:
    assert receipts.key_of(*fields).hex() == digest


def test_key_of_binds_every_field() -> None:
    base = ("job", "buyer", "prov", 5, 1, 1)
    changed = [
        ("jo", "buyer", "prov", 5, 1, 1),
        ("job", "buye", "prov", 5, 1, 1),
        ("job", "buyer", "pro", 5, 1, 1),
        ("job", "buyer", "prov", 6, 1, 1),
        ("job", "buyer", "prov", 5, 2, 1),
        ("job", "buyer", "prov", 5, 1, 2),
        ("job", "buyer", "prov", 1, 5, 1),
    ]
    assert len({receipts.key_of(*fields) for fields in (base, *changed)}) == len(changed) + 1


def test_key_of_takes_the_largest_amounts() -> None:
    top = 2**63 - 1
    message = b"jbp" + top.to_bytes(8, "big") * 2 + b"\x00\x01"
    assert receipts.key_of("j", "b", "p", top, top) == blake3(message).digest()


# Issue.


def test_complete_issues_the_receipt_of_the_fixed_point(market: Market) -> None:
    market.post("prov", price_per_unit=5)
    market.submit("job", buyer="buyer")
    market.prove()
    receipt = only_receipt(market)
    assert receipt == Receipt(
        version=1,
        job_id="job",
        buyer="buyer",
        provider="prov",
        quote_price=5,
        units=1,
        issued_at=market.now_ms // 1000,
        idempotency_key=receipts.key_of("job", "buyer", "prov", 5, 1),
        lane="industrial",
        dry_run=True,
        seq=1,
    )
    assert market.counter("matches_total", "true") == 1
    assert market.counter("matches_total", "false") == 0


def test_end_without_proven_units_issues_no_receipt(market: Market) -> None:
    market.post()
    market.submit()
    market.cancel()
    assert all_receipts(market) == []


def test_cancel_issues_one_receipt_for_the_units_proven(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, 2_000_000, 1))
    market.prove("job", 1)
    market.prove("job", 0)
    assert all_receipts(market) == []
    market.cancel()
    assert only_receipt(market).units == 3


def test_issue_of_the_same_receipt_changes_nothing(real: Market) -> None:
    real.post()
    real.submit()
    real.prove()
    before = only_receipt(real)
    real.advance(60)
    receipt, is_new, settled = reissue(real)
    assert (receipt, is_new) == (before, False)
    assert settled.status == "applied"
    assert real.view(lambda txn: txn.size(RECEIPT_CHAIN)) == 1
    assert real.counter("matches_total", "false") == 1
    assert real.counter("settle_applied_total") == 1
    assert real.balance("wallet/prov") == 1005


def test_issue_of_another_receipt_with_the_key_is_a_collision(market: Market) -> None:
    market.post()
    market.submit("ab", buyer="c")
    market.prove("ab")
    other = replace(market.job("ab"), job_id="a", buyer="bc")
    with pytest.raises(ConflictError) as caught:
        market.update(lambda txn: receipts.issue(txn, other, other.placed))
    assert caught.value.reason == "key_collision"
    assert only_receipt(market).job_id == "ab"


# Collisions are refused before any work is done.


@pytest.mark.parametrize("ended", [False, True])
def test_submit_of_a_job_whose_keys_are_taken_is_refused(market: Market, ended: bool) -> None:
    market.post()
    market.submit("ab", buyer="c")
    if ended:
        market.prove("ab")
    with pytest.raises(ConflictError) as caught:
        market.submit("a", buyer="bc")
    assert caught.value.reason == "key_collision"
    assert "job ab" in caught.value.message
    assert market.view(lambda txn: txn.size(JOBS)) == 1
    assert market.offer("o-1").units_left == 999


def test_submit_sees_a_collision_between_buyer_and_provider(market: Market) -> None:
    market.post("c", units=1)
    market.submit("j-1", buyer="ab")
    market.post("bc", units=1)
    with pytest.raises(ConflictError) as caught:
        market.submit("j-", buyer="1a")
    assert caught.value.reason == "key_collision"


def test_submit_sees_a_collision_whatever_the_units(market: Market) -> None:
    market.post()
    market.submit("ab", buyer="c", lengths=(1, 1))
    with pytest.raises(ConflictError):
        market.submit("a", buyer="bc", lengths=(1, 1, 1))


def test_submit_at_another_price_does_not_collide(market: Market) -> None:
    market.post(units=1, price_per_unit=5)
    market.post(units=1, price_per_unit=6)
    market.submit("ab", buyer="c")
    market.submit("a", buyer="bc")
    market.prove("ab")
    market.prove("a")
    assert {receipt.quote_price for receipt in all_receipts(market)} == {5, 6}


def test_match_leaves_a_job_pending_whose_keys_are_taken(market: Market) -> None:
    market.submit("a", buyer="bc", wait=True, max_price_per_unit=10)
    market.submit("b", wait=True)
    market.post(units=1, job_id="ab", price_per_unit=5)
    market.submit("ab", buyer="c")
    assert market.update(match_pending) == []
    market.post(price_per_unit=5)
    assert market.job("a").state == "pending"
    assert market.job("b").state == "active"


# Pages.


def test_page_lists_receipts_in_order_of_issue(market: Market) -> None:
    three_receipts(market)

    def page(after: int, limit: int) -> list[tuple[int, str]]:
        found = market.view(lambda txn: receipts.page(txn, after, limit))
        assert all(receipt.idempotency_key == key for _, key, receipt in found if receipt)
        return [(seq, receipt.job_id) for seq, _, receipt in found if receipt]

    assert page(0, 2) == [(1, "job-0"), (2, "job-1")]
    assert page(2, 2) == [(3, "job-2")]
    assert page(3, 2) == []


# Damage.


def test_find_of_a_damaged_receipt_names_table_and_key(damaged: Market) -> None:
    key = only_receipt(damaged).idempotency_key
    damage(damaged, key)
    with pytest.raises(IntegrityError, match=r"table receipts, key .* is damaged"):
        damaged.view(lambda txn: receipts.find(txn, key))


def test_scrub_quarantines_a_damaged_receipt_and_counts_it_once(damaged: Market) -> None:
    key = only_receipt(damaged).idempotency_key
    damage(damaged, key)
    stored = damaged.view(lambda txn: txn.stored(RECEIPTS, key))
    assert damaged.update(lambda txn: receipts.scrub(txn, 10)) == 1
    assert damaged.update(lambda txn: receipts.scrub(txn, 10)) == 0
    assert damaged.view(lambda txn: [key for key, _ in txn.scan(QUARANTINE)]) == [key]
    assert damaged.view(lambda txn: txn.get(QUARANTINE, key)) == stored
    (noted,) = damaged.events("receipt_quarantined")
    assert noted.event.detail == {"key": key.hex()}
    assert damaged.view(lambda txn: txn.size(RECEIPTS)) == 0
    assert damaged.counter("receipt_corrupt_total") == 1
    assert damaged.view(lambda txn: receipts.page(txn, 0, 10)) == [(1, key, None)]
    assert [(v.table, v.law, v.detail) for v in damaged.violations()] == [
        ("receipts", "receipts decode", "in quarantine")
    ]


def test_reissue_of_a_damaged_receipt_quarantines_it_and_pays_nothing(damaged: Market) -> None:
    before = only_receipt(damaged)
    wallets = [damaged.balance(f"wallet/{owner}") for owner in ("buyer", "prov")]
    damage(damaged, before.idempotency_key)
    receipt, is_new, settled = reissue(damaged)
    assert is_new
    assert receipt == replace(before, seq=2)
    assert settled.status == "applied"
    assert damaged.counter("receipt_corrupt_total") == 1
    assert damaged.counter("settle_applied_total") == 1
    assert [damaged.balance(f"wallet/{owner}") for owner in ("buyer", "prov")] == wallets
    assert reissue(damaged)[1] is False
    assert damaged.counter("receipt_corrupt_total") == 1
    assert [damaged.balance(f"wallet/{owner}") for owner in ("buyer", "prov")] == wallets


def test_scrub_goes_on_where_it_stopped_and_begins_anew_at_the_end(market: Market) -> None:
    three_receipts(market)
    looked_at: list[int] = []

    def scrub(txn: Txn) -> None:
        receipts.scrub(txn, 2)
        looked_at.append(txn.number("receipts_scrubbed"))

    for _ in range(3):
        market.update(scrub)
    # Two, then the third and the end, then two again.
    assert looked_at == [2, 0, 2]


def test_tick_finds_a_damaged_receipt_among_whole_ones(damaged: Market) -> None:
    damaged.submit("other")
    damaged.prove("other")
    key = receipts.key_of("other", "buyer", "prov", 5, 1)
    damage(damaged, key)
    damaged.opened.tick()
    assert damaged.view(lambda txn: [key for key, _ in txn.scan(QUARANTINE)]) == [key]


def test_page_shows_none_for_a_damaged_receipt(damaged: Market) -> None:
    key = only_receipt(damaged).idempotency_key
    damage(damaged, key)
    assert damaged.view(lambda txn: receipts.page(txn, 0, 10)) == [(1, key, None)]


def test_command_sets_a_damaged_receipt_that_waits_aside_and_pays_it_once(damaged: Market) -> None:
    damaged.submit("other", lengths=(1, 1))
    damaged.update(lambda txn: modes.to_dry_run(txn, "test"))
    damaged.prove("other", 0, 1)
    damage(damaged, receipts.key_of("other", "buyer", "prov", 5, 2))
    before = damaged.balance("wallet/prov")
    damaged.update(lambda txn: modes.arm(txn, 0))
    for _ in range(2):
        damaged.update(lambda txn: None)
        assert damaged.counter("receipt_corrupt_total") == 1
        assert damaged.counter("settle_applied_total") == 2
        assert damaged.balance("wallet/prov") == before + 10
        assert damaged.job("other").paid_ct == 10
    assert damaged.balance("escrow/other") == 0


# The JSON form.


def test_document_shows_what_was_paid(real: Market) -> None:
    real.post(fee_pct_ct=25)
    real.submit()
    real.prove()
    receipt = only_receipt(real)
    settled = real.view(lambda txn: settlement.of(txn, receipt.idempotency_key))
    assert settled is not None
    assert receipts.document(receipt, settled) == {
        "version": 1,
        "job_id": "job",
        "buyer": "buyer",
        "provider": "prov",
        "quote_price": 5,
        "units": 1,
        "issued_at": real.now_ms // 1000,
        "idempotency_key": "291dd6b55e3a3d7bdb78fe9ddffdd84dbea179e65f80d35418e627035e16edfd",
        "lane": "industrial",
        "dry_run": False,
        "status": "applied",
        "paid": {"ct": 2, "it": 3},
        "seq": 1,
    }


def test_document_of_an_unpaid_receipt_shows_nothing_paid(market: Market) -> None:
    market.post()
    market.submit()
    market.prove()
    receipt = only_receipt(market)
    settled = market.view(lambda txn: settlement.of(txn, receipt.idempotency_key))
    assert settled == Settlement("recorded", 5, 0, None, "job", "buyer", "prov")
    document = receipts.document(receipt, settled)
    assert (document["status"], document["paid"]) == ("recorded", {"ct": 0, "it": 0})


@contextmanager
def disk_full() -> Iterator[None]:
    """No file of this process can be written to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def unsaved(market: Market) -> int:
    return market.counter("receipt_persist_fail_total")


def test_receipt_that_could_not_be_stored_is_counted_once_there_is_room(market: Market) -> None:
    market.post()
    market.submit()
    with disk_full():
        for _ in range(2):
            with pytest.raises(BusyError):
                market.prove()
        with pytest.raises(BusyError):
            market.submit("other")  # That is not a receipt.
        with pytest.raises(BusyError):
            market.update(lambda txn: cancel(txn, "job", "client"))  # Nothing is proven of it.
    assert (unsaved(market), market.job().state) == (0, "active")
    market.prove()
    assert (unsaved(market), market.job().state) == (2, "completed")
    market.submit("other")
    assert unsaved(market) == 2


def test_receipts_of_a_group_that_could_not_be_stored_are_counted(market: Market) -> None:
    market.post()
    names = ("one", "two")
    for name in names:
        market.submit(name)
    proofs = [(0, DIGEST)]
    changes = [partial(prove, job_id=name, proofs=proofs) for name in names]
    with disk_full(), pytest.raises(BusyError):
        market.opened.engine.update_each(changes)
    assert [each.error for each in market.opened.engine.update_each(changes)] == [None, None]
    assert unsaved(market) == 2


def test_trial_counts_no_receipt_as_lost(market: Market) -> None:
    market.post()
    market.submit()
    market.update(lambda txn: prove(txn, "job", [(0, DIGEST)]), dry_run=True)
    market.submit("other")
    assert unsaved(market) == 0
