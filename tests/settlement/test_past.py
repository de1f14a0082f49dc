"""Wallets and jobs at earlier times, and statements: what was seen then is what is told now."""

from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest

from compute_market import chain
from compute_market.errors import (
    AlreadyDoneError,
    BusyError,
    ConflictError,
    NotFoundError,
    RefusedError,
)
from compute_market.jobs import documents, holding
from compute_market.jobs import past as past_jobs
from compute_market.settlement import escrow, ledger, modes, past, statements, wallets
from compute_market.settlement.statements import Lines
from compute_market.store.schema import JOBS, POSTINGS_BEFORE
from compute_market.store.txn import Txn
from tests.support.archiving import archive
from tests.support.bids import seal, take
from tests.support.effort import effort
from tests.support.laws import hand_over
from tests.support.market import START_MS, Market

OWNERS = ("buyer", "prov", "other")
# Of a job: what its log does not tell, or what is about now alone.
_NOT_TOLD = {
    *("consumer_bond", "provider_bond", "escrow", "paid", "refunded", "capability"),
    *("provider_bond_min", "unreadable_slice"),
}


class Seen:
    """What was seen of wallets and jobs at one instant."""

    def __init__(self, txn: Txn) -> None:
        self.at_ms = txn.now_ms
        self.wallets = {owner: escrow.balance_document(txn, owner) for owner in OWNERS}
        self.jobs = {
            job.job_id: documents.job_document(txn, job) for job in list(txn.records(JOBS))
        }


def wallet_at(market: Market, owner: str, at_ms: int) -> dict[str, Any]:
    return market.view(lambda txn: past.balance_document(txn, owner, at_ms))


def job_at(market: Market, job_id: str, at_ms: int) -> dict[str, Any]:
    return market.view(lambda txn: past_jobs.document(txn, job_id, at_ms))


def live(market: Market, draw: Random, steps: int) -> list[Seen]:
    """Let things happen, drawn at random, and see how all stands after each."""
    market.configure(slots=3, deadline_min_secs=0, provider_cancel_penalty_after=1)
    for owner in OWNERS:
        market.deposit(owner, ct=5000, it=5000)
    for offer_id, provider in (("a", "prov"), ("b", "other")):
        market.post(provider, offer_id=offer_id, units=999, provider_bond=7, fee_pct_ct=30)
    seen = []
    for _ in range(steps):
        name = f"j{draw.randrange(12)}"
        # Most of what is drawn at random cannot be done.
        with suppress(AlreadyDoneError, ConflictError, NotFoundError, RefusedError):
            happen(market, draw, name)
        seen.append(market.view(Seen))
        market.advance(draw.choice((0.001, 1, 1, 20)))
    return seen


