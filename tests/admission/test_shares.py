"""Fair share and burst: what each party has used, what its bucket holds, and who is shown."""

import pytest

from compute_market.admission import shares
from compute_market.records import Refused, Usage
from compute_market.store.schema import USAGE_RECENT
from tests.admission.support import MICRO, burst_left, enter, reason, usage, used
from tests.support.market import Market


def test_admit_keeps_the_roles_of_one_identity_apart(market: Market) -> None:
    for _ in range(15):
        enter(market, 100, buyer="anna", provider="prov")
    assert reason(enter(market, 100, buyer="anna", provider="other")) == "fair_share"
    assert reason(enter(market, 100, buyer="buyer", provider="anna")) == "admitted"
    assert usage(market, "buyer", "anna").used_micro == 1500 * MICRO
    assert usage(market, "provider", "anna").used_micro == 100 * MICRO


def test_admit_within_the_share_leaves_the_buckets_full(market: Market) -> None:
    enter(market, 100)
    assert burst_left(market, "buyer", "buyer") == 30 * MICRO
    assert burst_left(market, "provider", "prov") == 30 * MICRO


def test_admit_by_burst_charges_both_buckets_and_both_usages(market: Market) -> None:
    for _ in range(15):
        enter(market, 100, provider="busy")
    assert reason(enter(market, 10, buyer="fresh", provider="busy")) == "admitted"
    assert usage(market, "buyer", "fresh") == Usage(10 * MICRO, 20 * MICRO, market.now_ms)
    assert usage(market, "provider", "busy") == Usage(1510 * MICRO, 20 * MICRO, market.now_ms)


def test_admit_by_burst_needs_both_buckets(market: Market) -> None:
    for _ in range(15):
        enter(market, 100, provider="busy")
    enter(market, 30, buyer="buyer", provider="busy")
    verdict = enter(market, 1, buyer="fresh", provider="busy")
    assert reason(verdict) == "burst_exhausted"
    assert isinstance(verdict, Refused)
    assert "burst bucket of provider busy holds 0" in verdict.message


def test_bucket_refills_half_a_unit_a_second_up_to_the_quota(market: Market) -> None:
    for demand in [100] * 15 + [30]:
        enter(market, demand)
    assert burst_left(market, "buyer", "buyer") == 0
    market.advance(0.001)
    assert burst_left(market, "buyer", "buyer") == 500
    market.advance(59.998)
    assert burst_left(market, "buyer", "buyer") == 30 * MICRO - 500
    market.advance(3600)
    assert burst_left(market, "buyer", "buyer") == 30 * MICRO


def test_clock_set_back_counts_as_no_time(market: Market) -> None:
    for demand in [100] * 15 + [30]:
        enter(market, demand)
    market.advance(-3600)
    assert burst_left(market, "buyer", "buyer") == 0
    assert reason(enter(market, 100)) == "fair_share"
    assert reason(enter(market, 1)) == "burst_exhausted"


def test_usage_decays_in_a_line_and_is_written_by_nobody_who_looks(market: Market) -> None:
    enter(market, 60)
    written = usage(market, "buyer", "buyer")
    for seconds, left in [(0, 60), (1, 59), (29, 30), (29.999, 0.001), (0.001, 0), (3600, 0)]:
        market.advance(seconds)
        assert used(market, "buyer", "buyer") == round(left * MICRO)
    assert usage(market, "buyer", "buyer") == written


def test_charge_starts_from_what_is_left(market: Market) -> None:
    enter(market, 60)
    market.advance(20)
    enter(market, 60)
    assert usage(market, "buyer", "buyer") == Usage(100 * MICRO, 30 * MICRO, market.now_ms)


@pytest.mark.parametrize("later", [0, 1, -1])
def test_recent_lists_every_party_once_the_last_charged_first(market: Market, later: int) -> None:
    enter(market, 1, buyer="anna", provider="prov")
    market.advance(later)
    enter(market, 2, buyer="ben", provider="prov")
    found = market.view(lambda txn: [shares.document(txn, p) for p in shares.recent(txn)])
    by_party = {(p["role"], p["identity"]): p["burst_left"] for p in found}
    assert by_party == {("buyer", "anna"): 30, ("buyer", "ben"): 30, ("provider", "prov"): 30}
    assert len(found) == 3
    if later > 0:
        assert found[-1]["identity"] == "anna"
    assert market.view(lambda txn: txn.size(USAGE_RECENT)) == 3


def test_recent_leaves_out_the_market_itself(market: Market) -> None:
    enter(market, 1, buyer="market", provider="")
    roles = market.view(lambda txn: [(p.role, p.identity) for p in shares.recent(txn)])
    assert sorted(roles) == [("buyer", "market"), ("provider", "")]
