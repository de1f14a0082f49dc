"""Admission: the order of its checks, what each verdict charges and counts, how long "no" lasts."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compute_market import metrics
from compute_market.admission import admission
from compute_market.admission.admission import Admitted
from compute_market.amounts import UNIT_BYTES
from compute_market.config.settings import DEFAULTS, Config
from compute_market.records import Refused, Usage, replace
from compute_market.store.schema import META, USAGE, USAGE_RECENT
from compute_market.store.txn import Txn
from tests.admission.support import MICRO, burst_left, enter, key_of, reason, usage
from tests.support.effort import effort
from tests.support.market import Market

MINUTE_MS = 60_000
AGES_MS = 10**12  # longer than any decay or refill takes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A store for tests that only look: whatever they write is rolled back."""
    found = Market(tmp_path_factory.mktemp("admission") / "market")
    yield found
    found.store.close()


def usage_tables(market: Market) -> list[tuple[bytes, bytes]]:
    return market.view(lambda txn: [*txn.scan(USAGE), *txn.scan(USAGE_RECENT)])


# The fixed points: estimate 100, a clock that stands still.


def test_submit_meets_the_fixed_points_of_fair_share_and_burst(market: Market) -> None:
    market.post(units=10_000)

    def submit(job_id: str, units: int) -> str:
        found = market.submit(job_id, lengths=(units * UNIT_BYTES,))
        return reason(found)

    assert [submit(f"j{n}", 100) for n in range(15)] == ["admitted"] * 15
    assert submit("j15", 100) == "fair_share"
    assert submit("j16", 1) == "admitted"
    assert burst_left(market, "buyer", "buyer") == 29 * MICRO
    assert burst_left(market, "provider", "prov") == 29 * MICRO
    assert submit("j17", 29) == "admitted"
    assert burst_left(market, "buyer", "buyer") == 0
    assert submit("j18", 1) == "burst_exhausted"


