"""Accounts and postings: every movement is one posting, and nothing is ever lost or overdrawn."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import ConflictError, IntegrityError, InternalError, RefusedError
from compute_market.keyed_records import Tap
from compute_market.records import Posting, Token
from compute_market.settlement import ledger
from compute_market.settlement.ledger import BURNED, SUPPLY, bond, escrow, wallet
from compute_market.store.schema import ACCOUNTS, POSTINGS, TAPS
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.market import START_MS, Market


def tap(txn: Txn, event: Any = "deposit", owner: str = "ann", **fields: Any) -> bool:
    amounts: dict[Token, int] = {"CT": fields.get("ct", 0), "IT": fields.get("it", 0)}
    return ledger.tap(txn, event, owner, amounts, fields.get("key"))


def accounts(txn: Txn) -> dict[tuple[str, str], int]:
    return {
        (account, token): amount
        for token in ledger.TOKENS
        for account, amount in ledger.balances(txn, token).items()
    }


# Transfers.


def test_transfer_is_one_posting(market: Market) -> None:
    market.deposit("ann", ct=10)
    market.advance(7.5)
    market.update(lambda txn: ledger.transfer(txn, "CT", 4, wallet("ann"), SUPPLY, "withdraw", ""))
    assert market.balance(wallet("ann")) == 6
    assert market.balance(SUPPLY) == -6
    assert market.view(lambda txn: list(txn.records(POSTINGS))) == [
        Posting(1, START_MS, "CT", 10, SUPPLY, wallet("ann"), "deposit", ""),
        Posting(2, START_MS + 7_500, "CT", 4, wallet("ann"), SUPPLY, "withdraw", ""),
    ]


def test_transfer_of_nothing_is_no_posting(market: Market) -> None:
    market.update(lambda txn: ledger.transfer(txn, "CT", 0, wallet("a"), wallet("b"), "gift", ""))
    assert market.view(lambda txn: txn.size(POSTINGS)) == 0


@pytest.mark.parametrize(("amount", "credit"), [(-1, "bob"), (1, "ann")])
def test_transfer_backwards_or_in_a_circle_is_a_bug(
    market: Market, amount: int, credit: str
) -> None:
    market.deposit("ann", ct=10)
    market.deposit("bob", ct=10)
    with pytest.raises(InternalError, match=f"transfer of {amount} CT from wallet/ann"):
        market.update(
            lambda txn: ledger.transfer(txn, "CT", amount, wallet("ann"), wallet(credit), "x", "")
        )


def test_transfer_of_more_than_there_is_writes_nothing(market: Market) -> None:
    market.deposit("ann", ct=10, it=99)

    def action(txn: Txn) -> int:
        before = txn.writes
        with pytest.raises(RefusedError) as caught:
            ledger.transfer(txn, "CT", 11, wallet("ann"), wallet("bob"), "gift", "")
        assert caught.value.message == "wallet of ann has 10 CT, 11 CT are needed"
        assert caught.value.hint == "tb-cli wallet deposit ann --ct 1"
        assert caught.value.reason == "insufficient_funds"
        assert caught.value.details == {
            "owner": "ann",
            "token": "CT",
            "needed": 11,
            "available": 10,
        }
        return txn.writes - before

    assert market.update(action) == 0


def test_transfer_from_an_empty_wallet_is_refused(market: Market) -> None:
    ends = wallet("nobody"), wallet("bob")
    with pytest.raises(RefusedError, match="has 0 IT, 1 IT are needed") as caught:
        market.update(lambda txn: ledger.transfer(txn, "IT", 1, *ends, "x", ""))
    assert caught.value.reason == "insufficient_funds"


@pytest.mark.parametrize("account", [escrow("j"), bond("j", "buyer"), BURNED])
def test_transfer_of_what_should_be_held_and_is_not_is_damage(market: Market, account: str) -> None:
    with pytest.raises(IntegrityError, match=r"table accounts, .*it holds 0 IT"):
        market.update(lambda txn: ledger.transfer(txn, "IT", 1, account, wallet("bob"), "x", ""))


def test_transfer_beyond_the_largest_amount_writes_nothing(market: Market) -> None:
    """Only the supply could do it: what is in circulation never exceeds the largest amount."""
    market.deposit("ann", ct=AMOUNT_MAX)

    def action(txn: Txn) -> int:
        before = txn.writes
        with pytest.raises(RefusedError) as caught:
            ledger.transfer(txn, "CT", 1, SUPPLY, wallet("bob"), "x", "")
        assert caught.value.reason == "overflow"
        return txn.writes - before

    assert market.update(action) == 0
    assert market.balance(SUPPLY) == -AMOUNT_MAX


def test_balances_leave_out_empty_accounts(market: Market) -> None:
    market.deposit("ann", ct=5, it=3)
    market.deposit("bob", it=2)

    def action(txn: Txn) -> None:
        ledger.transfer(txn, "IT", 3, wallet("ann"), SUPPLY, "withdraw", "")

    market.update(action)
    assert market.view(accounts) == {
        (wallet("ann"), "CT"): 5,
        (SUPPLY, "CT"): -5,
        (wallet("bob"), "IT"): 2,
        (SUPPLY, "IT"): -2,
    }
    assert market.view(lambda txn: txn.size(ACCOUNTS.table)) == 4


OWNERS = ("a", "ab", "b")
NAMES = (*map(wallet, OWNERS), escrow("a"), bond("a", "provider"), BURNED, SUPPLY)
MOVES = st.tuples(
    st.sampled_from(ledger.TOKENS),
    st.integers(0, 9) | st.sampled_from([AMOUNT_MAX - 1, AMOUNT_MAX]),
    st.sampled_from((SUPPLY, *NAMES)),
    st.sampled_from(NAMES),
)


@settings(
    max_examples=effort(36, 1000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(MOVES, max_size=25))
def test_balances_equal_the_postings_whatever_is_tried(
    market: Market, moves: list[tuple[Token, int, str, str]]
) -> None:
    def action(txn: Txn) -> None:
        model: Counter[tuple[str, str]] = Counter()
        made = 0
        for token, amount, debit, credit in moves:
            if debit == credit:
                continue
            fits = (
                (debit == SUPPLY or model[debit, token] >= amount)
                and model[credit, token] + amount <= AMOUNT_MAX
                and model[debit, token] - amount >= -AMOUNT_MAX
            )
            try:
                ledger.transfer(txn, token, amount, debit, credit, "x", "")
                refused = False
            except (RefusedError, IntegrityError):
                refused = True
            assert refused == (not fits and amount > 0)
            if not refused:
                made += amount > 0
                model[debit, token] -= amount
                model[credit, token] += amount
        assert accounts(txn) == {key: amount for key, amount in model.items() if amount}
        assert all(amount >= 0 for (name, _), amount in model.items() if name != SUPPLY)
        postings = list(txn.records(POSTINGS))
        assert [posting.seq for posting in postings] == list(range(1, made + 1))
        for token in ledger.TOKENS:
            assert sum(ledger.balances(txn, token).values()) == 0
        for owner in OWNERS:
            touching = [p for p in postings if wallet(owner) in (p.debit, p.credit)]
            assert ledger.history(txn, owner, 0, 1000) == touching

    market.update(action, dry_run=True)


def test_history_comes_in_pages(market: Market) -> None:
    for amount in (1, 2, 3, 4):
        market.deposit("ann", ct=amount)
        market.deposit("ann2", ct=9)

    def amounts(after: int, limit: int) -> list[int]:
        page = market.view(lambda txn: ledger.history(txn, "ann", after, limit))
        return [posting.amount for posting in page]

    assert amounts(0, 10) == [1, 2, 3, 4]
    assert amounts(0, 2) == [1, 2]
    assert amounts(3, 10) == [3, 4]  # The posting with sequence number 3 is the second one.
    assert amounts(99, 10) == []


# The operator's tap.


def test_tap_moves_between_supply_and_wallet(market: Market) -> None:
    assert market.update(lambda txn: tap(txn, ct=10, it=20))
    assert market.update(lambda txn: tap(txn, "withdraw", ct=4, it=20))
    assert market.view(accounts) == {(wallet("ann"), "CT"): 6, (SUPPLY, "CT"): -6}
    events = market.view(lambda txn: [p.event for p in txn.records(POSTINGS)])
    assert events == ["deposit", "deposit", "withdraw", "withdraw"]


def test_tap_without_a_key_moves_every_time(market: Market) -> None:
    assert [market.update(lambda txn: tap(txn, ct=1)) for _ in range(3)] == [True] * 3
    assert market.balance(wallet("ann")) == 3


def test_tap_with_the_same_key_moves_once(market: Market) -> None:
    results = [market.update(lambda txn: tap(txn, ct=5, it=1, key="k")) for _ in range(2)]
    assert results == [True, False]
    assert market.balance(wallet("ann")) == 5
    refs = market.view(lambda txn: [p.ref for p in txn.records(POSTINGS)])
    assert refs == ["k", "k"]


def test_tap_remembers_when_it_was(market: Market) -> None:
    market.advance(0.5)
    market.update(lambda txn: ledger.tap(txn, "deposit", "ann", {"CT": 5, "IT": 1}, "k"))
    found = market.view(lambda txn: txn.read(TAPS, b"k"))
    assert found == Tap("k", "deposit", "ann", 5, 1, START_MS + 500)


def test_tap_of_nothing_uses_its_key(market: Market) -> None:
    assert market.update(lambda txn: tap(txn, key="k"))
    assert not market.update(lambda txn: tap(txn, key="k"))
    with pytest.raises(ConflictError, match="ct 0, not 1"):
        market.update(lambda txn: tap(txn, ct=1, key="k"))


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"event": "withdraw"}, "event", "event deposit, not withdraw"),
        ({"owner": "bob"}, "owner", "owner ann, not bob"),
        ({"ct": 6}, "ct", "ct 5, not 6"),
        ({"it": 0}, "it", "it 1, not 0"),
    ],
)
def test_tap_with_a_used_key_and_other_content_is_a_conflict(
    market: Market, change: dict[str, Any], field: str, words: str
) -> None:
    asked = {"event": "deposit", "owner": "ann", "ct": 5, "it": 1, "key": "k"}
    market.update(lambda txn: tap(txn, **asked))
    with pytest.raises(ConflictError) as caught:
        market.update(lambda txn: tap(txn, **(asked | change)))
    assert caught.value.message == f"an action with key k exists with {words}"
    assert caught.value.details == {"field": field}
    assert market.view(lambda txn: txn.size(POSTINGS)) == 2


@pytest.mark.parametrize(
    ("event", "ct", "it", "reason"),
    [
        ("withdraw", 5, 6, "insufficient_funds"),
        ("withdraw", 6, 5, "insufficient_funds"),
        ("deposit", 1, AMOUNT_MAX - 4, "overflow"),
        ("deposit", AMOUNT_MAX - 4, 1, "overflow"),
        ("deposit", 1, AMOUNT_MAX + 1, "overflow"),
        ("deposit", -1, 1, "overflow"),
        ("withdraw", 1, -1, "overflow"),
    ],
)
def test_tap_that_is_refused_moves_no_token_and_uses_no_key(
    market: Market, event: str, ct: int, it: int, reason: str
) -> None:
    market.deposit("ann", ct=5, it=5)

    def action(txn: Txn) -> int:
        before = txn.writes
        with pytest.raises(RefusedError) as caught:
            tap(txn, event, ct=ct, it=it, key="k")
        assert caught.value.reason == reason
        return txn.writes - before

    assert market.update(action) == 0
    assert market.update(lambda txn: tap(txn, ct=1, it=1, key="k"))


def test_tap_fills_the_circulation_to_the_last_token(market: Market) -> None:
    market.deposit("ann", ct=AMOUNT_MAX - 1)
    market.deposit("bob", ct=1)
    with pytest.raises(RefusedError, match=f"more than {AMOUNT_MAX} CT into circulation"):
        market.deposit("bob", ct=1)
    market.update(lambda txn: tap(txn, "withdraw", ct=AMOUNT_MAX - 1))
    market.deposit("bob", ct=AMOUNT_MAX - 1)
    assert market.balance(wallet("bob")) == AMOUNT_MAX
