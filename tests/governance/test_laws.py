"""The laws of proposals, each broken by hand: the audit names it."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market.governance import governance, laws
from compute_market.governance_records import Parameter
from compute_market.store.schema import (
    PARAMETERS,
    PARAMETERS_DUE,
    PARAMETERS_SET,
    PROPOSALS,
    pack_u64,
)
from compute_market.store.txn import Txn
from tests.support.laws import Case, check_named, edit, laws_in
from tests.support.market import Market

NUMBERED = "proposals are numbered from 1 on, without gaps"
ALLOWED = "a proposal is for a parameter, and within its bounds"
APPROVED = "a proposal has an approval and a height once it is approved, and not before"
DUE = "every approved proposal waits for its height, and no other"
STACKED = "active proposals lie one upon the other in the order they came into force"
IN_FORCE = "a parameter has the value of its last active proposal"
COUNTED = "it is known how many parameters proposals set, or are to set"


def change(number: int, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, PROPOSALS, pack_u64(number), **changes)


def drop(number: int) -> Callable[[Txn], object]:
    return lambda txn: txn.delete(PROPOSALS, pack_u64(number))


def number(name: str, to: int) -> Callable[[Txn], None]:
    return lambda txn: txn.set_number(name, to)


def drop_due(txn: Txn) -> None:
    txn.delete(PARAMETERS_DUE, next(key for key, _ in txn.scan(PARAMETERS_DUE)))


def set_parameter(key: str, value: int, proposal: int) -> Callable[[Txn], None]:
    return lambda txn: txn.write(PARAMETERS, key.encode(), Parameter(value, proposal))


# The numbers are those of `support.governance.govern`.
CASES = (
    Case(NUMBERED, "proposals", "2", drop(1)),
    Case(NUMBERED, "proposals", "2", change(2, id=1)),
    Case(NUMBERED, "proposals", "*", drop(7)),
    Case(NUMBERED, "proposals", "*", number(governance.PROPOSALS_MADE, 6)),
    Case(ALLOWED, "proposals", "1", change(1, value=10_001)),
    Case(ALLOWED, "proposals", "7", change(7, value=9_999)),
    Case(ALLOWED, "proposals", "7", change(7, key="slots")),
    Case(APPROVED, "proposals", "7", change(7, state="approved")),
    Case(APPROVED, "proposals", "7", change(7, approval=9)),
    Case(APPROVED, "proposals", "7", change(7, activates_at=9)),
    Case(APPROVED, "proposals", "4", change(4, approval=0)),
    Case(DUE, "parameters_due", "5", drop_due),
    Case(DUE, "parameters_due", "6", change(6, activates_at=10**6)),
    Case(DUE, "parameters_due", "*", lambda txn: txn.put(PARAMETERS_DUE, bytes(16), pack_u64(1))),
    Case(DUE, "parameters_due", "*", change(5, state="rolled_back")),
    Case(COUNTED, "meta", PARAMETERS_SET, number(PARAMETERS_SET, 0)),
    Case(STACKED, "proposals", "3", change(3, before=0)),
    Case(STACKED, "proposals", "3", change(3, below=1)),
    Case(STACKED, "proposals", "3", change(2, state="rolled_back")),
    Case(STACKED, "meta", governance.LAST_ACTIVE, number(governance.LAST_ACTIVE, 2)),
    Case(IN_FORCE, "parameters", "min_capacity", set_parameter("min_capacity", 8, 1)),
    Case(IN_FORCE, "parameters", "burst_refill_rate", set_parameter("burst_refill_rate", 1, 2)),
    Case(IN_FORCE, "parameters", "fair_share_cap", set_parameter("fair_share_cap", 1_000_000, 7)),
    Case(
        IN_FORCE, "parameters", "min_capacity", lambda txn: txn.delete(PARAMETERS, b"min_capacity")
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_of_proposals_has_a_case() -> None:
    assert laws_in(laws) == {case.law for case in CASES}
