"""Posting: which terms are taken, and what an id stands for."""

from decimal import Decimal
from typing import Any

import pytest

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import ConflictError, RefusedError
from compute_market.offers import offers, posting
from compute_market.records import Capability, Offer
from compute_market.store.schema import BOOK, OFFERS, REPUTATION
from compute_market.store.txn import Txn
from tests.support.market import START_MS, Market, offer_request

# One row per refusal, in the order of the specification: the fields that cause it, its words, its
# reason.
REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"provider_bond": 0}, "provider bond too low", "provider_bond_too_low"),
    ({"consumer_bond": 0}, "consumer bond too low", "consumer_bond_too_low"),
    ({"units": 0}, "no units offered", "no_units_offered"),
    ({"fee_pct_ct": 101}, "invalid fee_pct_ct", "invalid_fee_pct_ct"),
    (
        {"reputation_multiplier": "1.01"},
        "invalid reputation multiplier",
        "invalid_reputation_multiplier",
    ),
    ({"price_per_unit": 0}, "no price data", "no_price_data"),
]


def refusal(market: Market, **fields: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        market.post(**fields)
    return caught.value


# What is refused.


@pytest.mark.parametrize("row", range(len(REFUSALS)), ids=[words for _, words, _ in REFUSALS])
def test_post_is_refused_by_the_first_rule_broken(market: Market, row: int) -> None:
    fields, words, reason = REFUSALS[row]
    assert (refusal(market, **fields).message, refusal(market, **fields).reason) == (words, reason)
    everything_after: dict[str, Any] = {}
    for later, _, _ in REFUSALS[row:]:
        everything_after |= later
    assert refusal(market, **everything_after).message == words
    assert market.view(lambda txn: (txn.size(OFFERS), txn.size(BOOK))) == (0, 0)


def test_post_that_is_refused_uses_no_id_and_seeds_no_score(market: Market) -> None:
    for fields, _, _ in REFUSALS:
        refusal(market, reputation=5, **fields)
    assert market.view(lambda txn: txn.size(REPUTATION)) == 0
    found = market.post()
    assert (found.offer_id, found.seq) == ("o-1", 1)


@pytest.mark.parametrize("fee_pct_ct", [-1, 101, 2**63 - 1])
def test_post_refuses_a_percentage_out_of_bounds(market: Market, fee_pct_ct: int) -> None:
    assert refusal(market, fee_pct_ct=fee_pct_ct).message == "invalid fee_pct_ct"


@pytest.mark.parametrize("fee_pct_ct", [0, 100])
def test_post_takes_the_bounds_of_the_percentage(market: Market, fee_pct_ct: int) -> None:
    assert market.post(fee_pct_ct=fee_pct_ct).fee_pct_ct == fee_pct_ct


@pytest.mark.parametrize(
    "multiplier",
    [
        "0.499999",
        "1.000001",
        "0.5000001",
        "",
        " 1",
        "+1",
        "-0.5",
        "nan",
        "inf",
        "5e-1",
        "one",
        0,
        2,
        -1,
        Decimal("1.01"),
        Decimal("0.5000001"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("-1"),
        0.5,
        True,
        None,
        [1],
        {"ppm": 1},
    ],
)
def test_post_refuses_a_multiplier_that_is_no_number_within_bounds(
    market: Market, multiplier: Any
) -> None:
    found = refusal(market, reputation_multiplier=multiplier)
    assert found.message == "invalid reputation multiplier"
    assert found.hint == (
        "--multiplier, in a file reputation_multiplier, is a decimal with at most 6 places, 0.5…1"
    )


@pytest.mark.parametrize("text", ["1e999999999999", "1e-999999999999"])
def test_post_refuses_a_multiplier_of_any_size(market: Market, text: str) -> None:
    """Written out, these numbers would not fit into memory."""
    assert refusal(market, reputation_multiplier=Decimal(text)).message == (
        "invalid reputation multiplier"
    )


@pytest.mark.parametrize(
    ("multiplier", "ppm"),
    [
        ("0.5", 500_000),
        ("1", 1_000_000),
        ("1.000000", 1_000_000),
        ("0.58", 580_000),
        ("0.999999", 999_999),
        (1, 1_000_000),
        (Decimal("0.5"), 500_000),
        (Decimal("0.580000"), 580_000),
        (Decimal("5E-1"), 500_000),
    ],
)
def test_post_keeps_the_multiplier_exact(market: Market, multiplier: Any, ppm: int) -> None:
    assert market.post(reputation_multiplier=multiplier).multiplier_ppm == ppm


def test_post_takes_the_bounds_of_the_multiplier_from_the_configuration(market: Market) -> None:
    market.configure(multiplier_min_ppm=900_000, multiplier_max_ppm=1_500_000)
    assert market.post(reputation_multiplier="1.5").multiplier_ppm == 1_500_000
    found = refusal(market, reputation_multiplier="0.899999")
    assert found.hint.endswith(", 0.9…1.5")


# What is kept.


def test_post_keeps_every_field(market: Market) -> None:
    found = market.post(
        "prov",
        offer_id="mine",
        units=7,
        price_per_unit=AMOUNT_MAX,
        fee_pct_ct=37,
        provider_bond=3,
        consumer_bond=4,
        capability={"cpu_cores": 8, "gpu": "A100", "gpu_memory_mb": 1024},
        reputation=-5000,
        reputation_multiplier="0.58",
        job_id="job-1",
    )
    expected = Offer(
        offer_id="mine",
        seq=1,
        provider="prov",
        units=7,
        price_per_unit=AMOUNT_MAX,
        fee_pct_ct=37,
        provider_bond=3,
        consumer_bond=4,
        capability=Capability(8, "A100", 1, 1024, None, 0),
        reputation=-1000,
        multiplier_ppm=580_000,
        job_id="job-1",
        state="open",
        units_left=7,
        units_reserved=0,
        units_proven=0,
        posted_at=START_MS // 1000,
        shelf="barred",
    )
    assert found == market.offer("mine") == expected
    document = offers.document(found)
    assert document["reputation_multiplier"] == "0.58"
    assert document["capability"] == {
        "cpu_cores": 8,
        "gpu": "A100",
        "gpu_count": 1,
        "gpu_memory_mb": 1024,
    }
    # Half of the largest amount and a bit: no float is in between.
    assert document["effective_price"] == (AMOUNT_MAX * 58 + 50) // 100


def test_post_counts_up_and_skips_ids_that_are_taken(market: Market) -> None:
    market.post(offer_id="o-2")
    market.post(offer_id="o-3")
    assert [market.post().offer_id for _ in range(3)] == ["o-1", "o-4", "o-5"]
    assert [market.offer(f"o-{n}").seq for n in (2, 3, 1, 4, 5)] == [1, 2, 3, 4, 5]


def test_post_again_changes_nothing(market: Market) -> None:
    first = market.post(offer_id="mine", capability={"gpu": "A100"}, reputation=3)
    market.advance(100)

    def again(txn: Txn) -> tuple[Offer, bool, int]:
        before = txn.writes
        request = offer_request(offer_id="mine", capability={"gpu": "A100"}, reputation=3)
        return *posting.post(txn, request), txn.writes - before

    assert market.update(again) == (first, False, 0)
    # The same terms in other words.
    same = offer_request(
        offer_id="mine",
        capability={"gpu": "A100", "gpu_count": 1},
        reputation=3,
        reputation_multiplier=Decimal("1.0"),
    )
    assert market.update(lambda txn: posting.post(txn, same)) == (first, False)


def test_post_again_returns_the_offer_as_it_is_now(market: Market) -> None:
    market.post(offer_id="mine", units=5)
    market.submit("job", lengths=(1,))
    again = market.post(offer_id="mine", units=5)
    assert (again.units_left, again.units_reserved) == (4, 1)
    market.update(lambda txn: offers.withdraw(txn, "mine"))
    assert market.post(offer_id="mine", units=5).state == "withdrawn"


@pytest.mark.parametrize(
    ("field", "before", "now", "words"),
    [
        ("provider", "prov", "other", "provider prov, not other"),
        ("units", 10, 11, "units 10, not 11"),
        ("price_per_unit", 5, 6, "price_per_unit 5, not 6"),
        ("fee_pct_ct", 100, 99, "fee_pct_ct 100, not 99"),
        ("provider_bond", 1, 2, "provider_bond 1, not 2"),
        ("consumer_bond", 1, 2, "consumer_bond 1, not 2"),
        (
            "capability",
            {"cpu_cores": 4},
            {"cpu_cores": 4, "gpu": "A100"},
            "capability {'cpu_cores': 4}, not {'cpu_cores': 4, 'gpu': 'A100', 'gpu_count': 1}",
        ),
        ("reputation", 0, 1, "reputation 0, not 1"),
        ("reputation_multiplier", "1", "0.5", "multiplier_ppm 1000000, not 500000"),
        ("job_id", None, "job", "job_id none, not job"),
    ],
)
def test_post_again_with_other_content_is_a_conflict_naming_the_field(
    market: Market, field: str, before: Any, now: Any, words: str
) -> None:
    asked = {"provider": "prov", "offer_id": "mine", "units": 10}
    market.post(**(asked | {field: before}))
    with pytest.raises(ConflictError) as caught:
        market.post(**(asked | {field: now}))
    assert caught.value.message == f"offer mine exists with {words}"
    assert caught.value.details["field"] == words.split()[0]
    assert market.view(lambda txn: txn.size(OFFERS)) == 1
