"""Admission: capacity, fair share, burst buckets, and how long a refused job would have to wait."""

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
from compute_market.store.store import Txn
from tests.support.market import Market

MICRO = 1_000_000
MINUTE_MS = 60_000
AGES_MS = 10**12  # longer than any decay or refill takes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A store for tests that only look: whatever they write is rolled back."""
    found = Market(tmp_path_factory.mktemp("admission") / "market")
    yield found
    found.store.close()


def enter(
    market: Market, demand: int, buyer: str = "buyer", provider: str = "prov"
) -> Admitted | Refused:
    """Ask, and charge what was admitted: what a submission does."""

    def action(txn: Txn) -> Admitted | Refused:
        verdict = admission.admit(txn, market.config, buyer, provider, demand)
        if isinstance(verdict, Admitted):
            admission.charge(txn, buyer, provider, verdict)
        return verdict

    return market.update(action)


def reason(verdict: Admitted | Refused) -> str:
    return verdict.reason if isinstance(verdict, Refused) else "admitted"


def record_capacity(market: Market, *samples: int) -> int:
    for sample in samples:
        found = market.update(
            lambda txn, n=sample: admission.record_capacity(txn, market.config, n)
        )
    return found


def usage(market: Market, role: str, identity: str) -> Usage:
    return market.view(lambda txn: txn.read("usage", f"{role}\0{identity}".encode()))


def usage_table(market: Market) -> list[tuple[bytes, bytes]]:
    return market.view(lambda txn: list(txn.scan("usage")))


def burst_left(market: Market, role: admission.Role, identity: str) -> int:
    return market.view(lambda txn: admission.burst_left(txn, market.config, role, identity))


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


# One row per reason and per bound. At an estimate of 100 a share is 1500 units a minute.


class Row(NamedTuple):
    name: str
    expected: str
    demand: int
    capacity: int = 100
    used_micro: int = 0
    burst_micro: int = 30 * MICRO


ROWS = (
    Row("estimate at the minimum", "admitted", 1, capacity=10),
    Row("estimate below the minimum", "capacity", 1, capacity=9),
    Row("demand equal to the estimate", "admitted", 10, capacity=10),
    Row("demand above the estimate", "capacity", 11, capacity=10),
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
    Row("demand above the estimate and the share", "capacity", 101, used_micro=1500 * MICRO),
)


def judged(market: Market, row: Row, role: str) -> str:
    """The verdict when one party has the row's usage and the other one none."""

    def action(txn: Txn) -> Admitted | Refused:
        txn.put("meta", b"capacity_samples", row.capacity.to_bytes(8, "big"))
        key = {"buyer": b"buyer\0b", "provider": b"provider\0p"}[role]
        txn.write("usage", key, Usage(row.used_micro, row.burst_micro, txn.now_ms))
        return admission.admit(txn, DEFAULTS, "b", "p", row.demand)

    return reason(market.store.update(action, now_ms=market.now_ms, dry_run=True))


