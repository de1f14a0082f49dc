"""Bands and suggested bids, by the fixed points of chapter 3.5, and offers at the market price."""

from typing import Any

import pytest

from compute_market import exposition
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import ConflictError, RefusedError
from compute_market.offers import board, price_window
from compute_market.offers.board import Bands
from compute_market.records import Lane
from tests.offers.test_price_window import ends, price
from tests.support.market import Market


@pytest.mark.parametrize(
    ("prices", "bands"),
    [
        ([1, 2, 3, 4], Bands(2, 3, 4, 4)),
        (list(range(1, 101)), Bands(26, 51, 76, 100)),
        ([4, 1, 3, 2], Bands(2, 3, 4, 4)),
        ([7], Bands(7, 7, 7, 1)),
        ([], None),
    ],
)
def test_bands_are_quartiles(prices: list[int], bands: Bands | None) -> None:
    assert board.bands_of(prices) == bands


def test_transaction_sorts_the_window_once_until_a_price_comes(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    price(market, "industrial", 1, 2, 3, 4)
    sorts: list[list[int]] = []

    def counting(found: list[int]) -> Bands | None:
        sorts.append(found)
        return bands_of(found)

    bands_of = board.bands_of
    monkeypatch.setattr(board, "bands_of", counting)
    market.opened.prices.load()
    market.view(exposition.render)
    assert sorts == [[1, 2, 3, 4], []]

    def act(txn: Any) -> None:
        assert board.bands(txn, "industrial") == Bands(2, 3, 4, 4)
        price_window.record(txn, "industrial", 9)
        assert board.bands(txn, "industrial") == Bands(2, 3, 4, 5)

    market.update(act)


def suggested(market: Market, lane: Lane, backlog: int) -> int:
    market.opened.prices.load()
    found: int = market.view(lambda txn: board.suggested(txn, lane, backlog))["suggested"]
    return found


@pytest.mark.parametrize(
    ("prices", "size", "backlog", "bid"),
    [
        ([100] * 10, 100, 25, 125),
        ([100] * 10, 100, 0, 100),
        ([3], 100, 1, 4),  # 3.03
        ([3], 7, 7, 6),
        ([2**63], 3, 1, 12_297_829_382_473_034_411),  # 2^63 × 4/3, which no float has
        ([0], 100, 50, 0),
    ],
)
def test_suggested_bid_is_the_median_raised_by_the_backlog_and_rounded_up(
    market: Market, prices: list[int], size: int, backlog: int, bid: int
) -> None:
    market.configure(price_board_window=size)
    price(market, "consumer", *prices)
    assert suggested(market, "consumer", backlog) == bid
    with pytest.raises(RefusedError) as caught:
        suggested(market, "industrial", backlog)
    assert (caught.value.message, caught.value.reason) == ("no price data", "no_price_data")


def test_offer_at_price_0_takes_the_suggested_bid(market: Market) -> None:
    market.configure(slots=1)
    market.post(offer_id="main", price_per_unit=100)
    for n in range(1 + 25):
        market.submit(f"job-{n}")
    market.submit("consumer", lane="consumer")  # Of another lane, it raises nothing.
    ends(market)
    posted = market.opened.post_offer(provider="p", units=1, price_per_unit=0, offer_id="m")
    assert (posted["price_per_unit"], posted["market_priced"]) == (125, True)
    again = market.opened.post_offer(provider="p", units=1, price_per_unit=0, offer_id="m")
    assert again == posted | {"changed": False}
    with pytest.raises(ConflictError, match="price_per_unit 125, not 126"):
        market.post("p", units=1, price_per_unit=126, offer_id="m")
    with pytest.raises(ConflictError, match="price_per_unit 100, not 0"):
        market.post(offer_id="main", price_per_unit=0)


def test_offer_at_price_0_is_refused_without_price_data(market: Market) -> None:
    for fields in ({}, {"offer_id": "m"}):
        with pytest.raises(RefusedError) as caught:
            market.opened.post_offer(provider="p", units=1, price_per_unit=0, **fields)
        assert caught.value.reason == "no_price_data"
    market.post(offer_id="main", price_per_unit=100)
    market.submit(lane="consumer")  # Another lane is no help.
    with pytest.raises(RefusedError):
        market.opened.post_offer(provider="p", units=1, price_per_unit=0)


@pytest.mark.parametrize(("median", "taken"), [(0, 1), (AMOUNT_MAX, AMOUNT_MAX)])
def test_market_price_is_within_what_an_offer_can_ask(
    market: Market, median: int, taken: int
) -> None:
    price(market, "industrial", median)
    posted = market.opened.post_offer(provider="p", units=1, price_per_unit=0)
    assert posted["price_per_unit"] == taken
    price(market, "industrial", *[AMOUNT_MAX + 1] * 3)
    with pytest.raises(RefusedError) as caught:
        market.opened.post_offer(provider="p", units=1, price_per_unit=0)
    assert caught.value.reason == "overflow"


def test_loads_and_saves_are_counted_by_the_next_change(market: Market) -> None:
    def counted(name: str, *results: str) -> list[int]:
        return [market.counter(f"price_board_{name}_total", result) for result in results]

    def change() -> None:
        market.opened.prices.load()
        market.update(lambda txn: None)  # It counts nothing: nothing happens.
        market.deposit("buyer", ct=1)

    change()
    price(market, "industrial", 1)
    ends(market)
    change()
    change()
    assert counted("load", "missing", "success", "damaged") == [1, 2, 0]
    assert counted("save", "success", "failed") == [1, 0]
    market.view(lambda txn: None)

    def refuses(txn: Any) -> None:
        raise RefusedError("no")

    market.opened.prices.load()
    with pytest.raises(RefusedError):
        market.update(refuses)
    assert counted("load", "success") == [2]
    market.deposit("buyer", ct=1)
    assert counted("load", "success") == [3]
