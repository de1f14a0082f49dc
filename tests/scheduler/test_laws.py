"""The law of the outcomes of matches, broken by hand, is named by the audit."""

import pytest

from compute_market.scheduler import laws
from compute_market.store.schema import EFFECTIVE_PRICES, EFFECTIVE_PRICES_RECENT
from compute_market.store.txn import Txn
from tests.support.laws import Case, check_named, laws_in
from tests.support.market import Market

LAW = "every price is found by its last match"


def drop(txn: Txn) -> None:
    price = txn.get(EFFECTIVE_PRICES, b"prov") or b""
    txn.delete(EFFECTIVE_PRICES_RECENT, price[:8] + b"prov")


CASES = (
    Case(LAW, "effective_prices_recent", "prov", drop),
    Case(
        LAW,
        "effective_prices_recent",
        "*",
        lambda txn: txn.put(EFFECTIVE_PRICES_RECENT, bytes(8) + b"nobody"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
