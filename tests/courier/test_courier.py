"""Bundle receipts: sent, leased, acknowledged or refused, sent again, forgotten."""

from collections.abc import Callable

import pytest

from compute_market.courier import courier, documents, leases
from compute_market.errors import NotFoundError, UsageError
from compute_market.offers import offers
from compute_market.settlement import ledger, modes
from tests.support.bundles import (
    HASH,
    HOLDER,
    OTHER,
    bundle,
    claim,
    receipt,
    record,
    send,
    send_handoff,
)
from tests.support.market import START_MS, Market
from tests.support.preempting import preempting, rival


def turn_real(market: Market) -> None:
    market.update(lambda txn: modes.arm(txn, 0))


def test_send_keeps_what_it_was_told(market: Market) -> None:
    sent = send(market, "alice", size=7, dest="exec:true")
    assert receipt(market, sent.receipt_id) == sent
    assert (sent.sender, sent.size, sent.dest) == ("alice", 7, "exec:true")
    assert (sent.state, sent.attempts, sent.sent_ms) == ("pending", 0, START_MS)
    document = market.view(lambda txn: documents.document(txn, sent))
    assert list(document) == [
        *("id", "bundle_hash", "bytes", "sender", "dest", "timestamp", "acknowledged"),
        *("attempts", "last_error", "next_attempt_at", "state", "kind", "reward_ct"),
    ]


def test_send_takes_the_first_id_that_is_free(market: Market) -> None:
    first = send(market)
    ids = iter([first.receipt_id, first.receipt_id, 2**64 - 1])
    again = market.update(lambda txn: courier.send(txn, bundle("bob"), ids))
    assert again.receipt_id == 2**64 - 1
    assert receipt(market, first.receipt_id) == first


def test_send_of_the_same_bundle_twice_makes_two_receipts_of_one_copy(market: Market) -> None:
    one, two = send(market), send(market)
    assert one.receipt_id != two.receipt_id
    record(market, "acknowledged", claim(market, limit=1).receipts)
    market.configure(courier_retention_secs=1)
    market.advance(2)
    assert market.update(lambda txn: courier.prune(txn, 10)).hashes == []
    assert market.view(lambda txn: courier.is_kept(txn, HASH))
    record(market, "acknowledged", claim(market).receipts)
    market.advance(2)
    assert market.update(lambda txn: courier.prune(txn, 10)).hashes == [HASH]
    assert not market.view(lambda txn: courier.is_kept(txn, HASH))


@pytest.mark.parametrize("number", [0, 1, 2**63, 2**64 - 1])
def test_id_is_read_as_it_is_written(number: int) -> None:
    assert courier.parse_id(courier.id_text(number)) == number


@pytest.mark.parametrize("text", ["", "1", "G" * 16, "A" * 16, "0" * 17, "0" * 15 + "\n", "٠" * 16])
def test_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no bundle id"):
        courier.parse_id(text)


def test_get_of_no_receipt_is_not_found(market: Market) -> None:
    with pytest.raises(NotFoundError, match="bundle receipt 0000000000000009 does not exist"):
        market.view(lambda txn: courier.get(txn, 9))


def test_receipts_stand_in_the_order_of_sending_whatever_their_ids(market: Market) -> None:
    ids = iter([9, 9, 4, 9, 4, 2])
    sent = [market.update(lambda txn: courier.send(txn, bundle(), ids)) for _ in range(3)]
    assert [each.receipt_id for each in sent] == [9, 4, 2]
    assert [receipt(market, each) for each in (9, 4, 2)] == sent
    assert market.view(lambda txn: list(courier.receipts(txn))) == sent
    assert claim(market).receipts == sent


# Leases.


def test_claim_gives_bundles_in_the_order_of_sending_a_page_at_a_time(market: Market) -> None:
    sent = [send(market, f"s{number}").receipt_id for number in range(5)]
    found: list[int] = []
    after = None
    while True:
        page = market.update(lambda txn: courier.claim(txn, HOLDER, after, 2))  # noqa: B023 - at once
        found += [each.receipt_id for each in page.receipts]
        after = page.after
        if after is None:
            break
    assert found == sent


def test_claim_leaves_what_another_flush_has(market: Market) -> None:
    sent = send(market)
    assert [each.receipt_id for each in claim(market).receipts] == [sent.receipt_id]
    taken = claim(market, OTHER)
    assert (taken.receipts, taken.held) == ([], 1)
    assert claim(market).receipts, "its own again"
    until_ms = market.view(lambda txn: leases.until_ms(txn, sent.seq))
    assert until_ms == START_MS + market.config.courier_lease_secs * 1000


