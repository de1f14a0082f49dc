"""The last prices of each lane in the store, and the board that they and the file make."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.offers import board, price_window
from compute_market.price_records import Board
from compute_market.records import LANES, Lane
from compute_market.store.schema import PRICES
from tests.support.market import Market


def price(market: Market, lane: Lane, *prices: int) -> None:
    def act(txn: Any) -> None:
        for each in prices:
            price_window.record(txn, lane, each)

    market.update(act)


def window(market: Market, lane: Lane = "industrial") -> list[int]:
    """What a command that loads the board would see by now."""
    market.opened.prices.load()
    return market.view(lambda txn: board.window(txn, lane))


def ends(market: Market) -> None:
    """The command saves the board and ends; the next one begins."""
    market.opened.prices.save()
    market.reopen()


def file_of(market: Market) -> Path:
    return market.path.parent / "state" / "price_board.v2.bin"


def test_match_puts_its_effective_price_on_the_board_of_its_lane(market: Market) -> None:
    market.post(reputation_multiplier="0.5", price_per_unit=5)
    market.submit("one")
    market.submit("two", lane="consumer")
    market.submit("three", capability={"accelerator": "none has it"})  # It matches nothing.
    assert (window(market), window(market, "consumer")) == ([3], [3])


def test_store_keeps_no_more_than_the_window(market: Market) -> None:
    market.configure(price_board_window=3)
    price(market, "consumer", 9)
    price(market, "industrial", *range(1, 11))
    assert window(market) == [8, 9, 10]
    assert market.view(lambda txn: txn.size(PRICES)) == 4


def test_dry_run_leaves_nothing_to_be_saved(market: Market) -> None:
    market.update(lambda txn: price_window.record(txn, "industrial", 5), dry_run=True)
    assert market.opened.prices.save() is None
    assert not file_of(market).exists()


def test_killed_command_has_lost_nothing(market: Market) -> None:
    price(market, "industrial", 1)
    ends(market)
    price(market, "industrial", 2)
    market.reopen()
    assert window(market) == [1, 2]
    price(market, "industrial", 3)
    ends(market)
    assert window(market) == [1, 2, 3]


def test_deleting_the_file_clears_the_board(market: Market) -> None:
    price(market, "industrial", 1, 2)
    ends(market)
    file_of(market).unlink()
    assert window(market) == []
    price(market, "industrial", 3)
    assert window(market) == [3]
    file_of(market).unlink(missing_ok=True)
    ends(market)
    assert window(market) == [3]


def test_board_that_was_begun_by_another_process_gets_what_came_before_it(market: Market) -> None:
    """Two began to price where there was no file, and the one that began last has saved first."""
    price(market, "industrial", 1)
    price(market, "industrial", 2)

    def joined(txn: Any) -> Board:
        other = price_window.joined(txn, Board(), 1)
        assert other.industrial == (2,)
        return price_window.joined(txn, other, 0)

    assert market.view(joined).industrial == (1, 2)


def test_file_of_a_market_that_was_ahead_counts_and_so_does_what_comes_then(market: Market) -> None:
    price(market, "industrial", 1)
    ahead = Board("success", "", 2**64 - 1, (7, 8), (9,))

    def joined(txn: Any) -> Board:
        txn.board = price_window.begun(txn, ahead, None)
        assert board.window(txn, "industrial") == [7, 8]
        price_window.record(txn, "industrial", 2)
        assert board.window(txn, "industrial") == [7, 8, 2]
        return price_window.joined(txn, ahead, txn.priced_after or 0)

    found = market.alone(joined)
    assert (found.seq, found.industrial, found.consumer) == (2, (7, 8, 2), (9,))


def test_prices_of_another_market_do_not_hide_as_many_of_this_one(
    market: Market, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file is left where the market was replaced; one command then makes as many prices."""
    other = Market(tmp_path_factory.mktemp("other") / "market")
    price(other, "industrial", 7, 8)
    ends(other)
    other.store.close()
    file_of(market).parent.mkdir()
    file_of(market).write_bytes(file_of(other).read_bytes())
    assert window(market) == [7, 8]
    price(market, "industrial", 1, 2, 3)
    ends(market)
    assert window(market) == [7, 8, 1, 2, 3]
    price(market, "industrial", 4)
    ends(market)
    assert window(market) == [7, 8, 1, 2, 3, 4]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(LANES), st.integers(0, 2**64 - 1)),
        st.sampled_from(["ends", "killed", "cleared", "looked at"]),
        st.integers(1, 6),  # another window
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_bands_are_those_of_the_sorted_window(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever prices come, in however many processes that save, are killed or find no file."""
    market = Market(tmp_path_factory.mktemp("home") / "market")
    market.configure(price_board_window=4)
    expected: dict[Lane, list[int]] = {lane: [] for lane in LANES}
    unsaved = False
    for step in [*steps, "looked at"]:
        size = market.config.price_board_window
        match step:
            case int():
                market.configure(price_board_window=step)
            case "ends":
                if unsaved:
                    expected = {lane: found[-size:] for lane, found in expected.items()}
                ends(market)
                unsaved = False
            case "killed":
                if not file_of(market).exists():
                    expected = {lane: [] for lane in LANES}
                market.reopen()
                unsaved = False
            case "cleared":
                if not unsaved:
                    file_of(market).unlink(missing_ok=True)
                    expected = {lane: [] for lane in LANES}
            case "looked at":
                for lane, found in expected.items():
                    ordered, n = sorted(found[-size:]), len(found[-size:])
                    seen = window(market, lane)
                    assert seen == found[-size:]
                    bands = board.bands_of(seen)
                    if bands is None:
                        assert n == 0
                    else:
                        quartiles = ordered[n // 4], ordered[n // 2], ordered[3 * n // 4]
                        assert (bands.p25, bands.median, bands.p75) == quartiles
            case lane, each:
                price(market, lane, each)
                expected[lane] = [*expected[lane], each][-size:]
                unsaved = True
    assert market.violations() == []
    market.store.close()
