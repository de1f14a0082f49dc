"""The market as a program sees it: what is due, plain values in, plain documents out."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from blake3 import blake3

from compute_market import events, market, verbs
from compute_market.archive import archives
from compute_market.clock import Due
from compute_market.config.settings import DEFAULTS
from compute_market.engine import SWEEP_LIMIT
from compute_market.errors import (
    AlreadyDoneError,
    ConflictError,
    IntegrityError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.jobs import documents
from compute_market.records import Asked, replace
from compute_market.reputation import reputation
from compute_market.settlement import modes
from compute_market.store.schema import JOBS, META, RECEIPTS
from compute_market.store.txn import Txn
from tests.support.market import MARKET_ID, START_MS, Market
from tests.support.stores import contents, flip

# What running this file gives.
OUTPUT = blake3(Path(__file__).read_bytes()).digest()


class Program:
    """Somebody who uses the library: one home, one clock."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now_ms = START_MS

    def open(self, **options: Any) -> market.Market:
        return market.Market.open(
            str(self.home), **({"clock": lambda: self.now_ms, "sleep": time.sleep} | options)
        )

    def make(self) -> market.Market:
        return self.open(market_id=MARKET_ID)

    def slice(self, name: str = "a.slice", content: bytes = b"content") -> str:
        (self.home / name).write_bytes(content)
        return str(self.home / name)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "home").mkdir()
    return Program(tmp_path / "home")


def job(**fields: Any) -> dict[str, Any]:
    """The fields of a job file that is as it should be."""
    defaults = {
        "job_id": "job",
        "buyer": "buyer",
        "workload": "transcode",
        "slices": [{"path": __file__, "reference": OUTPUT.hex()}],
        "max_price_per_unit": 10,
    }
    return defaults | fields


def offer(**fields: Any) -> dict[str, Any]:
    return {"offer_id": "offer", "provider": "prov", "units": 100, "price_per_unit": 5} | fields


def new(**fields: Any) -> dict[str, Any]:
    """An offer beside the one of `offer`."""
    return offer(offer_id="new", **fields)


# Opening.


def test_open_without_an_id_makes_no_market(program: Program) -> None:
    with pytest.raises(NotFoundError, match="no market in"):
        program.open()
    assert contents(program.home) == {}


def test_open_with_an_id_makes_one_and_keeps_it(program: Program) -> None:
    with program.make() as opened:
        opened.deposit("buyer", ct=7)
    program.now_ms += 5_000
    with program.open(market_id=b"x" * 16) as opened:
        assert opened.view(lambda txn: txn.get(META, b"market_id")) == MARKET_ID
        assert opened.balance("buyer")["ct"] == 7
        assert opened.engine.config == DEFAULTS
    with program.open() as opened:
        assert opened.balance("buyer")["ct"] == 7


@pytest.mark.parametrize("market_id", [b"", b"short", bytes(17)])
def test_open_refuses_an_id_of_another_length(program: Program, market_id: bytes) -> None:
    with pytest.raises(UsageError, match="market id has 16 bytes"):
        program.open(market_id=market_id)
    assert contents(program.home) == {}


def test_open_reads_the_configuration_of_the_home(program: Program) -> None:
    (program.home / "config.toml").write_text('epoch_blocks = 7\nsettle_mode = "real"\n')
    with program.make() as opened:
        assert opened.engine.config.epoch_blocks == 7
        assert opened.view(lambda txn: txn.config.epoch_blocks) == 7
        assert opened.view(modes.is_real)
    with program.open() as opened:
        assert opened.engine.config.epoch_blocks == 7


@pytest.mark.parametrize("makes", [True, False])
def test_open_refuses_a_bad_configuration_and_makes_nothing(program: Program, makes: bool) -> None:
    (program.home / "config.toml").write_text("\nepoch_blocks = 0\n")
    before = contents(program.home)
    with pytest.raises(UsageError, match=r"home/config\.toml:2: epoch_blocks: 0 is not"):
        program.open(market_id=MARKET_ID if makes else None)
    assert contents(program.home) == before


def test_open_of_a_configuration_that_is_no_file_is_a_usage_error(program: Program) -> None:
    (program.home / "config.toml").mkdir()
    with pytest.raises(UsageError, match=r"config\.toml: is a directory"):
        program.make()