def happen(market: Market, draw: Random, name: str) -> None:
    act = draw.randrange(11)
    if act < 3:
        terms: dict[str, Any] = {"deadline_secs": draw.choice((5, 500))}
        if draw.random() < 0.3:
            terms = {"deadline": market.now_ms // 1000 + 30}
        wait = draw.random() < 0.5
        price = draw.choice((100, 1))  # Nobody offers that little.
        market.submit(name, lengths=(1, 1), max_price_per_unit=price, wait=wait, **terms)
    elif act == 3:
        market.prove(name, draw.randrange(2))
    elif act == 4:
        market.prove(name, 0, 1)
    elif act == 5:
        market.cancel(name, draw.choice(("client", "provider")))
    elif act == 6:
        hand_over(market, name, draw.choice("ab"))
    elif act == 7:
        turn = modes.to_dry_run if draw.random() < 0.3 else modes.arm
        market.update(lambda txn: turn(txn, "a test" if turn is modes.to_dry_run else 0))
    elif act == 8:
        change = draw.choice((holding.hold, holding.release))
        market.update(lambda txn: change(txn, name))
    elif act == 9:
        terms = draw.choice(({"priority": "high"}, {"priority": "low"}, {"deadline_secs": 900}))
        market.update(lambda txn: holding.change(txn, name, **terms))
    else:
        owner, amount = draw.choice(OWNERS), draw.randrange(1, 50)
        event: Any = draw.choice(("deposit", "withdraw"))
        market.update(lambda txn: ledger.tap(txn, event, owner, {"CT": amount, "IT": 1}, None))


@pytest.mark.parametrize("seed", range(effort(4, 300)))
def test_what_was_seen_then_is_told_later(market: Market, seed: int) -> None:
    draw = Random(seed)
    seen = live(market, draw, effort(60, 200))
    for before in seen:
        for owner, document in before.wallets.items():
            told = wallet_at(market, owner, before.at_ms)
            assert told == document | {"at_ms": before.at_ms}
        for job_id, document in before.jobs.items():
            told = job_at(market, job_id, before.at_ms)
            last = told.pop("last_event")
            assert told.pop("at_ms") == before.at_ms
            assert told == {name: document[name] for name in told}
            assert document.keys() - told.keys() == _NOT_TOLD
            assert last["at_ms"] <= before.at_ms
    for job in seen[-1].jobs.values():
        at_ms = job["submitted_at"] * 1000 - 1
        with pytest.raises(NotFoundError) as said:
            job_at(market, job["job_id"], at_ms)
        assert said.value.reason == "not_yet"


def statement(
    market: Market, owner: str, since_ms: int | None, until_ms: int | None, by: str | None
) -> tuple[dict[str, int], list[dict[str, Any]], dict[str, int]]:
    """Opening balance, lines and closing balance, read in small pages."""

    def add_up(txn: Txn) -> Any:
        within = past.span(txn, since_ms, until_ms)
        opening = statements.archived(txn, owner)
        if since_ms is not None:
            opening = statements.has_now(txn, owner)
            for posting in pages(txn, past.span(txn, since_ms)):
                opening[posting.token] -= statements.signed(posting, owner)
        lines = Lines(owner, opening, by, lambda at_ms: str(at_ms // 1000))
        found = [line for each in pages(txn, within) if (line := lines.take(each)) is not None]
        return (
            statements.amounts_document(opening),
            found or lines.groups(),
            statements.amounts_document(lines.balance),
        )

    def pages(txn: Txn, within: past.Span) -> list[Any]:
        found, after = past.of_wallet(txn, within, owner, within.after, 3)
        while after is not None:
            more, after = past.of_wallet(txn, within, owner, after, 3)
            found += more
        back, before = past.of_wallet_back(txn, within, owner, within.last + 1, 4)
        while before is not None:
            more, before = past.of_wallet_back(txn, within, owner, before, 4)
            back += more
        assert back[::-1] == found
        return found

    result: Any = market.view(add_up)
    return result


@pytest.mark.parametrize("seed", range(effort(3, 200)))
def test_statement_adds_up_whatever_was_archived(market: Market, seed: int) -> None:
    draw = Random(seed)
    seen = live(market, draw, 40)
    market.advance(1)
    for _ in range(2):
        if draw.random() < 0.7:
            archive(market, before=seen[draw.randrange(len(seen))].at_ms // 1000)
    before_ms = market.view(lambda txn: txn.number(POSTINGS_BEFORE))
    kept = [each for each in seen if each.at_ms + 1 >= before_ms]
    for owner in OWNERS:
        for by in (None, "job", "day", "event"):
            first, last = sorted((draw.randrange(len(kept)), draw.randrange(len(kept))))
            # From after what was seen first up to what was seen last.
            since_ms = draw.choice((None, kept[first].at_ms + 1))
            until_ms = draw.choice((None, kept[last].at_ms))
            opening, lines, closing = statement(market, owner, since_ms, until_ms, by)
            for token in ("ct", "it"):
                assert opening[token] + sum(line[token] for line in lines) == closing[token]
                now = seen[-1].wallets[owner]
                then = now if until_ms is None else kept[last].wallets[owner]
                assert closing[token] == then[token]
                if since_ms is not None and (until_ms is None or first <= last):
                    assert opening[token] == kept[first].wallets[owner][token]
            if by is not None:
                for line in lines:
                    for token in ("ct", "it"):
                        assert line[token] == line[f"received_{token}"] - line[f"spent_{token}"]
    # What is known is told exactly, and beyond it nothing.
    for each in seen:
        for owner, document in each.wallets.items():
            if each.at_ms + 1 >= before_ms:
                told = wallet_at(market, owner, each.at_ms)
                assert told == document | {"at_ms": each.at_ms}
            else:
                with pytest.raises(NotFoundError) as said:
                    wallet_at(market, owner, each.at_ms)
                assert said.value.details == {"known_from_ms": before_ms - 1}


def test_bond_of_a_bid_that_burned_is_taken_back(real: Market) -> None:
    take(real, seal(height=real.view(chain.height)), owner="buyer")
    committed = real.view(Seen)
    assert committed.wallets["buyer"]["bonds"] == {"ct": 1}
    real.advance(1)
    real.update(lambda txn: chain.advance(txn, 10_000))
    real.update(lambda txn: None)
    assert real.view(Seen).wallets["buyer"]["bonds"] == {"ct": 0}
    told = wallet_at(real, "buyer", committed.at_ms)
    assert told == committed.wallets["buyer"] | {"at_ms": committed.at_ms}


def test_statement_by_job_shows_what_was_earned_and_what_was_lost(real: Market) -> None:
    real.post(units=9, price_per_unit=4, provider_bond=5)
    real.submit("good", lengths=(1, 1))
    real.prove("good", 0, 1)
    real.submit("bad", deadline_secs=61)
    real.advance(62)
    real.update(lambda txn: None)
    assert real.job("bad").state == "failed"
    _, lines, _ = statement(real, "prov", None, None, "job")
    good, bad = (line for line in lines if line["job_id"] is not None)
    assert (good["job_id"], good["event"], good["ct"]) == ("good", None, 8)
    assert (good["received_ct"], good["spent_ct"]) == (13, 5)
    assert (bad["job_id"], bad["event"], bad["ct"]) == ("bad", None, -5)
    assert (bad["received_ct"], bad["spent_ct"]) == (0, 5)
    assert {line["event"] for line in lines} == {None, "deposit", "subsidy"}


def test_span_that_postings_were_archived_from_has_to_be_asked_for_again(real: Market) -> None:
    real.post(units=9, price_per_unit=4)
    real.submit("done")
    real.prove("done")
    within = real.view(past.span)
    real.advance(1)
    archive(real)
    for page in (past.of_wallet, past.of_wallet_back):
        with pytest.raises(BusyError, match="archived meanwhile"):
            real.view(lambda txn, page=page: page(txn, within, "buyer", 0, 9))


def test_job_whose_log_was_trimmed_is_not_guessed(market: Market) -> None:
    market.post()
    market.submit("early", lengths=(1, 1))
    market.advance(1000)
    market.prove("early", 0)
    market.configure(log_retention_secs=500)
    market.update(lambda txn: None)
    market.opened.tick()
    reaches_ms = market.events()[0].at_ms
    assert reaches_ms > START_MS
    with pytest.raises(NotFoundError) as said:
        job_at(market, "early", reaches_ms - 1)
    assert said.value.reason == "log_trimmed"
    assert said.value.details == {"known_from_ms": reaches_ms}
    told = job_at(market, "early", reaches_ms)
    assert (told["state"], told["slices_proven"]) == ("active", 1)


def test_wallets_come_by_name_whatever_is_in_them(market: Market) -> None:
    for owner in ("b", "a", "ab", "a.b", "a:b", "_a", "Z"):
        market.deposit(owner, ct=1)
    market.update(lambda txn: ledger.tap(txn, "withdraw", "ab", {"CT": 1, "IT": 0}, None))
    names = sorted(("b", "a", "ab", "a.b", "a:b", "_a", "Z"))
    assert market.view(lambda txn: list(wallets.names(txn))) == names
    for size in (1, 2, 7, 8):
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page, after = market.view(partial(wallets.page, after=after, limit=size))
            found += [each["owner"] for each in page]
        assert found == names
    market.advance(1)
    archive(market)
    # Nothing is left of one who had paid all out.
    assert market.view(lambda txn: list(wallets.names(txn))) == [n for n in names if n != "ab"]
    assert market.view(lambda txn: [wallets.is_known(txn, n) for n in ("a", "ab", "c")]) == [
        True,
        False,
        False,
    ]


def test_wallets_of_a_busy_market_hold_all_that_is_in_circulation(real: Market) -> None:
    live(real, Random(1), 60)
    for token in ledger.TOKENS:
        name = token.lower()
        found, _ = real.view(lambda txn: wallets.page(txn, "", 100))
        free = sum(each[name] for each in found)
        held = sum(each["escrow"][name] for each in found)
        bonds = sum(each["bonds"]["ct"] for each in found) if token == "CT" else 0
        burned = real.balance(ledger.BURNED, token)
        total = real.view(partial(ledger.in_circulation, token=token))
        assert free + held + bonds + burned == total
    assert real.balance(ledger.BURNED) > 0
