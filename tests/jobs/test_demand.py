"""What the market did in the last minute."""

from typing import Any

from compute_market.jobs import demand
from compute_market.store.schema import THROUGHPUT
from tests.support.market import Market


def test_demand_shows_backlog_and_the_last_minutes_work(market: Market) -> None:
    market.configure(slots=1, initial_capacity=10)
    market.post(price_per_unit=3)
    market.submit("a", lengths=(1,) * 6)
    market.submit("b", lengths=(1,) * 3)
    market.submit("c", lengths=(1,), capability={"cpu_cores": 9}, wait=True)
    market.prove("a", 0)
    market.advance(1)
    market.prove("a", 1, 2)

    def shown() -> dict[str, Any]:
        return market.view(lambda txn: demand.document(txn))

    assert shown() == {
        "industrial_backlog": 6,
        "industrial_utilization": 0.01,  # 3 of 600, half up
        "industrial_units_total": 3,
        "industrial_price_per_unit": 3,
    }
    market.advance(58.999)
    assert shown()["industrial_utilization"] == 0.01
    market.advance(0.001)  # The first unit is a minute old: 2 of 600.
    assert shown()["industrial_utilization"] == 0.0


def test_demand_of_an_empty_market_is_zero(market: Market) -> None:
    assert market.view(lambda txn: demand.document(txn)) == {
        "industrial_backlog": 0,
        "industrial_utilization": 0.0,
        "industrial_units_total": 0,
        "industrial_price_per_unit": 0,
    }


def test_work_of_more_than_a_minute_ago_is_forgotten(market: Market) -> None:
    market.configure(initial_capacity=10**6)
    market.post(units=10_000)
    market.submit(lengths=(1,) * 100)
    for number in range(100):
        market.prove("job", number)
        market.advance(1)
    assert market.view(lambda txn: txn.size(THROUGHPUT)) == 60