def test_open_where_a_file_is_in_the_way_is_a_usage_error(program: Program) -> None:
    program.home.rmdir()
    program.home.write_text("mine")
    with pytest.raises(UsageError, match="home"):
        program.make()
    assert program.home.read_text() == "mine"


def test_open_makes_the_directory_too(tmp_path: Path) -> None:
    deeper = Program(tmp_path / "a" / "b")
    with deeper.make() as opened:
        assert list(opened.jobs()) == []


def test_close_at_the_end_of_a_with_block_lets_it_be_opened_again(program: Program) -> None:
    with program.make():
        pass
    with pytest.raises(ZeroDivisionError), program.open():
        _ = 1 // 0
    program.open().close()


# What is due.


def due_in(found: Market) -> None:
    """Make a market in which a job is overdue, a mode is to turn real and a receipt waits."""
    found.configure(settle_mode="real")
    found.deposit("buyer", ct=100)
    found.deposit("prov", ct=100)
    found.post()
    found.submit("paid-later")
    found.update(lambda txn: modes.to_dry_run(txn, "for a test"))
    found.prove("paid-later")
    found.submit("late", deadline_secs=65)
    found.opened.arm(1)
    found.advance(70)


def test_update_does_what_is_due_first(market: Market) -> None:
    due_in(market)

    def action(txn: Txn) -> tuple[bool, str, int]:
        found = market_jobs(txn)
        return modes.is_real(txn), found["late"], txn.number("last_run_ms")

    assert market.update(action) == (True, "failed", market.now_ms)
    assert market.opened.due.activated
    assert market.opened.due.paid == 1
    assert market.opened.due.failed == ("late",)
    assert market.opened.due.text == (
        "the settlement mode turned real, 1 receipt that had waited paid, 1 overdue job failed, "
        "1 IT of subsidies paid"
    )
    # It is due once.
    market.update(lambda _: None)
    assert market.opened.due == Due()
    assert market.opened.due.text == ""


def market_jobs(txn: Txn) -> dict[str, str]:
    return {found["job_id"]: found["state"] for found in documents.job_page(txn, None, 100)[0]}


def test_view_does_nothing_that_is_due(market: Market) -> None:
    due_in(market)
    market.update(lambda _: None, dry_run=True)
    before = (market.path / "data.mdb").read_bytes()
    assert market.view(market_jobs)["late"] == "active"
    assert not market.view(modes.is_real)
    assert market.opened.job("late")["state"] == "active"
    assert market.opened.balance("buyer")["escrow"]["ct"] > 0
    assert market.opened.audit() == []
    assert (market.path / "data.mdb").read_bytes() == before


