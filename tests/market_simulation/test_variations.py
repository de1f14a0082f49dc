"""Keys changed for a sweep, and how its runs are compared."""

import pytest

from compute_market.errors import UsageError
from compute_market.simulation.comparison import FIGURES, Spread, spreads
from compute_market.simulation.variations import combinations
from tests.market_simulation.playing import changed

SCENARIO = """
length_secs = 60
[config.scheduler]
slots = 5
[[providers]]
name = "farm"
[[buyers]]
name = "alice"
arrivals = { process = "constant", per_minute = 6 }
"""


def test_combinations_are_all_with_the_last_key_changing_fastest() -> None:
    found = combinations(["a=1,2", "b=x,y"])
    assert found == [
        (("a", "1"), ("b", "x")),
        (("a", "1"), ("b", "y")),
        (("a", "2"), ("b", "x")),
        (("a", "2"), ("b", "y")),
    ]
    assert combinations([]) == [()]
    assert combinations(["a=1,1"]) == [(("a", "1"),)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["cap"], "--param 'cap' is not KEY=VALUE,VALUE…"),
        (["=1"], "--param '=1' is not KEY=VALUE,VALUE…"),
        (["a="], "--param 'a=' is not KEY=VALUE,VALUE…"),
        (["a=1,,2"], "--param 'a=1,,2' is not KEY=VALUE,VALUE…"),
        (["a=1", "a=2"], "--param a is given twice"),
        (
            [f"{key}={','.join(map(str, range(101)))}" for key in "ab"],
            "--param: more than 10000 combinations",
        ),
    ],
)
def test_combinations_of_another_form_are_refused(parameters: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        combinations(parameters)
    assert caught.value.message == message


def test_change_reaches_settings_groups_and_the_scenario_itself() -> None:
    found = changed(
        SCENARIO,
        ("fair_share_cap", "0.1"),
        ("scheduler.slots", "9"),
        ("farm.count", "3"),
        ("alice.arrivals.per_minute", "0.5"),
        ("alice.priority", "high"),
        ("length_secs", "90"),
    )
    assert found.config.fair_share_cap_ppm == 100_000
    assert found.config.slots == 9
    assert found.providers[0].count == 3
    assert str(found.buyers[0].arrivals.per_minute) == "0.5"
    assert found.buyers[0].priority == "high"
    assert found.length_secs == 90


@pytest.mark.parametrize(
    ("key", "value", "message", "hint"),
    [
        ("fair_share_cup", "1", ": unknown key fair_share_cup", "did you mean fair_share_cap?"),
        ("bob.count", "1", ": unknown key bob.count", "of farm, alice"),
        ("providers", "1", ": unknown key providers", "of farm, alice"),
        ("fair_share_cap", "2", " fair_share_cap=2: 2 is not 0.01…1.0", None),
        ("farm.cuont", "1", " farm.cuont=1: unknown key", "did you mean count?"),
        ("farm.count", "x", " farm.count=x: expected a whole number, found a string", None),
        ("farm.count.a", "1", " farm.count.a=1: expected a whole number, found a table", None),
    ],
)
def test_change_that_does_not_fit_is_told(
    key: str, value: str, message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        changed(SCENARIO, ("length_secs", "90"), (key, value))
    assert caught.value.message == f"--param{message}"
    if hint is not None:
        assert hint in (caught.value.hint or "")


def document(completed: int, utilization: float) -> dict[str, object]:
    pair = {"ct": 0, "it": 0}
    ended = {"completed": completed, "failed": 0}
    jobs = {"submitted": 6, "admitted": 1, "refused": {"a": 2, "b": 3}} | ended
    return {
        "jobs": jobs,
        "wait_ms": {"p50": 0, "p95": 0},
        "utilization": utilization,
        "fairness": 1.0,
        "money": {"paid": pair, "burned": pair},
    }


def test_spread_is_mean_least_and_greatest() -> None:
    found = spreads([document(1, 0.1), document(2, 0.2), document(4, 0.3005)])
    assert list(found) == [name for name, _ in FIGURES]
    assert found["completed"] == Spread(2, 1, 4)  # 7/3
    assert found["utilization"] == Spread(0.2002, 0.1, 0.3005)  # half up at four places
    assert found["refused"] == Spread(5, 5, 5)
    assert (found["completed"].text, found["refused"].text) == ("2 (1–4)", "5")