def test_lease_of_a_flush_that_died_ends(market: Market) -> None:
    sent = send(market)
    claim(market)
    market.advance(market.config.courier_lease_secs)
    assert market.view(lambda txn: leases.until_ms(txn, sent.seq)) is None
    assert claim(market, OTHER).receipts


def test_flush_whose_lease_ended_does_not_end_that_of_another(market: Market) -> None:
    send(market)
    old = claim(market).receipts
    market.advance(market.config.courier_lease_secs)
    claim(market, OTHER)
    record(market, "failed", old, error="gone", holder=HOLDER)
    assert claim(market, b"flush 03").held == 1
    record(market, "failed", old, error="gone", holder=OTHER)
    assert claim(market, b"flush 03").receipts


def test_claim_of_one_leaves_the_others(market: Market) -> None:
    send(market)
    sent = send(market)
    assert [each.receipt_id for each in claim(market, only=sent.receipt_id).receipts] == [
        sent.receipt_id
    ]
    assert len(claim(market, OTHER).receipts) == 1
    record(market, "acknowledged", [sent])
    assert claim(market, only=sent.receipt_id).receipts == []


def test_lease_that_is_given_back_tells_of_no_attempt(market: Market) -> None:
    sent = send(market)
    record(market, "failed", claim(market).receipts, error="refused")
    record(market, "failed", claim(market).receipts, attempts=0)
    found = receipt(market, sent.receipt_id)
    assert (found.attempts, found.last_error) == (1, "refused")
    assert market.counter("courier_flush_attempt_total") == 1
    assert claim(market, OTHER).receipts


# What comes of it.


def test_acknowledgement_pays_the_sender_once(market: Market) -> None:
    turn_real(market)
    market.configure(courier_reward_ct=3)
    sent = send(market)
    taken = claim(market).receipts
    assert record(market, "acknowledged", taken, attempts=3) == 1
    assert record(market, "acknowledged", taken, attempts=3) == 0
    assert market.balance(ledger.wallet("alice")) == 3
    found = receipt(market, sent.receipt_id)
    assert (found.state, found.attempts, found.reward_ct) == ("acknowledged", 3, 3)
    assert market.counter("courier_flush_attempt_total") == 6  # Both were made.
    assert market.counter("courier_flush_failure_total") == 4
    assert not market.view(leases.has_pending)


@pytest.mark.parametrize("reward", [0, 3])
def test_acknowledgement_pays_nothing_in_dry_run_or_for_no_reward(
    market: Market, reward: int
) -> None:
    if not reward:
        turn_real(market)
    market.configure(courier_reward_ct=reward)
    send(market)
    assert record(market, "acknowledged", claim(market).receipts) == 1
    assert market.balance(ledger.wallet("alice")) == 0


def test_failed_attempts_leave_it_for_the_next_flush(market: Market) -> None:
    sent = send(market)
    assert record(market, "failed", claim(market).receipts, attempts=5, error="no route") == 0
    found = receipt(market, sent.receipt_id)
    assert (found.state, found.attempts, found.last_error) == ("pending", 5, "no route")
    assert claim(market, OTHER).receipts == [found]


def test_refused_bundle_waits_no_more(market: Market) -> None:
    turn_real(market)
    sent = send(market)
    record(market, "refused", claim(market).receipts, error="not wanted")
    found = receipt(market, sent.receipt_id)
    assert (found.state, found.last_error, found.ended_ms) == ("refused", "not wanted", START_MS)
    assert claim(market).receipts == []
    assert market.balance(ledger.wallet("alice")) == 0


def test_resend_forwards_again_and_earns_nothing_more(market: Market) -> None:
    turn_real(market)
    sent = send(market)
    record(market, "acknowledged", claim(market).receipts)
    market.update(lambda txn: courier.resend(txn, sent.receipt_id))
    assert receipt(market, sent.receipt_id).state == "pending"
    assert record(market, "acknowledged", claim(market).receipts) == 1
    assert market.balance(ledger.wallet("alice")) == market.config.courier_reward_ct
    assert [logged.event.event for logged in market.events()][-3:] == [
        "bundle_acknowledged",
        "bundle_resent",
        "bundle_acknowledged",
    ]


def arrive_in_dry_run(market: Market) -> None:
    pass


def arrive_for_no_reward(market: Market) -> None:
    turn_real(market)
    market.configure(courier_reward_ct=0)