def test_update_that_fails_undoes_what_was_due_and_tells_of_nothing(market: Market) -> None:
    due_in(market)
    market.opened.engine.due = Due(activated=True)
    with pytest.raises(ZeroDivisionError):
        market.update(lambda _: 1 // 0)
    assert market.opened.due == Due()
    assert market.view(market_jobs)["late"] == "active"
    assert not market.view(modes.is_real)


def test_update_in_a_dry_run_tells_what_would_be_due(market: Market) -> None:
    due_in(market)
    assert market.update(market_jobs, dry_run=True)["late"] == "failed"
    assert market.opened.due.failed == ("late",)
    assert market.view(market_jobs)["late"] == "active"


def test_update_fails_no_more_overdue_jobs_than_it_may(market: Market) -> None:
    market.post(units=10 * SWEEP_LIMIT)
    market.configure(slots=1000, initial_capacity=10**6)
    for number in range(5):
        market.submit(f"job-{number}", deadline_secs=61)
    market.advance(62)
    market.opened.engine.update(lambda _: None, sweep_limit=2)
    assert market.opened.due.failed == ("job-0", "job-1")
    market.update(lambda _: None)
    assert len(market.opened.due.failed) == 3


def test_tick_does_what_is_due_and_nothing_else(market: Market) -> None:
    due_in(market)
    due = market.opened.tick()
    assert (due.activated, due.paid, due.failed) == (True, 1, ("late",))
    assert market.opened.tick() == Due()


def test_tick_forgets_what_the_log_need_not_keep_and_looks_at_receipts(tmp_path: Path) -> None:
    market = Market(tmp_path / "market")
    market.configure(log_retention_secs=3600)
    market.post()
    market.submit()
    market.prove()
    market.advance(3601)
    market.opened.tick()
    assert market.events("job_completed") == []
    ((key, _),) = market.view(lambda txn: list(txn.scan(RECEIPTS)))
    market.store.close()
    flip(market.path, RECEIPTS, key)
    market.opened = market.open(market.config)
    market.opened.tick()
    assert market.counter("receipt_corrupt_total") == 1
    assert [found.table for found in market.violations()] == ["receipts"]
    market.store.close()


def test_the_log_names_who_asked(program: Program) -> None:
    with program.open(
        market_id=MARKET_ID, asked=Asked("someone", "here", 7, "wallet deposit")
    ) as opened:
        opened.deposit("buyer", ct=1)
        (found,) = opened.view(lambda txn: list(events.forward(txn)))
    assert found.asked == Asked("someone", "here", 7, "wallet deposit")


# A whole market.


def test_a_whole_market_through_the_front_door(program: Program) -> None:
    path = program.slice()
    with program.make() as opened:
        assert opened.deposit("buyer", ct=100, key="first")
        assert not opened.deposit("buyer", ct=100, key="first")
        opened.deposit("prov", ct=10)
        opened.arm(1)
        assert opened.advance(1) == 1
        posted = opened.post_offer(**offer())
        assert (posted["offer_id"], posted["changed"], posted["matched"]) == ("offer", True, [])
        assert opened.post_offer(**offer())["changed"] is False
        submitted = opened.submit(**job(slices=[path]))
        assert (submitted["state"], submitted["changed"]) == ("active", True)
        assert opened.submit(**job(slices=[path]))["changed"] is False
        assert opened.balance("buyer")["escrow"] == {"ct": 5, "it": 0}
        assert opened.execute("job")["state"] == "completed"
        assert opened.execute("job")["state"] == "completed"  # It is left alone.
        assert opened.balance("prov")["ct"] == 15
        assert opened.balance("buyer")["ct"] == 95
        assert opened.offer("offer")["units_proven"] == 1
        opened.submit(**job(job_id="second"))
        assert opened.prove("second", 0, OUTPUT)
        assert not opened.prove("second", 0, OUTPUT)
        opened.submit(**job(job_id="third"))
        assert opened.cancel("third") == "cancelled"
        assert opened.cancel("third") == "already_cancelled"
        assert opened.cancel("second") == "already_done"
        opened.submit(**job(job_id="fourth"))
        assert opened.cancel("fourth", by="provider") == "cancelled"
        assert [found["job_id"] for found in opened.jobs()] == ["fourth", "job", "second", "third"]
        assert opened.job("job")["cause"] == "all_proven"
        opened.follow_log(str(program.home / "cancellations.log"))
        assert opened.audit() == []
    assert (program.home / "cancellations.log").read_text() == "third client\nfourth provider\n"


def test_post_offer_matches_what_waited_for_it(program: Program) -> None:
    with program.make() as opened:
        assert opened.submit(**job(), wait=True)["state"] == "pending"
        assert opened.post_offer(**offer())["matched"] == ["job"]


def test_jobs_come_by_id_in_as_many_pages_as_they_need(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "_PAGE", 2)
    with program.make() as opened:
        for number in range(5):
            opened.submit(**job(job_id=f"job-{number}"), wait=True)
        assert [found["job_id"] for found in opened.jobs()] == [f"job-{n}" for n in range(5)]
        opened.cancel("job-4")
        assert len(list(opened.jobs())) == 5


def test_submit_of_what_the_market_refuses_is_remembered(program: Program) -> None:
    with program.make() as opened:
        with pytest.raises(RefusedError) as caught:
            opened.submit(**job())
        assert caught.value.reason == "capability_mismatch"
        with pytest.raises(NotFoundError):
            opened.job("job")
        found = opened.view(lambda txn: [each.event for each in events.forward(txn)])
        assert [(each.event, each.job_id) for each in found] == [("job_refused", "job")]


def test_prove_of_a_wrong_output_costs_a_point_and_raises(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer(reputation=5))
        opened.submit(**job())
        with pytest.raises(IntegrityError, match="is not its output"):
            opened.prove("job", 0, bytes(32))
        assert opened.job("job")["slices_proven"] == 0
        assert opened.view(lambda txn: reputation.score(txn, "prov")) == 4


# Prices, parameters, consumer transactions, subsidies.


def test_prices_are_looked_at_and_saved_at_the_end(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer())
        assert opened.prices.show() == {"industrial": None, "consumer": None}
        opened.submit(**job())
        shown = opened.prices.show()["industrial"]
        assert shown is not None
        assert (shown["median"], shown["samples"]) == (5, 1)
        assert opened.prices.suggest()["suggested"] == 5
    with program.open() as opened:
        assert len(opened.prices.load().industrial) == 1
        assert opened.prices.save() is None  # Nothing was priced since.


def test_parameters_are_proposed_approved_and_rolled_back(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "_PAGE", 2)
    with program.make() as opened:
        before = opened.params.show()
        proposed = opened.params.propose("fair_share_cap", 0.1, key="once")
        assert (proposed["state"], proposed["changed"]) == ("proposed", True)
        assert opened.params.propose("fair_share_cap", "0.1", key="once")["changed"] is False
        for number in (2, 3):
            assert opened.params.propose("min_capacity", 10 * number)["id"] == number
        approved = opened.params.approve(proposed["id"])
        opened.advance(approved["activates_at"])
        assert opened.params.show() == before | {"fair_share_cap": 0.1}
        assert [each["id"] for each in opened.params.history()] == [1, 2, 3]
        assert opened.params.rollback(key="back")["state"] == "rolled_back"
        assert opened.params.rollback(key="back")["changed"] is False
        assert opened.params.show() == before


def test_consumer_transactions_are_taken_or_refused_with_the_reason(program: Program) -> None:
    with program.make() as opened:
        taken = opened.mempool.submit("alice", fee=40, size=250, key="tx-1")
        assert (taken["admitted"], taken["changed"]) == (True, True)
        again = opened.mempool.submit("alice", fee=40, size=250, key="tx-1")
        assert (again["tx_id"], again["changed"]) == (taken["tx_id"], False)
        assert opened.mempool.stats()["lanes"]["consumer"]["size"] == 1
        opened.engine.config = replace(opened.engine.config, mempool_sender_limit=1)
        with pytest.raises(RefusedError) as caught:
            opened.mempool.submit("alice", fee=40, size=250)
        assert caught.value.reason == "sender_limit"


def test_subsidy_shows_the_epoch_of_a_height(program: Program) -> None:
    with program.make() as opened:
        assert opened.subsidy() == opened.subsidy(0)
        opened.advance(opened.engine.config.epoch_blocks)
        assert opened.subsidy(0)["epoch"] != opened.subsidy()["epoch"]


def archived(opened: market.Market, **other: Any) -> dict[str, Any]:
    asked = {"path": "a.jsonl", "before_secs": 0, "archive_id": bytes(16)} | other
    return opened.state.archive(asked.pop("path"), **asked)


# What is wrong with a call.

LONG = "x" * 129
NO_IDS = ["", " ", "a b", "a/b", LONG, "ä", "a\0b", "\ud800", "-a"]


def calls(opened: market.Market) -> dict[str, Callable[[str], object]]:
    """Everything that takes an id."""
    return {
        "deposit": lambda text: opened.deposit(text, ct=1),
        "withdraw": lambda text: opened.withdraw(text, ct=1),
        "withdraw key": lambda text: opened.withdraw("buyer", ct=1, key=text),
        "withdraw_offer": opened.withdraw_offer,
        "change_job": lambda text: opened.change_job(text, priority="high"),
        "hold": opened.hold,
        "release": opened.release,
        "explain": opened.explain,
        "explain of an offer": lambda text: opened.explain("job", text),
        "explain_offer": opened.explain_offer,
        "capacity key": lambda text: opened.capacity.record(5, key=text),
        "deposit key": lambda text: opened.deposit("buyer", ct=1, key=text),
        "post_offer": lambda text: opened.post_offer(**offer(offer_id=text)),
        "post_offer provider": lambda text: opened.post_offer(**offer(provider=text)),
        "post_offer job": lambda text: opened.post_offer(**offer(job_id=text)),
        "submit": lambda text: opened.submit(**job(job_id=text)),
        "submit buyer": lambda text: opened.submit(**job(buyer=text)),
        "execute": opened.execute,
        "prove": lambda text: opened.prove(text, 0, OUTPUT),
        "cancel": opened.cancel,
        "job": opened.job,
        "offer": opened.offer,
        "balance": opened.balance,
        "propose key": lambda text: opened.params.propose("min_capacity", 5, key=text),
        "mempool": lambda text: opened.mempool.submit(text, fee=1, size=1),
        "mempool key": lambda text: opened.mempool.submit("sender", fee=1, size=1, key=text),
    }


@pytest.fixture
def opened(program: Program) -> Any:
    """A market with an active job, and unchanged by the test."""
    with program.make() as found:
        found.deposit("buyer", ct=5)
        found.post_offer(**offer())
        found.submit(**job())
        before = (program.home / "market" / "data.mdb").read_bytes()
        yield found
        assert (program.home / "market" / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("text", NO_IDS)
def test_what_cannot_be_an_id_is_a_usage_error_everywhere(opened: market.Market, text: str) -> None:
    for name, call in calls(opened).items():
        with pytest.raises(UsageError) as caught:
            call(text)
        assert caught.value.message.isprintable(), name


def test_an_unknown_id_is_a_not_found_error(opened: market.Market) -> None:
    found = calls(opened)
    ids = ("execute", "prove", "cancel", "job", "offer", "withdraw_offer", "change_job", "hold")
    explained = ("explain", "explain of an offer", "explain_offer")
    for name in (*ids, "release", *explained):
        with pytest.raises(NotFoundError, match="nobody does not exist"):
            found[name]("nobody")
    assert opened.balance("nobody")["ct"] == 0


BIG = 2**63


@pytest.mark.parametrize("value", [-1, BIG, 1.5, "1.0", None, True, float("nan")])
def test_what_is_no_number_is_a_usage_error_everywhere(opened: market.Market, value: Any) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "deposit ct": lambda: opened.deposit("buyer", ct=value),
        "withdraw ct": lambda: opened.withdraw("buyer", ct=value),
        "capacity": lambda: opened.capacity.record(value),
        "deposit it": lambda: opened.deposit("buyer", it=value),
        "arm": lambda: opened.arm(value),
        "advance": lambda: opened.advance(value),
        "approve": lambda: opened.params.approve(value),
        "fee": lambda: opened.mempool.submit("sender", fee=value, size=1),
        "size": lambda: opened.mempool.submit("sender", fee=1, size=value),
        "prove": lambda: opened.prove("job", value, OUTPUT),
        "units": lambda: opened.post_offer(**offer(offer_id="new", units=value)),
        "price": lambda: opened.post_offer(**offer(offer_id="new", price_per_unit=value)),
        "bond": lambda: opened.post_offer(**offer(offer_id="new", provider_bond=value)),
        "max price": lambda: opened.submit(**job(job_id="new", max_price_per_unit=value)),
        "cores": lambda: opened.submit(**job(job_id="new", capability={"cpu_cores": value})),
    }
    for name, attempt in attempts.items():
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.message.isprintable(), name


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.prove("job", 1, OUTPUT), UsageError, "no slice 1"),
        (lambda m: m.prove("job", 0, OUTPUT[:-1]), UsageError, "32 bytes"),
        (lambda m: m.prove("job", 0, OUTPUT.hex()), UsageError, "32 bytes"),
        (lambda m: m.cancel("job", by="somebody"), UsageError, "'somebody' cannot cancel"),
        (lambda m: m.deposit("buyer", ct=BIG - 1), RefusedError, "circulation"),
        (lambda m: m.post_offer(**offer(units=5)), ConflictError, "units"),
        (lambda m: m.post_offer(), UsageError, "missing"),
        (lambda m: m.post_offer(**offer(colour="red")), UsageError, "colour"),
        (lambda m: m.post_offer(**new(reputation_multiplier=[])), RefusedError, "multiplier"),
        (lambda m: m.post_offer(**new(reputation_multiplier=0.3)), RefusedError, "multiplier"),
        (lambda m: m.post_offer(**new(fee_pct_ct=101)), RefusedError, "fee_pct_ct"),
        (lambda m: m.submit(**job(max_price_per_unit=9)), ConflictError, "max_price_per_unit"),
        (lambda m: m.submit(), UsageError, "missing"),
        (lambda m: m.submit(**job(job_id="new", workload="none")), UsageError, "none"),
        (lambda m: m.submit(**job(job_id="new", slices=[])), UsageError, "slices"),
        (lambda m: m.submit(**job(job_id="new", slices="abc")), UsageError, "slices"),
        (lambda m: m.submit(**job(job_id="new", slices=["/nowhere/a"])), MarketError, "nowhere"),
        (lambda m: m.submit(**job(job_id="new", slices=["a\0b"])), MarketError, "."),
        (lambda m: m.submit(**job(job_id="new", slices=["\ud800"])), UsageError, "not a path"),
        (lambda m: m.submit(**job(job_id="new", priority="urgent")), UsageError, "priority"),
        (lambda m: m.submit(**job(job_id="new", deadline_secs=5, deadline=5)), UsageError, "both"),
        (lambda m: m.submit(**job(job_id="new", deadline=5)), RefusedError, "deadline"),
        (lambda m: m.params.propose("fair_share", 0.1), UsageError, "fair_share"),
        (lambda m: m.params.propose("min_capacity", "many"), UsageError, "many"),
        (lambda m: m.params.propose("burst_quota", 1), RefusedError, "read-only"),
        (lambda m: m.params.approve(7), NotFoundError, "proposal 7"),
        (lambda m: m.params.rollback(), RefusedError, "nothing to roll back"),
        (lambda m: m.prices.suggest("consumer"), RefusedError, "no price data"),
        (lambda m: m.prices.suggest("fast"), UsageError, "'fast' is no lane"),
        (lambda m: m.subsidy(-1), UsageError, "height"),
        (lambda m: m.withdraw("buyer", ct=6), RefusedError, "wallet of buyer has 5 CT"),
        (lambda m: m.change_job("job", priority="urgent"), UsageError, "'urgent' is no priority"),
        (lambda m: m.change_job("job", deadline=5), RefusedError, "5 is earlier"),
        (lambda m: m.change_job("job", deadline=-5), UsageError, "deadline"),
        (lambda m: m.explain_offer("offer", -1), UsageError, "since_ms"),
        (lambda m: m.explain(cast(str, 5)), UsageError, "is no text"),
        (lambda m: m.withdraw("b", ct=1, key=cast(str, 5)), UsageError, "key is no text"),
        (lambda m: archived(m, archive_id=b"short"), UsageError, "is 16 bytes"),
        (lambda m: archived(m, before_secs=-1), UsageError, "before_secs"),
        (lambda m: archived(m, path=""), UsageError, "path"),
        (lambda m: archived(m, path="\ud800"), UsageError, "path"),
        (lambda m: archived(m, path="/dev/null"), UsageError, "/dev/null"),
        (lambda m: archived(m, path="/none/such"), UsageError, "no directory /none"),
        (lambda m: m.settlement.cancel_arm(), RefusedError, "nothing is armed"),
        (lambda m: m.settlement.stop(""), UsageError, "reason"),
        (lambda m: m.settlement.stop("\ud800"), UsageError, "reason"),
        (lambda m: m.settlement.stop("x" * 201), UsageError, "at most 200"),
        (lambda m: m.settlement.stop(cast(str, 5)), UsageError, "reason is no text"),
        (lambda m: archived(m, path=5), UsageError, "path is no text"),
    ],
)
def test_bad_input_changes_nothing_and_says_what_is_wrong(
    opened: market.Market,
    call: Callable[[market.Market], object],
    error: type[MarketError],
    words: str,
) -> None:
    with pytest.raises(error, match=words) as caught:
        call(opened)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_arm_twice_is_refused_and_changes_nothing(program: Program) -> None:
    with program.make() as opened:
        opened.arm(5)
        before = opened.view(modes.document)
        with pytest.raises(RefusedError, match="only dry_run can be armed"):
            opened.arm(5)
        assert opened.view(modes.document) == before