@pytest.mark.parametrize("role", ["buyer", "provider"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_admit_decides_as_the_table_says(shared: Market, row: Row, role: str) -> None:
    assert judged(shared, row, role) == row.expected


def test_table_has_a_row_for_every_reason() -> None:
    ((_, reasons),) = metrics.BY_NAME["industrial_rejected_total"].labels
    assert {row.expected for row in ROWS} == {"admitted", *reasons} - {"SLA"}


# Whose clock is touched, and what is charged.


def test_refuse_touches_nobodys_clock(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    before = usage_table(market)
    market.advance(1)
    assert reason(enter(market, 100)) == "fair_share"
    assert reason(enter(market, 101)) == "capacity"
    assert usage_table(market) == before


def test_refuse_does_not_postpone_the_time_it_would_pass(market: Market) -> None:
    for _ in range(15):
        enter(market, 100)
    for _ in range(4):  # 1500 × 56/60 = 1400, and 100 more are the cap.
        assert reason(enter(market, 100)) == "fair_share"
        market.advance(1)
    assert reason(enter(market, 100)) == "admitted"


def test_refuse_by_capacity_counts_as_rejected_and_deferred(market: Market) -> None:
    market.post()
    market.submit(lengths=(101 * UNIT_BYTES,))
    assert market.counter("industrial_rejected_total", "capacity") == 1
    assert market.counter("industrial_deferred_total") == 1
    assert market.counter("industrial_admitted_total") == 0


def test_refuse_by_fair_share_counts_as_rejected_only(market: Market) -> None:
    market.configure(fair_share_cap_ppm=10_000)
    market.post()
    market.submit(lengths=(61 * UNIT_BYTES,))
    assert market.counter("industrial_rejected_total", "fair_share") == 1
    assert market.counter("industrial_deferred_total") == 0


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


def test_known_parties_lists_every_charged_identity(market: Market) -> None:
    enter(market, 1, buyer="anna", provider="prov")
    market.advance(1)
    enter(market, 1, buyer="ben", provider="prov")
    first, second = market.now_ms - 1000, market.now_ms
    assert market.view(admission.known_parties) == [
        (first, "buyer", "anna"),
        (second, "buyer", "ben"),
        (second, "provider", "prov"),
    ]


# How long a refused job would have to wait.


class Standing(NamedTuple):
    """What two parties have used, and how long ago."""

    config: Config
    capacity: int
    buyer: tuple[int, int, int]  # used, burst, milliseconds since
    provider: tuple[int, int, int]
    demand: int


def verdict_at(market: Market, standing: Standing, later_ms: int) -> Admitted | Refused:
    def action(txn: Txn) -> Admitted | Refused:
        txn.put("meta", b"capacity_samples", standing.capacity.to_bytes(8, "big"))
        for key, party in ((b"buyer\0b", standing.buyer), (b"provider\0p", standing.provider)):
            used, burst, since_ms = party
            txn.write("usage", key, Usage(used, burst, market.now_ms - since_ms))
        return admission.admit(txn, standing.config, "b", "p", standing.demand)

    return market.store.update(action, now_ms=market.now_ms + later_ms, dry_run=True)


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
        return used, burst, draw(st.integers(-5000, MINUTE_MS + 2000) | st.just(0))

    demand = draw(st.integers(1, capacity) | st.integers(1, 10))
    return Standing(config, capacity, party(), party(), demand)


def check_the_wait_is_exact(market: Market, standing: Standing) -> None:
    refused = verdict_at(market, standing, 0)
    assert isinstance(refused, Refused)
    wait_ms = refused.retry_after_ms
    if wait_ms is None:
        assert isinstance(verdict_at(market, standing, AGES_MS), Refused)
    else:
        assert isinstance(verdict_at(market, standing, wait_ms), Admitted)
        assert wait_ms > 0
        assert isinstance(verdict_at(market, standing, wait_ms - 1), Refused)


@settings(max_examples=400, deadline=None)
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


def test_refuse_after_the_clock_was_set_back_names_the_exact_wait(shared: Market) -> None:
    # Nothing decays or refills before the clock has come back to the last charge.
    party = (1500 * MICRO, 0, -10_000)
    check_the_wait_is_exact(shared, Standing(DEFAULTS, 100, party, party, 100))


def test_refuse_for_good_names_no_wait(shared: Market) -> None:
    config = replace(DEFAULTS, fair_share_cap_ppm=10_000)  # 60 units, less than the demand
    verdict = verdict_at(shared, Standing(config, 100, (0, 0, 0), (0, 0, 0), 61), 0)
    assert (reason(verdict), verdict.retry_after_ms) == ("fair_share", None)


def test_refuse_by_a_bucket_that_does_not_refill_waits_for_the_share(shared: Market) -> None:
    config = replace(DEFAULTS, burst_refill_rate_micro=0)
    party = (1500 * MICRO, 0, 0)
    verdict = verdict_at(shared, Standing(config, 100, party, party, 1), 0)
    assert (reason(verdict), verdict.retry_after_ms) == ("burst_exhausted", 40)


def test_refuse_by_capacity_names_no_wait(shared: Market) -> None:
    verdict = verdict_at(shared, Standing(DEFAULTS, 9, (0, 0, 0), (0, 0, 0), 1), 0)
    assert (reason(verdict), verdict.retry_after_ms) == ("capacity", None)


# Capacity samples.


def test_estimate_without_samples_is_the_initial_capacity(market: Market) -> None:
    market.configure(initial_capacity=77)
    assert market.view(lambda txn: admission.estimate(txn, market.config)) == 77


def test_record_capacity_seeds_the_history_once(market: Market) -> None:
    assert record_capacity(market, 201) == 150  # floor((100 + 201) / 2)
    market.configure(initial_capacity=1)
    assert record_capacity(market, 2) == 101  # (100 + 201 + 2) / 3
    assert market.view(lambda txn: admission.estimate(txn, market.config)) == 101


def test_record_capacity_keeps_the_last_eight_samples(market: Market) -> None:
    assert record_capacity(market, *[20] * 7) == 30  # (100 + 7 · 20) / 8
    assert record_capacity(market, 20) == 20
    assert record_capacity(market, 27) == 20  # floor(20.875)
    assert record_capacity(market, 28) == 21  # floor(21.875)


def test_record_capacity_decides_the_next_submission(market: Market) -> None:
    market.post()
    record_capacity(market, *[9] * 8)
    assert reason(market.submit()) == "capacity"
    record_capacity(market, *[10] * 8)
    assert reason(market.submit()) == "admitted"
