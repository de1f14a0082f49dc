"""The scenarios that come with the tool: each asks a question, and its answer holds.

What a test asserts is the answer in the head comment of its file.
"""

from pathlib import Path

import pytest

from compute_market.simulation.variations import Change
from tests.market_simulation.playing import Played, changed, played

DIRECTORY = Path(__file__).parents[2] / "sim" / "compute_market"
FILES = sorted(DIRECTORY.glob("*.toml"))


def play(name: str, *changes: Change) -> Played:
    return played(changed((DIRECTORY / f"{name}.toml").read_bytes(), *changes), name)


def share(of: Played, role: str, prefix: str) -> float:
    """What the parties whose names begin so got of all that was done."""
    parties = of.measures.buyers if role == "buyers" else of.measures.providers
    units = sum(party.units for name, party in parties.items() if name.startswith(prefix))
    return units / of.measures.units_proven


def peaks(of: Played, name: str, from_secs: int, until_secs: int) -> list[float]:
    samples = of.between(from_secs, until_secs)
    return [sample["shares"]["buyers"].get(name, 0.0) for sample in samples]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario_asks_a_question_that_a_test_answers(path: Path) -> None:
    head, _, _ = path.read_text().partition("\n\n")
    assert head.startswith("# Question: ")
    assert "\n# Answer: " in head
    assert f'play("{path.stem}"' in Path(__file__).read_text()


def test_steady_load_is_taken_at_once_and_alike() -> None:
    found = play("steady_load").report
    assert found["jobs"]["refused"] == {}
    assert found["jobs"]["admitted"] == found["jobs"]["submitted"] > 800
    assert found["wait_ms"]["max"] == 0
    assert 0.45 < found["utilization"] < 0.6
    assert found["fairness"] > 0.95


def test_greedy_buyer_gets_its_fair_share_and_crowds_nobody_out() -> None:
    found = play("greedy_buyer")
    assert set(found.report["jobs"]["refused"]) == {"fair_share"}
    greedy = next(each for each in found.report["shares"]["buyers"] if each["party"] == "greedy-1")
    assert 0.24 < greedy["peak"] <= 0.25
    refused = found.report["jobs"]["refused"]["fair_share"]
    # All that was refused is the greedy one's: it asked for 900 jobs of 50 units.
    taken = found.measures.buyers["greedy-1"].submitted - refused
    assert taken * 50 - 200 <= found.measures.buyers["greedy-1"].units <= taken * 50
    # One by one, the others got all that they asked for.
    modest = {name for name in found.measures.buyers if name.startswith("modest")}
    assert len(modest) == 5


def test_burst_gets_a_fair_share_and_the_bucket_each_time() -> None:
    jobs = play("burst_after_idleness").report["jobs"]
    assert (jobs["submitted"], jobs["admitted"]) == (400, 2 * (150 + 3))
    assert jobs["refused"] == {"burst_exhausted": 400 - 2 * 153}


def test_cartel_has_its_price_until_an_outsider_comes() -> None:
    found = play("provider_cartel")
    medians = {
        span: {sample["prices"]["industrial"]["median"] for sample in found.between(*span)}
        for span in ((120, 900), (1200, 1801))
    }
    assert list(medians.values()) == [{9}, {5}]


def test_preemption_saves_jobs_of_providers_that_come_and_go() -> None:
    found, without = (
        play("flapping_providers"),
        play("flapping_providers", ("enable_preempt", "false")),
    )
    assert found.report["preemptions"]["success"] > 50
    assert without.report["preemptions"]["success"] == 0
    failed, failed_without = (each.report["jobs"]["failed"] for each in (found, without))
    assert failed_without > without.report["jobs"]["admitted"] / 30
    assert failed < failed_without / 2


def test_fee_spike_closes_the_guard_and_it_opens_again() -> None:
    found = play("fee_spike")
    assert set(found.report["jobs"]["refused"]) == {"comfort_guard"}
    closed = [sample["at_secs"] for sample in found.series if sample["mode"] == "tight"]
    assert 600 < closed[0] <= 660
    assert 900 < closed[-1] < 1080
    assert closed == list(range(closed[0], closed[-1] + 1, 60))
    refused = [sample["refused"] for sample in found.series if sample["at_secs"] in (600, 1080)]
    assert refused[0] == 0
    assert refused[1] == found.report["jobs"]["deferred"] > 50


def test_many_identities_get_around_the_cap() -> None:
    found, by_one_name = play("many_identities"), play("many_identities", ("sybil.identities", "1"))
    assert share(found, "buyers", "sybil") > 0.7
    assert max(peaks(by_one_name, "sybil-1", 0, 901)) <= 0.25
    for each in (found, by_one_name):
        assert each.measures.buyers["honest-1"].units > 20_000


def test_cap_change_holds_two_epochs_after_its_approval() -> None:
    found = play("cap_change")
    before, after = peaks(found, "greedy-1", 120, 900), peaks(found, "greedy-1", 1020, 1801)
    assert 0.2 < max(before) <= 0.25
    assert 0.05 < max(after) <= 0.1


def test_overload_is_refused_and_the_rest_is_done_without_waiting() -> None:
    found = play("overload").report
    jobs = found["jobs"]
    assert 0.4 < jobs["admitted"] / jobs["submitted"] < 0.6
    assert jobs["deferred"] == jobs["refused"]["capacity"]
    assert jobs["refused"]["capacity"] > 0.9 * sum(jobs["refused"].values())
    assert found["utilization"] > 0.95
    assert jobs["failed"] == 0
    assert set(found["wait_ms"]["by_priority"]) == {"high", "normal", "low"}
    assert found["wait_ms"]["max"] == 0


def test_outage_costs_the_providers_that_were_at_work() -> None:
    found = play("outage")
    jobs = found.report["jobs"]
    assert jobs["missed"] > 200
    assert jobs["failed"] > 5
    assert found.report["money"]["burned"] == {"ct": 10 * jobs["failed"], "it": 0}
    assert jobs["completed"] + jobs["failed"] + jobs["left"] == jobs["admitted"]
    # Nothing fails but what was running when it began: no job is left over from it.
    assert {sample["refused"] for sample in found.series} == {0}