def test_advance_past_the_last_height_is_refused(program: Program) -> None:
    with program.make() as opened:
        assert opened.advance(7) == 7
        with pytest.raises(RefusedError, match="height would pass"):
            opened.advance(BIG - 1)
        assert opened.advance(0) == 7


def test_execute_of_a_job_that_is_not_active_says_why(program: Program) -> None:
    with program.make() as opened:
        opened.submit(**job(), wait=True)
        with pytest.raises(RefusedError, match="pending"):
            opened.execute("job")
        opened.cancel("job")
        with pytest.raises(AlreadyDoneError, match="cancelled"):
            opened.execute("job")


def test_execute_of_a_slice_that_changed_ends_the_job(program: Program) -> None:
    path = program.slice()
    with program.make() as opened:
        opened.post_offer(**offer())
        opened.submit(**job(slices=[path]))
        os.remove(path)
        program.slice(content=b"another")
        with pytest.raises(IntegrityError, match="slice"):
            opened.execute("job")
        job_ = opened.job("job")
        assert (job_["slices_proven"], job_["cause"]) == (0, "slice_changed")
        with pytest.raises(AlreadyDoneError):
            opened.execute("job")


def test_execute_proves_what_was_left(program: Program) -> None:
    paths = [program.slice(f"{n}.slice", b"%d" % n) for n in range(3)]
    with program.make() as opened:
        opened.post_offer(**offer())
        opened.submit(**job(slices=paths))
        assert opened.prove("job", 1, blake3(b"1").digest())
        assert opened.execute("job")["slices_proven"] == 3


