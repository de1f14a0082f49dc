"""`compute-market simulate`: what it prints and leaves behind, and what it says of mistakes."""

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from compute_market import audit
from compute_market.records import Violation
from compute_market.simulation.comparison import FIGURES
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

SCENARIO = """\
# What a buyer of many jobs gets.
length_secs = 300
sample_secs = 100
[[providers]]
name = "farm"
count = 2
[[buyers]]
name = "alice"
count = 2
units = 10
arrivals = { process = "constant", per_minute = 20 }
"""
LONG = SCENARIO.replace("300", "3000000")


@pytest.fixture
def scenario(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small scenario; what is thrown away would lie in `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    return path


def simulate(cli: Cli, *arguments: str | Path) -> Any:
    """What a simulation prints; how fast it went is all it says beside."""
    done = cli("compute-market", "simulate", *arguments)
    assert done.code == 0, done
    assert nothing_is_left(cli)
    return done


def nothing_is_left(cli: Cli) -> bool:
    return not cli.home.exists() and not os.listdir(cli.directory / "tmp")


def test_simulate_prints_a_report_that_is_always_the_same(cli: Cli, scenario: Path) -> None:
    first, second = (simulate(cli, scenario) for _ in range(2))
    assert first.out == second.out
    names = [line.partition(":")[0] for line in first.out.splitlines()]
    assert names[0] == "s"
    assert names[1:] == [
        *("jobs", "refused", "wait", "utilization", "fairness among buyers", "buyers"),
        *("providers", "prices industrial", "prices consumer", "paid", "refunded", "burned"),
        *("subsidies", "preemptions", "scores", "audit"),
    ]
    assert first.out.endswith("audit: clean\n")
    assert first.err.endswith(" jobs a second\n")
    assert first.err.count("\n") == 1


def test_simulate_gives_the_fields_that_scripts_rely_on(cli: Cli, scenario: Path) -> None:
    done = simulate(cli, scenario, "--seed", "7", "--json")
    assert done.err == ""
    found = json.loads(done.out)
    told = [
        *("seed", "jobs", "wait_ms", "utilization", "fairness", "money", "audit"),
        *("wall_ms", "per_second"),
    ]
    assert [name for name in found if name in told] == told
    assert found["seed"] == 7
    jobs = found["jobs"]
    assert jobs["submitted"] == jobs["admitted"] + sum(jobs["refused"].values())
    assert {"p50", "p95", "max"} <= set(found["wait_ms"])
    assert found["money"]["paid"]["ct"] > 0
    assert {"paid", "refunded", "burned"} <= set(found["money"])
    assert found["audit"] == {"invalid": 0}


def test_simulate_writes_its_series(cli: Cli, scenario: Path, tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    done = simulate(cli, scenario, "--jsonl", "--csv", file)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["at_secs"] for line in lines] == [0, 100, 200, 300]
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["at_secs"] for row in rows] == ["0", "100", "200", "300"]
    assert rows[-1]["completed"] == str(lines[-1]["completed"])
    assert rows[-1]["shares.buyers.alice-1"] == str(lines[-1]["shares"]["buyers"]["alice-1"])


def test_scenario_may_come_from_standard_input(cli: Cli, scenario: Path) -> None:
    done = cli("compute-market", "simulate", "-", stdin=SCENARIO)
    assert done.code == 0
    assert done.out.startswith("stdin: 5 min of market time, seed 1\n")


def test_sweep_compares_every_combination(cli: Cli, scenario: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    given = ("--param", "alice.units=10,60", "--param", "farm.count=2,1", "--seeds", "2")
    done = simulate(cli, scenario, *given, "--workers", "2", "--csv", file)
    rows = done.rows
    assert [row[:3] for row in rows] == [
        ["10", "2", "2"],
        ["10", "1", "2"],
        ["60", "2", "2"],
        ["60", "1", "2"],
    ]
    assert {len(row) for row in rows} == {3 + len(FIGURES) + 1}
    assert {row[-1] for row in rows} == {"clean"}
    with file.open() as opened:
        runs = list(csv.DictReader(opened))
    assert [(run["set.alice.units"], run["seed"]) for run in runs[:3]] == [
        ("10", "1"),
        ("10", "2"),
        ("10", "1"),
    ]
    # As many processes as there are runs, or one: it comes to the same.
    assert simulate(cli, scenario, *given, "--workers", "1").out == done.out
    documents = json.loads(simulate(cli, scenario, *given, "--json").out)
    assert documents[0]["set"] == {"alice.units": "10", "farm.count": "2"}
    assert documents[0]["seeds"] == [1, 2]
    completed = documents[0]["completed"]
    assert completed["min"] <= completed["mean"] <= completed["max"]


def test_run_of_a_sweep_is_the_run_alone(cli: Cli, scenario: Path) -> None:
    alone = json.loads(simulate(cli, scenario, "--seed", "2", "--json").out)
    lines = simulate(cli, scenario, "--seeds", "2", "--jsonl").out.splitlines()
    swept = json.loads(lines[1])
    assert swept.pop("set") == {}
    same = {name for name in alone if alone[name] == swept[name]}
    assert same >= set(alone) - {"wall_ms", "per_second"}


def test_simulate_takes_a_scenario_that_comes_with_the_tool_by_name(
    cli: Cli, scenario: Path
) -> None:
    done = simulate(cli, "burst_after_idleness", "--param", "length_secs=60")
    assert done.rows[0][:2] == ["60", "1"]
    # A file of that name is meant first.
    Path("burst_after_idleness").write_text(SCENARIO)
    done = simulate(cli, "burst_after_idleness")
    assert done.out.startswith("burst_after_idleness: 5 min of market time")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "SCENARIO is missing"),
        (("none.toml",), "none.toml: no such file or directory"),
        (("stedy_load",), "stedy_load: no such file, and no such scenario"),
        (("bad.toml",), "bad.toml:3: providers[0].cuont: unknown key"),
        (("worse.toml",), "worse.toml:1: not valid TOML"),
        (("s.toml", "--param", "cap"), "--param 'cap' is not KEY=VALUE,VALUE…"),
        (("s.toml", "--seeds", "0"), "--seeds"),
        (("s.toml", "--replay", "log"), "--replay and SCENARIO do not go together"),
        (("s.toml", "--trace", "t.txt"), "the name does not say what trace it is"),
        (("s.toml", "--csv", "no/such"), "no/such: no such file or directory"),
        (("s.toml", "--param", "a.count=1", "--seeds", "2"), "--param: unknown key a.count"),
    ],
)
def test_mistake_is_told_before_anything_runs(
    arguments: tuple[str, ...], message: str, cli: Cli, scenario: Path
) -> None:
    Path("bad.toml").write_text('length_secs = 1\n[[providers]]\ncuont = 1\nname = "p"\n')
    Path("worse.toml").write_text("length_secs = \n")
    Path("t.txt").write_text("What is this?\n")
    done = cli("compute-market", "simulate", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert nothing_is_left(cli)


def test_broken_law_ends_with_9(cli: Cli, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Violation("jobs", "j", "law", "detail")
    monkeypatch.setattr(audit, "check", lambda txn: iter([broken]))
    done = cli("compute-market", "simulate", scenario)
    assert done.code == 9
    assert done.out.endswith("audit: 1 laws broken\n")
    done = cli("compute-market", "simulate", scenario, "--seeds", "2")
    assert done.code == 9
    assert done.rows[0][-1] == "2 broken"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("extra", [(), ("--seeds", "3", "--workers", "3")])
def test_interrupted_simulation_leaves_nothing(
    stop: signal.Signals, extra: tuple[str, ...], cli: Cli, scenario: Path
) -> None:
    scenario.write_text(LONG)
    process = cli.start("compute-market", "simulate", scenario, *extra, start_new_session=True)
    wanted = 3 if extra else 1
    while len(list((cli.directory / "tmp").glob("*/*/*"))) < wanted:
        assert process.poll() is None
        time.sleep(0.02)
    # As from a terminal, where Ctrl-C reaches all of them.
    os.killpg(process.pid, stop) if stop is signal.SIGINT else process.send_signal(stop)
    assert process.wait(30) == 128 + stop
    assert nothing_is_left(cli)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
