"""The log: what happened, when, who asked; nothing of it twice, and nothing missing."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market import chain, events, metrics
from compute_market.admission import capacity
from compute_market.archive import archives, selection
from compute_market.archive_records import Archive
from compute_market.clock import TIME_HELD
from compute_market.courier import courier
from compute_market.errors import RefusedError
from compute_market.events import ENTRY_EVENTS, Logged
from compute_market.jobs import faults, holding, jobs
from compute_market.jobs.submit import change_offer, submit
from compute_market.offers import offers, standing
from compute_market.records import EVENT_NAMES, Asked, Event, Score
from compute_market.reputation import snapshot
from compute_market.reputation.gossip import Message, Told
from compute_market.requests import OfferChange
from compute_market.settlement import ledger, modes, receipts
from compute_market.signatures.keys import key_of
from compute_market.store import copies
from compute_market.store.schema import EVENTS, META, QUARANTINE, RECEIPT_CHAIN, RECEIPTS, pack_u64
from compute_market.store.txn import Txn
from tests.support.bids import reveal, seal, take
from tests.support.bundles import claim, record, send, send_handoff
from tests.support.deliveries import bring
from tests.support.governance import approve, pass_epochs, propose, roll_back
from tests.support.importing import PRICE, THEIRS, import_of, links, trust
from tests.support.laws import hand_over
from tests.support.market import START_MS, Market, job_request, slice_of
from tests.support.preempting import earn
from tests.support.receipt_file import KEY, receipt
from tests.support.state import command, contents, put_payload, put_raw

OPERATOR = Asked("ann", "node-1", 4711, "tb-cli compute submit job.json")


def seqs(market: Market) -> list[int]:
    return [logged.seq for logged in market.events()]


def names(found: list[Logged]) -> list[str]:
    return [logged.event.event for logged in found]


def history(market: Market, job_id: str = "job") -> list[Logged]:
    return market.view(lambda txn: events.history(txn, jobs.get(txn, job_id)))


def bulk(market: Market, number: int) -> None:
    """So many jobs in one transaction, each of which is kept as pending."""
    inputs = [slice_of(1)]

    def action(txn: Txn) -> None:
        for n in range(number):
            submit(txn, job_request(f"bulk-{n:05}", inputs), inputs, wait=True)

    market.update(action)


# What is noted.


def cancel_for_a_burned_bond(market: Market) -> None:
    market.configure(provider_cancel_penalty_after=1)
    market.cancel(by="provider")


def damage_and_scrub(market: Market) -> None:
    market.prove("job", 1)
    (key,) = market.view(lambda txn: [key for key, _ in txn.scan(RECEIPTS)])
    market.alone(lambda txn: put_payload(txn, RECEIPTS, key, b"\xc1"))
    market.update(lambda txn: receipts.scrub(txn, 10))


def owe_and_pay(market: Market) -> None:
    market.update(lambda txn: modes.to_dry_run(txn, "test"))
    market.prove("job", 1)
    market.update(lambda txn: modes.arm(txn, 0))
    command(market)


def miss(market: Market) -> None:
    market.configure(outage_secs=100_000)
    market.advance(86_401)
    command(market)


def hold_and_accept(market: Market) -> None:
    market.alone(lambda txn: txn.put(META, TIME_HELD))
    market.opened.accept_clock()


def fill_the_pool(market: Market) -> None:
    market.configure(mempool_lane_limit=1)
    market.send(fee=9, size=2)


def fill_the_pool_and_send(fee: int) -> Callable[[Market], None]:
    def act(market: Market) -> None:
        fill_the_pool(market)
        market.send(fee)

    return act


def wrong(market: Market) -> None:
    market.prove("job", 1, digest=bytes(32))


def import_receipt(buyer: str) -> Callable[[Market], Any]:
    """Take a receipt of another market that this buyer owes."""

    def act(market: Market) -> None:
        trust(market, KEY)
        import_of(market, links(receipt(1, job_id="x", buyer=buyer)))

    return act


def take_and_reveal(market: Market) -> None:
    take(market, seal("other"))
    market.update(lambda txn: chain.advance(txn, 2))
    reveal(market, seal("other"))


def take_and_miss(market: Market) -> None:
    take(market, seal())
    market.update(lambda txn: chain.advance(txn, 101))
    market.opened.tick()


def send_and(outcome: str) -> Callable[[Market], Any]:
    """Send a bundle, and have an answer."""

    def act(market: Market) -> None:
        send(market)
        record(market, outcome, claim(market).receipts)

    return act


def send_again(market: Market) -> None:
    sent = send(market)
    market.update(lambda txn: courier.resend(txn, sent.receipt_id))


def trust_and_bring(market: Market) -> None:
    trust(market, KEY)
    bring(market)


def fail_to_hand_off(market: Market) -> None:
    market.configure(enable_preempt=True)
    market.post("other", offer_id="better", price_per_unit=1)
    earn(market, "other", 10)
    send_handoff(market)
    record(market, "failed", claim(market).receipts, error="no route")


GOSSIP = Message(
    market_id=bytes(16),
    key=key_of(bytes(32)),
    sent_at_ms=0,
    entries=(Told("prov", -7, START_MS // 1000 + 100),),
    signed=b"",
    signature=b"",
)


def bar_and_wait(market: Market) -> None:
    """An unknown provider gets an offer and a bad name, which fades."""
    market.post("unlucky", reputation=-1)
    market.advance(14 * 86_400)
    market.update(lambda txn: None)


def fade_and_configure(market: Market) -> None:
    """The same, and then settings by which it has not faded."""
    bar_and_wait(market)
    market.configure(reputation_decay_ppm=10_000)
    market.update(lambda txn: None)


def end_an_epoch(market: Market) -> None:
    market.advance(60)
    command(market)


def hold_one_that_waits(market: Market) -> None:
    """The guard closes before the offer comes that a job waits for."""
    waiting = {"gpu": "a"}
    market.submit("waits", wait=True, lengths=(1, 1), capability=waiting)
    market.send(fee=market.config.comfort_threshold_p90 + 1)
    market.post("other", offer_id="late", capability=waiting)


def wait_and_hold(market: Market) -> None:
    market.submit("waits", wait=True, capability={"gpu": "none has it"})
    market.update(lambda txn: holding.hold(txn, "waits"))


def hold_and_release(market: Market) -> None:
    wait_and_hold(market)
    market.update(lambda txn: holding.release(txn, "waits"))


def propose_a_cap(market: Market) -> None:
    propose(market, "fair_share_cap", "0.1")


def approve_a_cap(market: Market) -> None:
    approve(market, "fair_share_cap", "0.1")


def activate_a_cap(market: Market) -> None:
    approve_a_cap(market)
    pass_epochs(market)
    command(market)


def roll_back_a_cap(market: Market) -> None:
    activate_a_cap(market)
    roll_back(market)


def forget_and_restore(market: Market) -> None:
    """Every score is forgotten, as in a market that is made anew."""
    for _ in range(6):
        market.advance(60 * 86_400)
        market.update(lambda txn: None)
    entry = Score(1, 0, 5, 1000)
    market.update(lambda txn: snapshot.restore(txn, [("prov", entry)]))


# Every event: what brings it about in a market where `job` has one of two slices proven, and what
# it must say.
def archive_all(market: Market) -> None:
    market.cancel()
    market.advance(1)
    begun = Archive("/a", market.now_ms // 1000, market.now_ms, 0, b"")

    def act(txn: Txn) -> None:
        archives.begin(txn, bytes(16), begun)
        ended, _ = selection.ended(txn, begun.before, None, 9)
        archives.let_go(txn, bytes(16), begun, ended, [])

    market.update(act)


def compact(market: Market) -> None:
    copies.compact(market.store, bytes(16))
    market.update(lambda txn: events.note(txn, "store_compacted", bytes_before=2, bytes_after=1))


HAPPENINGS: dict[str, tuple[Callable[[Market], Any], dict[str, Any]]] = {
    "job_queued": (
        lambda market: market.submit("new"),
        {"provider": "prov", "units": 1, "price_per_unit": 5, "funded": True},
    ),
    "job_pending": (
        lambda market: market.submit("new", wait=True, lengths=(1, 1), max_price_per_unit=1),
        {"reason": "price_mismatch", "units": 2},
    ),
    "job_refused": (
        lambda market: market.submit("new", lengths=(10**10,)),
        {"reason": "no_capacity", "units": 9537},
    ),
    "job_started": (lambda market: market.submit("new"), {"waited_ms": 0}),
    "job_proved": (
        lambda market: market.prove("job", 1),
        {"slices": 1, "units": 1, "provider": "prov"},
    ),
    "proof_refused": (wrong, {"slice": 1}),
    "slice_unreadable": (
        lambda m: m.update(lambda txn: faults.slice_unreadable(txn, "job", 1)),
        {"slice": 1},
    ),
    "job_completed": (
        lambda market: market.prove("job", 1),
        {
            "by": "provider",
            "cause": "all_proven",
            "units_proven": 2,
            "paid_ct": 10,
            "paid_it": 0,
            "refunded_ct": 0,
            "refunded_it": 0,
        },
    ),
    "job_cancelled": (
        lambda market: market.cancel(),
        {"by": "client", "cause": "cancelled_by_client", "paid_ct": 5, "refunded_ct": 5},
    ),
    "job_failed": (
        miss,
        {"by": "deadline", "cause": "deadline_missed", "paid_ct": 5, "refunded_ct": 5},
    ),
    "job_handed_over": (
        lambda market: hand_over(market, "job", "spare"),
        {
            "from": "prov",
            "to": "other",
            "from_score": 0,
            "to_score": 0,
            "units": 1,
            "price_per_unit": 9,
        },
    ),
    "job_paid": (owe_and_pay, {"provider": "prov", "ct": 10, "it": 0}),
    "offer_posted": (
        lambda market: market.post("new", offer_id="new"),
        {"units": 1000, "price_per_unit": 5},
    ),
    "job_held": (wait_and_hold, {}),
    "job_released": (hold_and_release, {}),
    "job_changed": (
        lambda market: market.update(lambda txn: holding.change(txn, "job", priority="high")),
        {"was_priority": "normal", "priority": "high"},
    ),
    "offer_changed": (
        lambda market: market.update(
            lambda txn: change_offer(txn, OfferChange("spare", units="+1", price_per_unit=3))
        ),
        {"was_price_per_unit": 9, "was_units": 1000, "price_per_unit": 3, "units": 1001},
    ),
    "offer_withdrawn": (
        lambda market: market.update(lambda txn: offers.withdraw(txn, "spare")),
        {},
    ),
    "score_changed": (wrong, {"delta": -1, "score": 4}),
    "score_adjusted": (
        lambda m: m.update(lambda txn: standing.pardon(txn, "prov", -2, "r")),
        {"delta": -2, "score": 3, "reason": "r"},
    ),
    "score_gossiped": (
        lambda m: m.update(lambda txn: standing.take_gossip(txn, GOSSIP)),
        {"score": -7, "was": 5, "market_id": bytes(16).hex()},
    ),
    "score_restored": (bar_and_wait, {"score": 0}),
    "score_barred": (fade_and_configure, {"score": -1}),
    "scores_imported": (forget_and_restore, {"scores": 1}),
    "bond_burned": (cancel_for_a_burned_bond, {"ct": 1, "cause": "cancel:slash"}),
    "mode_changed": (
        lambda market: market.update(lambda txn: modes.to_dry_run(txn, "repair")),
        {"to": "dry_run", "reason": "repair"},
    ),
    "capacity_recorded": (
        lambda market: market.update(lambda txn: capacity.record(txn, 300)),
        {"units_per_second": 300, "estimate": 200},
    ),
    "deposit": (lambda market: market.deposit("ann", ct=3, it=4), {"ct": 3, "it": 4}),
    "withdraw": (
        lambda market: market.update(
            lambda txn: ledger.tap(txn, "withdraw", "prov", {"CT": 1, "IT": 0}, "k")
        ),
        {"ct": 1, "it": 0, "key": "k"},
    ),
    "blocks_advanced": (
        lambda market: market.update(lambda txn: chain.advance(txn, 7)),
        {"blocks": 7, "height": 7},
    ),
    "receipt_quarantined": (damage_and_scrub, {}),
    "deadline_extended": (lambda market: market.opened.extend_deadlines(60), {"by_secs": 60}),
    "clock_accepted": (
        hold_and_accept,
        {"doubt": "held", "from_ms": START_MS, "to_ms": START_MS},
    ),
    "bid_committed": (
        lambda market: take(market, seal()),
        {"height": 0, "sequence": 1, "reveal_from": 2, "reveal_until": 100, "bond_ct": 1},
    ),
    "bid_revealed": (take_and_reveal, {"bid_id": seal("other").bid_tx.bid_id}),
    "bid_expired": (take_and_miss, {"burned_ct": 1}),
    "key_made": (
        lambda market: market.update(
            lambda txn: events.note_once(txn, "key_made", name="k", key_id="00")
        ),
        {"name": "k", "key_id": "00"},
    ),
    "key_imported": (
        lambda market: market.update(
            lambda txn: events.note_once(txn, "key_imported", name="k", key_id="00")
        ),
        {"name": "k", "key_id": "00"},
    ),
    "receipts_imported": (
        import_receipt("buyer"),
        {"market_id": THEIRS.hex(), "from_seq": 1, "to_seq": 1, "imported": 1, "applied": 1},
    ),
    "import_paid": (import_receipt("buyer"), {"provider": "prov", "ct": PRICE}),
    "import_failed": (
        import_receipt("poor"),
        {"market_id": THEIRS.hex(), "seq": 1, "provider": "prov", "reason": "insufficient_funds"},
    ),
    "bundle_sent": (send, {"dest": "dir:outbox"}),
    "bundle_acknowledged": (send_and("acknowledged"), {"dest": "dir:outbox"}),
    "bundle_refused": (send_and("refused"), {"dest": "dir:outbox"}),
    "bundle_resent": (send_again, {"dest": "dir:outbox"}),
    "bundle_received": (trust_and_bring, {"market": THEIRS.hex()}),
    "multiplier_changed": (
        end_an_epoch,
        {"from": 100, "to": 115, "epoch": 0, "height": 0, "backlog": 1, "utilization_pct": 0},
    ),
    "subsidy_paid": (
        end_an_epoch,
        {"epoch": 0, "height": 0, "units": 1, "multiplier": 115, "it": 1},
    ),
    "handoff_failed": (fail_to_hand_off, {"reason": "not_delivered"}),
    "params_proposed": (propose_a_cap, {"proposal": 1, "key": "fair_share_cap", "value": "0.1"}),
    "params_approved": (approve_a_cap, {"proposal": 1, "value": "0.1", "activates_at": 120}),
    "params_activated": (activate_a_cap, {"proposal": 1, "key": "fair_share_cap", "value": "0.1"}),
    "params_rolled_back": (roll_back_a_cap, {"proposal": 1, "key": "fair_share_cap"}),
    "job_deferred": (
        hold_one_that_waits,
        {"reason": "comfort_guard", "units": 2, "mode": "tight"},
    ),
    "jobs_archived": (archive_all, {"archive": bytes(16).hex(), "jobs": 1, "postings": 0}),
    "store_compacted": (compact, {"bytes_before": 2, "bytes_after": 1}),
    "tx_admitted": (fill_the_pool, {"tx_id": "t-1", "fee": 9, "bytes": 2}),
    "tx_evicted": (fill_the_pool_and_send(9), {"tx_id": "t-1", "fee": 9, "bytes": 2}),
    "tx_refused": (fill_the_pool_and_send(1), {"reason": "pool_full", "fee": 1, "bytes": 1}),
}


@pytest.fixture
def started(real: Market) -> Market:
    """A market in real mode with a job of which one of two slices is proven."""
    real.deposit("other", ct=100)
    real.post(reputation=5)
    real.post("other", offer_id="spare", price_per_unit=9)
    real.submit(lengths=(1, 1))
    real.prove("job", 0)
    return real


@pytest.mark.parametrize("name", HAPPENINGS)
def test_action_notes_its_event_with_who_asked(started: Market, name: str) -> None:
    started.opened.engine.asked = OPERATOR
    before = len(started.events())
    act, detail = HAPPENINGS[name]
    act(started)
    (noted,) = [each for each in started.events()[before:] if each.event.event == name]
    assert noted.asked == OPERATOR
    assert noted.at_ms == started.now_ms
    assert detail.items() <= noted.event.detail.items()
    shown = events.document(noted)
    assert (shown["user"], shown["host"], shown["pid"]) == ("ann", "node-1", 4711)
    assert shown["command"] == OPERATOR.command
    if name == "receipt_quarantined":
        repair(started)


def repair(market: Market) -> None:
    """Put the receipt back, for the check at the end."""

    def action(txn: Txn) -> None:
        job = jobs.get(txn, "job")
        link = txn.must_read(RECEIPT_CHAIN, pack_u64(1))
        txn.delete(QUARANTINE, link.key)
        metrics.count(txn, "receipt_corrupt_total", by=-1)
        txn.delete(RECEIPT_CHAIN, pack_u64(1))
        metrics.count(txn, "matches_total", "false", by=-1)
        txn.set_number("receipt_seq", 0)
        receipts.issue(txn, job, job.placed)

    market.alone(action)


def test_note_once_looks_for_the_same_event(market: Market) -> None:
    def note(name: str) -> None:
        market.update(lambda txn: events.note_once(txn, "key_made", name=name))

    for name in ("a", "b", "a", "b"):
        note(name)
    assert [each.event.detail["name"] for each in market.events("key_made")] == ["a", "b"]


def test_every_event_has_its_happening() -> None:
    assert set(HAPPENINGS) == set(EVENT_NAMES)


def test_event_names_what_it_is_about(started: Market) -> None:
    (posted,) = [each.event for each in started.events("offer_posted")][:1]
    assert (posted.offer_id, posted.owner, posted.job_id) == ("o-1", "prov", None)
    (queued,) = [each.event for each in started.events("job_queued")]
    assert (queued.job_id, queued.offer_id, queued.owner) == ("job", "o-1", "buyer")
    document = events.document(started.events("offer_posted")[0])
    assert list(document)[:5] == ["seq", "at_ms", "event", "offer_id", "owner"]
    assert "job_id" not in document


def test_refused_submission_is_there_with_its_reason_and_numbers(market: Market) -> None:
    market.post(units=3)
    refused = market.submit(lengths=(1,) * 4)
    (noted,) = market.events("job_refused")
    assert noted.event == Event(
        "job_refused",
        "job",
        None,
        "buyer",
        {
            "reason": "no_capacity",
            "message": refused.message,
            "units": 4,
            "mode": "loose",
            "asked": {"max_price_per_unit": 100, "consumer_bond": 1, "provider_bond_min": 1},
        },
    )


def test_look_and_no_op_note_nothing(started: Market) -> None:
    before = seqs(started)
    started.submit(lengths=(1, 1))
    started.prove("job", 0)
    started.opened.job("job")
    started.violations()
    command(started)
    assert seqs(started) == before


# Entries and numbers.


def test_transaction_is_one_entry(started: Market) -> None:
    before = started.view(lambda txn: txn.size(EVENTS))
    started.prove("job", 1)  # proved, completed, score
    assert started.view(lambda txn: txn.size(EVENTS)) == before + 1
    assert names(started.events())[-3:] == ["job_proved", "job_completed", "score_changed"]


def test_rolled_back_action_leaves_no_event(started: Market) -> None:
    before = contents(started)

    def fail(txn: Txn) -> None:
        inputs = [slice_of(1)]
        submit(txn, job_request("new", inputs), inputs)
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        started.update(fail)
    started.update(lambda txn: capacity.record(txn, 9), dry_run=True)
    assert contents(started) == before
    started.deposit("ann", ct=1)
    assert seqs(started) == list(range(1, len(seqs(started)) + 1))
    assert names(started.events())[-1] == "deposit"


def test_numbers_go_on_without_a_gap_over_a_reopen(started: Market) -> None:
    before = seqs(started)
    started.reopen()
    started.deposit("ann", ct=1)
    assert seqs(started) == [*before, before[-1] + 1]


@pytest.mark.parametrize("number", [ENTRY_EVENTS, ENTRY_EVENTS + 1])
def test_bulk_is_stored_in_entries_without_a_gap(market: Market, number: int) -> None:
    market.deposit("ann", ct=1)
    bulk(market, number)
    market.deposit("ann", ct=1)
    assert seqs(market) == list(range(1, number + 3))
    entries = -(-number // ENTRY_EVENTS)
    assert market.view(lambda txn: txn.size(EVENTS)) == 2 + entries
    first, last = "bulk-00000", f"bulk-{number - 1:05}"
    assert [history(market, job)[0].seq for job in (first, last)] == [2, number + 1]


# Reading.


def test_forward_begins_behind_and_back_ends_before_any_number(market: Market) -> None:
    for n in range(3):
        market.deposit("ann", ct=n)
    bulk(market, 2500)  # the events 4 to 2503, in three entries
    for n in range(2):
        market.deposit("ann", ct=n)

    def forward(after: int) -> list[int]:
        return market.view(lambda txn: [logged.seq for logged in events.forward(txn, after)])

    def back(before: int | None) -> list[int]:
        return market.view(lambda txn: [logged.seq for logged in events.back(txn, before)])

    for seq in (0, 1, 2, 3, 4, 1002, 1003, 1004, 1005, 2503, 2504, 2505, 2506, 9999):
        assert forward(seq) == list(range(seq + 1, 2506)), f"after {seq}"
        assert back(seq) == list(range(min(2505, seq - 1), 0, -1)), f"before {seq}"
    assert back(None) == list(range(2505, 0, -1))


def test_forward_and_back_of_an_empty_log_are_empty(market: Market) -> None:
    assert market.view(lambda txn: list(events.forward(txn))) == []
    assert market.view(lambda txn: list(events.back(txn))) == []


# History.


def test_history_is_all_that_happened_to_a_job_in_order(real: Market) -> None:
    real.configure(slots=1, provider_cancel_penalty_after=1)
    real.deposit("other", ct=100)
    real.submit("job", lengths=(1, 1, 1), wait=True)
    real.submit("first", wait=True)
    real.submit("second", wait=True)
    real.post(reputation=9)
    real.post("other", offer_id="spare", price_per_unit=9)
    real.prove("job", 0)
    real.prove("job", 1, digest=bytes(32))
    real.prove("job", 1, 2, digest=bytes(32))
    hand_over(real, "job", "spare")
    real.prove("job", 1)
    real.update(lambda txn: modes.to_dry_run(txn, "test"))
    real.cancel(by="provider")
    real.update(lambda txn: modes.arm(txn, 0))
    command(real)
    for job_id in ("job", "first", "second"):
        logged = [each for each in real.events() if each.event.job_id == job_id]
        assert history(real, job_id) == logged
    assert names(history(real)) == [
        "job_pending",
        "job_queued",
        "job_started",
        "job_proved",
        "proof_refused",
        "proof_refused",
        "proof_refused",
        "job_handed_over",
        "job_proved",
        "bond_burned",
        "job_cancelled",
        "job_paid",
        "job_paid",
    ]


def test_history_is_what_is_left_after_any_trim(started: Market) -> None:
    for index in range(3):
        started.advance(10)
        started.submit(f"job-{index}")
        started.advance(10)
        started.prove(f"job-{index}")
    whole = {job_id: history(started, job_id) for job_id in ("job", "job-0", "job-1", "job-2")}
    while started.events():
        assert started.update(lambda txn: events.trim(txn, started.now_ms + 1, 1)) == 1
        first = started.events()[0].seq if started.events() else 10**9
        for job_id, logged in whole.items():
            assert history(started, job_id) == [each for each in logged if each.seq >= first]
        assert started.violations() == []


def test_decision_of_a_job_that_was_trimmed_is_forgotten(started: Market) -> None:
    started.update(lambda txn: events.trim(txn, started.now_ms + 1, 10**6))
    assert started.view(lambda txn: events.decision_document(txn, "job")) is None


# Trimming.


def test_trim_drops_what_is_older_and_no_more_than_the_limit(market: Market) -> None:
    for n in range(5):
        market.deposit("ann", ct=n)
        market.advance(10)
    instant = market.now_ms - 20_000  # the fourth entry's own instant

    def trim(limit: int) -> int:
        return market.update(lambda txn: events.trim(txn, instant, limit))

    assert [trim(2), trim(2), trim(2)] == [2, 1, 0]
    assert seqs(market) == [4, 5]
    market.deposit("ann", ct=9)
    assert seqs(market) == [4, 5, 6]


def test_trim_reads_nothing_behind_the_first_that_stays(market: Market) -> None:
    """A tick that takes many changes would otherwise read all that it has noted, each time."""
    for n in range(3):
        market.deposit("ann", ct=n)
        market.advance(10)

    def action(txn: Txn) -> int:
        put_raw(txn, EVENTS, pack_u64(3), b"damaged")
        return events.trim(txn, market.now_ms - 20_000, 10)

    assert market.update(action, dry_run=True) == 1


def test_numbers_go_on_after_everything_was_trimmed(market: Market) -> None:
    market.deposit("ann", ct=1)
    market.update(lambda txn: events.trim(txn, market.now_ms + 1, 10))
    assert seqs(market) == []
    market.reopen()
    market.deposit("ann", ct=1)
    assert seqs(market) == [2]


def test_tick_trims_what_is_older_than_the_retention(market: Market) -> None:
    market.configure(log_retention_secs=100)
    market.deposit("ann", ct=1)
    market.advance(50)
    market.deposit("ann", ct=2)
    market.advance(50)
    market.opened.tick()
    assert seqs(market) == [1, 2]
    market.advance(0.001)
    command(market)
    assert seqs(market) == [1, 2]  # Only `tick` trims.
    market.opened.tick()
    assert seqs(market) == [2]


def test_an_instant_is_found_without_a_walk_to_it(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among entries of one and of several events, some of the same instant."""
    for n in range(60):
        market.deposit("ann", ct=n)
        if n % 7 == 0:
            bulk(market, 5)
        if n % 3:
            market.advance(1.5)
    found = market.events()
    assert max(len(entry.events) for entry in market.view(lambda t: list(t.records(EVENTS)))) > 1
    decoded: list[bytes] = []
    decode = EVENTS.decode

    def counted(_: object, key: bytes, payload: bytes) -> Any:
        decoded.append(key)
        return decode(key, payload)

    instants = {logged.at_ms + off for logged in found for off in (-1, 0, 1)}
    expected = {at: max((f.seq for f in found if f.at_ms < at), default=0) for at in instants}
    monkeypatch.setattr(type(EVENTS), "decode", counted)
    for at_ms, seq in expected.items():
        decoded.clear()
        assert market.view(lambda txn, at=at_ms: events.before_instant(txn, at)) == seq
        assert len(decoded) <= 8


def test_what_lies_behind_the_time_asked_for_is_not_read(market: Market) -> None:
    for n in range(40):
        market.deposit("ann", ct=n)
        market.advance(1)
    early = events.Selection(until_ms=START_MS + 3_000)

    def looked(txn: Txn) -> tuple[list[int], list[int]]:
        for seq in range(12, 20):  # None of them is where it is searched.
            put_raw(txn, EVENTS, pack_u64(seq), b"damaged")
        newest = events.newest(txn, early, 2)
        page, after = events.page(txn, early, 0, 30)
        assert after is None
        return [each.seq for each in newest], [each.seq for each in page]

    assert market.update(looked, dry_run=True) == ([3, 4], [1, 2, 3, 4])