def test_prover_in_a_dry_run_proves_nothing(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer())
        opened.submit(**job())
        submit = opened.prover("job", dry_run=True)
        assert submit([(0, OUTPUT)]).state == "completed"
        assert opened.job("job")["state"] == "active"
        assert opened.prover("job")([(0, OUTPUT)]).state == "completed"


def test_withdraw_pays_out_what_was_paid_in(program: Program) -> None:
    with program.make() as opened:
        opened.deposit("buyer", ct=7, it=3)
        assert [opened.withdraw("buyer", ct=2, it=3, key="out") for _ in range(2)] == [True, False]
        assert (opened.balance("buyer")["ct"], opened.balance("buyer")["it"]) == (5, 0)


def test_withdraw_offer_lets_its_jobs_go_on(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer())
        opened.submit(**job())
        assert (opened.withdraw_offer("offer"), opened.withdraw_offer("offer")) == (True, False)
        assert opened.offer("offer")["state"] == "withdrawn"
        assert opened.job("job")["state"] == "active"


def test_change_job_gives_it_other_terms(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer())
        deadline = opened.submit(**job())["deadline"]
        changed = opened.change_job("job", priority="low", deadline=deadline + 60)
        assert (changed["priority"], changed["deadline"]) == ("low", deadline + 60)
        assert opened.job("job") == changed
        assert opened.change_job("job") == changed