@pytest.mark.parametrize("prepare", [arrive_in_dry_run, arrive_for_no_reward])
def test_bundle_that_arrived_without_a_reward_never_earns_one(
    market: Market, prepare: Callable[[Market], None]
) -> None:
    prepare(market)
    sent = send(market)
    record(market, "acknowledged", claim(market).receipts)
    if not market.view(modes.is_real):
        turn_real(market)
    market.configure(courier_reward_ct=3)
    market.advance(5)
    market.update(lambda txn: courier.resend(txn, sent.receipt_id))
    assert record(market, "acknowledged", claim(market).receipts) == 1
    found = receipt(market, sent.receipt_id)
    assert (found.state, found.reward_ct, found.acknowledged_ms) == ("acknowledged", 0, START_MS)
    assert market.balance(ledger.wallet("alice")) == 0


def test_bundle_that_was_refused_earns_when_it_arrives(market: Market) -> None:
    turn_real(market)
    sent = send(market)
    record(market, "refused", claim(market).receipts, error="not wanted")
    market.update(lambda txn: courier.resend(txn, sent.receipt_id))
    record(market, "acknowledged", claim(market).receipts)
    assert market.balance(ledger.wallet("alice")) == market.config.courier_reward_ct


def test_resend_frees_what_waits_at_once(market: Market) -> None:
    sent = send(market)
    claim(market)
    market.update(lambda txn: courier.resend(txn, sent.receipt_id))
    assert claim(market, OTHER).receipts == [sent]


def test_prune_forgets_what_ended_long_ago_and_nothing_else(market: Market) -> None:
    market.configure(courier_retention_secs=100)
    old, new, waits = (send(market, bundle_hash=bytes([n]) * 32) for n in range(3))
    record(market, "acknowledged", [old])
    market.advance(100)
    record(market, "refused", [new], error="no")
    assert market.update(lambda txn: courier.prune(txn, 10)).hashes == []
    market.advance(1)
    assert market.update(lambda txn: courier.prune(txn, 10)).hashes == [old.bundle_hash]
    with pytest.raises(NotFoundError):
        receipt(market, old.receipt_id)
    for each in (new, waits):
        receipt(market, each.receipt_id)


def test_prune_forgets_no_more_than_it_is_told_to(market: Market) -> None:
    market.configure(courier_retention_secs=0)
    record(market, "acknowledged", [send(market) for _ in range(5)])
    market.advance(1)
    sizes = []
    for _ in range(3):
        market.update(lambda txn: courier.prune(txn, 2))
        sizes.append(len(market.view(lambda txn: documents.listed(txn, None, 10))[0]))
    assert sizes == [3, 1, 0]


# Handoffs.


def handoff(market: Market) -> int:
    return send_handoff(market).receipt_id


def test_acknowledged_handoff_gives_the_job_to_the_other_provider(market: Market) -> None:
    preempting(market, real=True)
    rival(market)
    sent = handoff(market)
    assert record(market, "acknowledged", claim(market).receipts) == 1
    assert market.job().placed.offer_id == "better"
    found = receipt(market, sent)
    assert (found.state, found.reward_ct) == ("acknowledged", 0)


def test_handoff_that_cannot_be_done_leaves_the_job_and_is_told(market: Market) -> None:
    preempting(market)
    rival(market)
    sent = handoff(market)
    taken = claim(market).receipts
    market.update(lambda txn: offers.withdraw(txn, "better"))
    before = market.job()
    assert record(market, "acknowledged", taken) == 1
    assert market.job() == before
    assert receipt(market, sent).last_error == (
        "offer better does not fit job job: state: is withdrawn"
    )
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 1
    (logged,) = market.events("handoff_failed")
    assert logged.event.job_id == "job"
    assert logged.event.detail["reason"] == "capability_mismatch"


def test_handoff_that_was_not_delivered_is_refused_for_good(market: Market) -> None:
    preempting(market)
    rival(market)
    sent = handoff(market)
    record(market, "failed", claim(market).receipts, attempts=5, error="no route")
    assert receipt(market, sent).state == "refused"
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 1


def test_handoff_of_a_job_that_ended_is_refused_for_good(market: Market) -> None:
    preempting(market)
    rival(market)
    sent = handoff(market)
    market.cancel()
    for _ in range(2):
        taken = claim(market)
        assert taken.receipts == []
        assert receipt(market, sent).state == "refused"
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 1


def test_resend_frees_a_handoff_that_waits(market: Market) -> None:
    preempting(market)
    rival(market)
    sent = handoff(market)
    claim(market)
    market.update(lambda txn: courier.resend(txn, sent))
    assert record(market, "acknowledged", claim(market, OTHER).receipts) == 1
    assert market.counter("scheduler_preempt_total", "success") == 1