def test_admit_after_half_a_minute_sees_half_the_usage(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    market.advance(30)
    enter(market, 1)
    assert usage(market, "buyer", "buyer").used_micro == 751 * MICRO
    assert usage(market, "provider", "prov").used_micro == 751 * MICRO


def test_admit_after_a_minute_sees_no_usage(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    market.advance(60)
    enter(market, 1)
    assert usage(market, "buyer", "buyer").used_micro == 1 * MICRO


# One row per reason and per bound. At an estimate of 100 a share is 1500 units a minute, and the
# market does 6000.


class Row(NamedTuple):
    name: str
    expected: str
    demand: int
    capacity: int = 100
    used_micro: int = 0
    burst_micro: int = 30 * MICRO
    market_micro: int = 0


ROWS = (
    Row("estimate at the minimum", "admitted", 1, capacity=10),
    Row("estimate below the minimum", "capacity", 1, capacity=9),
    Row("demand above the estimate", "admitted", 101),
    Row("demand equal to the headroom", "admitted", 100, market_micro=5900 * MICRO),
    Row("demand above the headroom", "capacity", 100, market_micro=5900 * MICRO + 1),
    Row("no headroom", "capacity", 1, market_micro=6000 * MICRO),
    Row("less than no headroom", "capacity", 1, market_micro=9000 * MICRO),
    Row("demand above what the market does", "capacity", 6001),
    Row("demand equal to what the market does", "fair_share", 6000),
    Row("share exactly the cap", "admitted", 100, used_micro=1400 * MICRO, burst_micro=0),
    Row("share above the cap", "fair_share", 100, used_micro=1400 * MICRO + 1),
    Row("bucket exactly the demand", "admitted", 30, used_micro=1500 * MICRO),
    Row("demand above any bucket", "fair_share", 31, used_micro=1500 * MICRO),
    Row(
        "bucket below the demand",
        "burst_exhausted",
        30,
        used_micro=1500 * MICRO,
        burst_micro=30 * MICRO - 1,
    ),
    Row(
        "demand above the headroom and the share",
        "capacity",
        101,
        used_micro=1500 * MICRO,
        market_micro=5900 * MICRO,
    ),
    Row(
        "demand above the headroom that a bucket could pay",
        "capacity",
        2,
        used_micro=1500 * MICRO,
        market_micro=5999 * MICRO,
    ),
)


def judged(market: Market, row: Row, role: str) -> str:
    """The verdict when one party has the row's usage and the other one none."""

    def action(txn: Txn) -> Admitted | Refused:
        txn.put(META, b"capacity_samples", row.capacity.to_bytes(8, "big"))
        identity = {"buyer": "b", "provider": "p"}[role]
        txn.write(USAGE, key_of(role, identity), Usage(row.used_micro, row.burst_micro, txn.now_ms))
        txn.write(USAGE, key_of("market", ""), Usage(row.market_micro, 0, txn.now_ms))
        return admission.admit(txn, "b", "p", row.demand)

    return reason(market.store.update(action, now_ms=market.now_ms, dry_run=True))


@pytest.mark.parametrize("role", ["buyer", "provider"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_admit_decides_as_the_table_says(shared: Market, row: Row, role: str) -> None:
    assert judged(shared, row, role) == row.expected


def test_table_has_a_row_for_every_reason() -> None:
    ((_, reasons),) = metrics.BY_NAME["industrial_rejected_total"].labels
    # The comfort guard decides before there is a match to be admitted.
    assert {row.expected for row in ROWS} == {"admitted", *reasons} - {"SLA", "comfort_guard"}


# Whose clock is touched, and what is charged.


def test_refuse_touches_nobodys_clock(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    before = usage_tables(market)
    market.advance(1)
    assert reason(enter(market, 100)) == "fair_share"
    assert reason(enter(market, 4526)) == "capacity"  # 4525 are left.
    assert usage_tables(market) == before


def test_refuse_does_not_postpone_the_time_it_would_pass(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    for _ in range(4):  # 1500 × 56/60 = 1400, and 100 more are the cap.
        assert reason(enter(market, 100)) == "fair_share"
        market.advance(1)
    assert reason(enter(market, 100)) == "admitted"


def test_refuse_by_capacity_counts_as_rejected_and_deferred(market: Market) -> None:
    market.post(units=10_000)
    market.submit(lengths=(6001 * UNIT_BYTES,))
    assert market.counter("industrial_rejected_total", "capacity") == 1
    assert market.counter("industrial_deferred_total") == 1
    assert market.counter("industrial_admitted_total") == 0


def test_refuse_by_fair_share_counts_as_rejected_only(market: Market) -> None:
    market.configure(fair_share_cap_ppm=10_000)
    market.post()
    market.submit(lengths=(61 * UNIT_BYTES,))
    assert market.counter("industrial_rejected_total", "fair_share") == 1
    assert market.counter("industrial_deferred_total") == 0


def test_admit_charges_both_parties_and_the_market(market: Market) -> None:
    enter(market, 100, buyer="anna", provider="prov")
    enter(market, 10, buyer="ben", provider="prov")
    assert usage(market, "buyer", "anna").used_micro == 100 * MICRO
    assert usage(market, "buyer", "ben").used_micro == 10 * MICRO
    assert usage(market, "provider", "prov").used_micro == 110 * MICRO
    assert usage(market, "market", "").used_micro == 110 * MICRO


def test_submit_that_fails_after_admission_charges_nothing(real: Market) -> None:
    real.post(price_per_unit=1000, units=10_000)
    before = usage_tables(real)
    refused = real.submit(lengths=(20 * UNIT_BYTES,), max_price_per_unit=1000)
    assert reason(refused) == "insufficient_funds"
    assert usage_tables(real) == before == []
    assert real.counter("industrial_admitted_total") == 0


# How long a refused job would have to wait.


class Standing(NamedTuple):
    """What two parties have used, and how long ago."""

    config: Config
    capacity: int
    buyer: tuple[int, int, int]  # used, burst, milliseconds since
    provider: tuple[int, int, int]
    demand: int
    market: tuple[int, int, int] = (0, 0, 0)


def verdict_at(market: Market, standing: Standing, later_ms: int) -> Admitted | Refused:
    def action(txn: Txn) -> Admitted | Refused:
        txn.put(META, b"capacity_samples", standing.capacity.to_bytes(8, "big"))
        for key, party in (
            (key_of("buyer", "b"), standing.buyer),
            (key_of("provider", "p"), standing.provider),
            (key_of("market", ""), standing.market),
        ):
            used, burst, since_ms = party
            txn.write(USAGE, key, Usage(used, burst, market.now_ms - since_ms))
        return admission.admit(txn, "b", "p", standing.demand)

    now_ms = market.now_ms + later_ms
    return market.store.update(action, now_ms=now_ms, config=standing.config, dry_run=True)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    config = replace(
        DEFAULTS,
        fair_share_cap_ppm=draw(st.integers(10_000, MICRO)),
        burst_quota_micro=draw(st.integers(0, 50 * MICRO)),
        burst_refill_rate_micro=draw(st.integers(0, MICRO) | st.sampled_from((0, 1, MICRO))),
    )
    capacity = draw(st.integers(10, 200))
    share = config.fair_share_cap_ppm * capacity * 60

    def party() -> tuple[int, int, int]:
        used = draw(st.integers(0, 2 * share) | st.just(share) | st.just(2 * share))
        burst = draw(st.integers(0, config.burst_quota_micro) | st.just(0))
        return used, burst, draw(st.integers(0, MINUTE_MS + 2000) | st.just(0))

    window = capacity * 60
    demand = draw(st.integers(1, window + 1) | st.integers(1, 10))
    whole = draw(st.integers(0, 2 * window * MICRO) | st.just(0))
    since_ms = draw(st.integers(0, MINUTE_MS + 2000) | st.just(0))
    return Standing(config, capacity, party(), party(), demand, (whole, 0, since_ms))


def check_the_wait_is_exact(market: Market, standing: Standing) -> None:
    """After it the reason that was named holds no more, a millisecond before it does.

    A lack of capacity says nothing of the shares that come after it.
    """
    refused = verdict_at(market, standing, 0)
    assert isinstance(refused, Refused)
    wait_ms = refused.retry_after_ms
    if wait_ms is None:
        assert reason(verdict_at(market, standing, AGES_MS)) == refused.reason
        return
    assert wait_ms > 0
    assert isinstance(verdict_at(market, standing, wait_ms - 1), Refused)
    passed = verdict_at(market, standing, wait_ms)
    if refused.reason == "capacity":
        assert reason(verdict_at(market, standing, wait_ms - 1)) == "capacity"
        assert reason(passed) != "capacity"
    else:
        assert isinstance(passed, Admitted)


@settings(max_examples=effort(75, 4000), deadline=None)
@given(standing=standings())
def test_refuse_names_the_exact_wait(shared: Market, standing: Standing) -> None:
    assume(isinstance(verdict_at(shared, standing, 0), Refused))
    check_the_wait_is_exact(shared, standing)


def test_refuse_names_the_exact_wait_when_a_fraction_decides(shared: Market) -> None:
    # Nothing may be left of 30 000 millionths: half of one is left a millisecond before the end.
    config = replace(DEFAULTS, fair_share_cap_ppm=10_000, burst_quota_micro=0)
    party = (30_000, 0, 0)
    standing = Standing(config, 10, party, party, 6)
    check_the_wait_is_exact(shared, standing)
    assert verdict_at(shared, standing, 0).retry_after_ms == 59_999


def test_refuse_names_the_exact_wait_at_a_refill_rate_with_six_decimals(shared: Market) -> None:
    # 1.5 millionths a millisecond: half of one has come together before the question is asked.
    config = replace(DEFAULTS, burst_refill_rate_micro=1500)
    party = (1500 * MICRO, 30 * MICRO - 3, 1)
    check_the_wait_is_exact(shared, Standing(config, 100, party, party, 30))


@pytest.mark.parametrize("ahead_ms", [1, 10_000, 10 * 365 * 86_400_000])
def test_refuse_by_what_was_charged_in_the_future_waits_as_if_it_were_now(
    shared: Market, ahead_ms: int
) -> None:
    def wait_ms(since_ms: int) -> int | None:
        party = (1500 * MICRO, 0, since_ms)
        refused = verdict_at(shared, Standing(DEFAULTS, 100, party, party, 100), 0)
        assert isinstance(refused, Refused)
        return refused.retry_after_ms

    assert wait_ms(-ahead_ms) == wait_ms(0) == 4_000


def test_refuse_names_the_exact_wait_when_the_decay_divides_evenly(shared: Market) -> None:
    # Of 59 999 millionths a whole one is left until the last millisecond.
    config = replace(DEFAULTS, fair_share_cap_ppm=10_000, burst_quota_micro=0)
    party = (59_999, 0, 0)
    standing = Standing(config, 10, party, party, 6)
    check_the_wait_is_exact(shared, standing)
    assert verdict_at(shared, standing, 0).retry_after_ms == 59_999


def test_bucket_refills_rounded_down(shared: Market) -> None:
    # 1.5 millionths in a millisecond, of 2 that are missing.
    config = replace(DEFAULTS, burst_refill_rate_micro=1500)
    party = (1500 * MICRO, 30 * MICRO - 2, 1)
    standing = Standing(config, 100, party, party, 30)
    check_the_wait_is_exact(shared, standing)
    assert verdict_at(shared, standing, 0).retry_after_ms == 1


def test_refuse_tells_the_wait_in_seconds_rounded_up(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    for later_s, told in ((0, 4), (0.001, 4), (0.999, 3)):
        market.advance(later_s)
        assert enter(market, 100).hint == f"it would pass in {told} s"


@pytest.mark.parametrize("over", ["buyer", "provider"])
def test_refuse_names_the_party_that_uses_more_now(shared: Market, over: str) -> None:
    faded, fresh = (1500 * MICRO, 0, 40_000), (1450 * MICRO, 0, 0)
    parties = (fresh, faded) if over == "buyer" else (faded, fresh)
    found = verdict_at(shared, Standing(DEFAULTS, 100, *parties, 90), 0)
    assert f"{over} {over[0]} used 1450 of the 1500 units a minute allows, the job needs 90" in (
        found.message
    )


def test_refuse_names_the_bucket_that_holds_less_now(shared: Market) -> None:
    buyer, provider = (0, 0, 60_000), (1500 * MICRO, 10 * MICRO, 0)
    found = verdict_at(shared, Standing(DEFAULTS, 100, buyer, provider, 20), 0)
    assert "the burst bucket of provider p holds 10" in found.message


def test_refuse_for_good_names_no_wait(shared: Market) -> None:
    config = replace(DEFAULTS, fair_share_cap_ppm=10_000)  # 60 units, less than the demand
    verdict = verdict_at(shared, Standing(config, 100, (0, 0, 0), (0, 0, 0), 61), 0)
    assert (reason(verdict), verdict.retry_after_ms) == ("fair_share", None)


def test_refuse_by_a_bucket_that_does_not_refill_waits_for_the_share(shared: Market) -> None:
    config = replace(DEFAULTS, burst_refill_rate_micro=0)
    party = (1500 * MICRO, 0, 0)
    verdict = verdict_at(shared, Standing(config, 100, party, party, 1), 0)
    assert (reason(verdict), verdict.retry_after_ms) == ("burst_exhausted", 40)


def test_refuse_below_the_least_capacity_names_no_wait(shared: Market) -> None:
    verdict = verdict_at(shared, Standing(DEFAULTS, 9, (0, 0, 0), (0, 0, 0), 1), 0)
    assert (reason(verdict), verdict.retry_after_ms) == ("capacity", None)