def test_explain_says_what_keeps_a_job_and_what_would_take_it(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer(price_per_unit=50))
        opened.post_offer(**new(price_per_unit=60))
        opened.submit(**job(), wait=True)
        found = opened.explain("job")
        assert (found["state"], found["fitting"], found["considered"]) == ("pending", 0, 2)
        assert found["nearest"]["offer_id"] == "offer"
        assert [each["offer_id"] for each in opened.explain("job", "new")["offers"]] == ["new"]
        assert opened.explain_offer("offer")["lacked"] == {"max_price_per_unit": 1}
        assert opened.explain_offer("offer", program.now_ms + 1)["seen"] == 0
        assert opened.match() == []
        opened.change_offer("offer", price_per_unit=5)
        opened.match()
        assert opened.explain("job")["state"] == "active"
        assert opened.explain_offer("offer")["won"] == 1


def test_match_tells_which_jobs_found_an_offer(program: Program) -> None:
    with program.make() as opened:
        opened.arm(0)
        opened.deposit("buyer", ct=100, it=100)
        opened.post_offer(**offer(provider_bond=10))
        assert opened.submit(**job(), wait=True)["state"] == "pending"
        assert opened.match() == []
        opened.deposit("prov", ct=10)
        assert opened.match() == ["job"]
        assert opened.job("job")["state"] == "active"


