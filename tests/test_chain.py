"""Heights: blocks pass with time and by hand, and never go back."""

import pytest

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import RefusedError
from tests.support.market import MARKET_ID, START_MS, Market


def height(market: Market) -> int:
    return market.view(chain.height)


def advance(market: Market, blocks: int) -> chain.ChainStatus:
    return market.update(lambda txn: chain.advance(txn, blocks))


def command(market: Market) -> None:
    market.update(lambda txn: None)


@pytest.mark.parametrize(
    ("interval_secs", "elapsed_secs", "expected"),
    [
        (1, 0, 0),
        (1, 0.999, 0),
        (1, 1, 1),
        (1, 3600, 3600),
        (7, 6.999, 0),
        (7, 7, 1),
        (7, 20.999, 2),
        (86_400, 86_400, 1),
        (0, 3600, 0),
    ],
)
def test_height_counts_whole_intervals_since_genesis(
    market: Market, interval_secs: int, elapsed_secs: float, expected: int
) -> None:
    market.configure(block_interval_secs=interval_secs)
    market.advance(elapsed_secs)
    assert height(market) == expected


def test_advance_adds_to_what_time_makes(market: Market) -> None:
    market.advance(10)
    assert advance(market, 5).height == 15
    market.advance(1)
    assert height(market) == 16


def test_advance_alone_moves_a_chain_without_an_interval(market: Market) -> None:
    market.configure(block_interval_secs=0)
    market.advance(1000)
    assert advance(market, 3).height == 3
    market.advance(1000)
    assert height(market) == 3


def test_height_stays_when_the_clock_is_set_back(market: Market) -> None:
    market.advance(100)
    command(market)
    market.advance(-60)
    assert height(market) == 100
    command(market)
    market.advance(60)
    assert height(market) == 100
    market.advance(1)
    assert height(market) == 101


def test_height_before_genesis_is_zero(market: Market) -> None:
    market.advance(-100)
    assert height(market) == 0


def test_height_stays_when_the_interval_grows(market: Market) -> None:
    market.advance(100)
    command(market)
    market.configure(block_interval_secs=10)
    assert height(market) == 100
    market.configure(block_interval_secs=0)
    assert height(market) == 100


def test_height_survives_a_reopen(market: Market) -> None:
    market.advance(100)
    advance(market, 7)
    market.advance(-50)
    market.reopen()
    assert height(market) == 107


def test_looking_at_the_height_remembers_nothing(market: Market) -> None:
    market.advance(100)
    assert height(market) == 100
    market.advance(-60)
    assert height(market) == 40


def test_advance_moves_by_what_was_asked_after_the_clock_was_set_back(market: Market) -> None:
    market.advance(100)
    command(market)
    market.advance(-60)
    assert advance(market, 1).height == 101
    assert advance(market, 2).height == 103


def test_advance_beyond_the_largest_height_is_refused(market: Market) -> None:
    market.advance(10)
    with pytest.raises(RefusedError) as caught:
        advance(market, AMOUNT_MAX - 9)
    assert caught.value.reason == "overflow"
    assert height(market) == 10
    assert advance(market, AMOUNT_MAX - 10).height == AMOUNT_MAX


def test_status_shows_height_epoch_market_and_genesis(market: Market) -> None:
    market.configure(epoch_blocks=60)
    market.advance(119)
    found = market.view(chain.status)
    assert found == chain.ChainStatus(119, 1, MARKET_ID.hex(), START_MS)
    market.advance(1)
    assert market.view(chain.status).epoch == 2


def test_status_of_a_reopened_store_keeps_its_genesis(market: Market) -> None:
    market.advance(1000)
    market.reopen()
    assert market.view(chain.status).genesis_ms == START_MS
