"""The laws of the subsidy, each broken by hand: the audit names it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from compute_market.store.schema import (
    EPOCH_FROM,
    EPOCH_UNITS,
    EPOCHS,
    MULTIPLIER,
    pack_u64,
)
from compute_market.store.txn import Txn
from compute_market.subsidy import laws
from tests.support.laws import Case, check_named, edit, laws_in, posting_seq, repost, set_sum
from tests.support.market import Market

FOLLOW = "epochs follow each other, and end where those of their length do"
RETUNED = "the multiplier is what the samples make of it, and of the one before"
EARNED = "a payout is what its units earn at the multiplier"
PAID = "what an epoch pays is posted once, and nothing else is"
UNITS = "every proven unit is that of one epoch"


def change(from_height: int, /, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, EPOCHS, pack_u64(from_height), **changes)


def drop(from_height: int) -> Callable[[Txn], Any]:
    return lambda txn: txn.delete(EPOCHS, pack_u64(from_height))


CASES = (
    Case(FOLLOW, "epochs", "0", change(0, to_height=70)),
    Case(FOLLOW, "epochs", "60", change(0, to_height=119)),
    Case(FOLLOW, "epochs", "7", change(0, from_height=7)),
    Case(FOLLOW, "epochs", "120", drop(60)),
    Case(FOLLOW, "epochs", "*", lambda txn: txn.set_number(EPOCH_FROM, 120)),
    Case(FOLLOW, "epochs", "*", lambda txn: txn.set_number(MULTIPLIER, 116)),
    Case(RETUNED, "epochs", "0", change(0, multiplier=114)),
    Case(RETUNED, "epochs", "0", change(0, backlog=0)),
    Case(RETUNED, "epochs", "180", change(180, backlog=1)),
    Case(RETUNED, "epochs", "120", change(120, to_height=239)),
    Case(EARNED, "epochs", "0", change(0, compute_it=2)),
    Case(EARNED, "epochs", "60", change(60, units=1, kappa_ppm=1_000_000)),
    Case(EARNED, "epochs", "60", change(60, unpaid="mode")),
    Case(PAID, "epochs", "0", repost("subsidy", "0", amount=2)),
    Case(PAID, "epochs", "0", repost("subsidy", "0", ref="60")),
    Case(PAID, "epochs", "9", repost("subsidy", "0", ref="9")),
    Case(PAID, "epochs", "0", change(0, unpaid="overflow")),
    Case(PAID, "postings", posting_seq("subsidy", "0"), repost("subsidy", "0", token="CT")),
    Case(UNITS, "epoch_units", "*", lambda txn: set_sum(txn, EPOCH_UNITS, b"prov", 4)),
    Case(UNITS, "epoch_units", "*", change(0, units=2)),
)


@pytest.fixture(scope="module")
def paying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with an epoch that was paid, some without work, of which the last two ended alike,
    and work in the running one."""
    market = Market(tmp_path_factory.mktemp("paying") / "market")
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=10)
    market.post()
    market.submit(lengths=(1, 1))
    market.prove()
    market.advance(125)
    market.cancel()
    market.advance(180)
    market.submit("last")
    market.prove("last")
    found = market.view(lambda txn: [e.from_height for e in txn.records(EPOCHS)])
    assert found == [0, 60, 120, 180]
    assert market.violations() == []
    yield market
    market.store.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(paying: Market, case: Case) -> None:
    check_named(paying, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
