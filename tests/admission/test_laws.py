"""The laws of usage: each one, broken by hand, is named by the audit."""

import pytest

from compute_market.admission import laws
from compute_market.store.schema import USAGE, USAGE_RECENT, pack_u64
from compute_market.store.txn import Txn
from tests.support.laws import Case, check_named, edit, laws_in
from tests.support.market import Market

BUYER = b"buyer\0buyer"


def drop(txn: Txn) -> None:
    txn.delete(USAGE_RECENT, pack_u64(txn.must_read(USAGE, BUYER).at_ms) + BUYER)


CASES = (
    *(
        Case(
            "usage and bursts are not negative",
            "usage",
            repr(BUYER),
            lambda txn, field=field: edit(txn, USAGE, BUYER, **{field: -1}),
        )
        for field in ("used_micro", "burst_micro")
    ),
    Case("every party is found by its last charge", "usage_recent", repr(BUYER), drop),
    Case(
        "every party is found by its last charge",
        "usage_recent",
        "*",
        lambda txn: txn.put(USAGE_RECENT, bytes(8) + b"buyer\0nobody"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