def test_settlement_is_shown_armed_and_stopped(program: Program) -> None:
    with program.make() as opened:
        assert opened.settlement.status()["mode"] == "dry_run"
        opened.arm(5)
        opened.settlement.cancel_arm()
        opened.arm(0)
        opened.tick()
        assert opened.settlement.status()["mode"] == "real"
        opened.deposit("buyer", ct=100, it=100)
        opened.deposit("prov", ct=10)
        opened.post_offer(**offer())
        opened.submit(**job())
        assert (opened.settlement.stop("to look"), opened.settlement.stop("again")) == (True, False)
        assert opened.settlement.status()["reason"] == "to look"
        opened.execute("job")
        planned = opened.settlement.plan()
        assert planned["pending"] == 1
        assert sum(each["amount"] for each in planned["moves"]) == 5


def test_capacity_is_recorded_once_with_a_key(program: Program) -> None:
    with program.make() as opened:
        first = opened.capacity.record(40, key="k")
        assert (first["recorded"], first["changed"]) == (40, True)
        assert opened.capacity.record(40, key="k") == first | {"changed": False}
        assert opened.capacity.show()["samples"].count(40) == 1
        with pytest.raises(ConflictError):
            opened.capacity.record(41, key="k")


def test_archive_moves_what_ended_and_goes_on_where_it_was(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(program.home / "ended.jsonl")
    with program.make() as opened:
        opened.post_offer(**offer())
        for job_id in ("done", "runs"):
            opened.submit(**job(job_id=job_id))
        opened.execute("done")
        program.now_ms += 60_000
        with monkeypatch.context() as patch:
            patch.setattr(archives, "let_go", interrupted)
            with pytest.raises(KeyboardInterrupt):
                archived(opened, path=path)
        assert opened.job("done")["state"] == "completed"
        root = opened.state.root()
        moved = archived(opened, path=path, archive_id=bytes(range(16)))
        assert opened.state.root() == root
        assert (moved["jobs"], moved["receipts"], moved["changed"]) == (1, 1, True)
        assert archived(opened, path=path) == {"path": path, "changed": False}
        opened.cancel("runs")
        program.now_ms += 60_000
        with pytest.raises(ConflictError, match=f"{path} is the archive of the id 00"):
            archived(opened, path=f"{path}.more")  # It has the id of the first one.
        assert not Path(f"{path}.more").exists()
        with pytest.raises(NotFoundError, match="archived"):
            opened.job("done")
        assert opened.audit() == []
    lines = Path(path).read_bytes().splitlines()
    assert bytes(16).hex() in lines[0].decode()
    assert [each for each in program.home.iterdir() if each.suffix == ".tmp"] == []


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_audit_names_what_is_damaged(program: Program) -> None:
    with program.make() as opened:
        opened.post_offer(**offer())
        opened.submit(**job())
        assert opened.audit() == []
    flip(program.home / "market", JOBS, b"job")
    with program.open() as opened:
        assert opened.audit()[0].table == "jobs"
        with pytest.raises(IntegrityError, match="table jobs, key b'job'"):
            opened.job("job")


def test_what_a_program_changes_is_what_it_is_told(market: Market) -> None:
    opened = market.opened
    market.configure(slots=1)
    opened.post_offer(provider="prov", units=9, price_per_unit=5, offer_id="o")
    changed = opened.change_offer("o", units="-1", price_per_unit=6)
    assert changed["before"] == {"price_per_unit": 5, "units": 9}
    assert opened.offer("o") | {"before": changed["before"]} == changed
    for job_id in ("runs", "waits"):
        market.submit(job_id)
    assert (opened.hold("waits"), opened.hold("waits")) == (True, False)
    opened.cancel("runs")
    assert opened.job("waits")["state"] == "queued"
    assert (opened.release("waits"), opened.release("waits")) == (True, False)
    assert opened.job("waits")["state"] == "active"
