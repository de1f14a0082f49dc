"""The laws of deliveries, each broken by hand: the audit names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute_market.courier import delivery_laws
from compute_market.courier.deliveries import key_of
from compute_market.store.schema import DELIVERIES
from compute_market.store.txn import Txn
from tests.support.deliveries import bring, entry, handoff
from tests.support.importing import THEIRS, trust
from tests.support.laws import Case, check_named, edit, laws_in
from tests.support.market import Market
from tests.support.receipt_file import KEY

ONE, TWO = key_of(THEIRS, 1), key_of(THEIRS, 2)

PLACE = "a delivery has the key of its market and its id there"
SIGNED = "a delivery names a bundle, and who has signed for it"
HANDOFF = "a handoff names a job, and no other delivery does"


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Market:
    market = Market(Path(tmp_path_factory.mktemp("brought")))
    trust(market, KEY)
    bring(market, entry(1), handoff(2))
    assert market.violations() == []
    return market


def change(key: bytes, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, DELIVERIES, key, **changes)


CASES = (
    Case(PLACE, "deliveries", ONE.hex(), change(ONE, receipt_id=3)),
    Case(PLACE, "deliveries", ONE.hex(), change(ONE, market_id=bytes(16))),
    Case(SIGNED, "deliveries", ONE.hex(), change(ONE, bundle_hash=b"")),
    Case(SIGNED, "deliveries", ONE.hex(), change(ONE, key_id=b"")),
    Case(SIGNED, "deliveries", ONE.hex(), change(ONE, size=-1)),
    Case(HANDOFF, "deliveries", ONE.hex(), change(ONE, job_id="job")),
    Case(HANDOFF, "deliveries", TWO.hex(), change(TWO, job_id=None)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(brought: Market, case: Case) -> None:
    check_named(brought, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(delivery_laws)
