"""`compute-market simulate`: what it prints and leaves behind, and what it says of mistakes."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from compute_market import audit
from compute_market.laws import Violation
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


@pytest.mark.parametrize(
    ("words", "name"),
    [((), "steady_load"), (("outage",), "outage"), (("outage", "--json"), "outage")],
)
def test_example_is_the_file_of_a_scenario(cli: Cli, words: tuple[str, ...], name: str) -> None:
    shipped = Path(__file__).parents[2] / "sim" / "compute_market" / f"{name}.toml"
    out = cli.ok("compute-market", "simulate", *words, "--example")
    assert out == shipped.read_text()
    done = cli("compute-market", "simulate", "-", "--param", "length_secs=9", "--json", stdin=out)
    assert done.code == 0
    assert not cli.home.exists()


def test_example_of_no_scenario_names_the_nearest(cli: Cli) -> None:
    done = cli("compute-market", "simulate", "outag", "--example")
    assert (done.code, done.out) == (2, "")
    assert "did you mean outage?" in done.err


def test_scenario_may_come_from_standard_input(cli: Cli, scenario: Path) -> None:
    done = cli("compute-market", "simulate", "-", stdin=SCENARIO)
    assert done.code == 0
    assert done.out.startswith("stdin: 5 min of market time, seed 1\n")


def test_sweep_compares_every_combination(cli: Cli, scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(SCENARIO.replace("length_secs = 300", "length_secs = 100"))
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
    assert documents[0]["set"] == {"alice.units": 10, "farm.count": 2}
    assert documents[0]["seeds"] == [1, 2]
    completed = documents[0]["completed"]
    assert completed["min"] <= completed["mean"] <= completed["max"]


def test_run_of_a_sweep_is_the_run_alone(cli: Cli, scenario: Path) -> None:
    alone = json.loads(simulate(cli, scenario, "--seed", "2", "--json").out)
    lines = simulate(cli, scenario, "--seeds", "2", "--jsonl").out.splitlines()
    swept = json.loads(lines[1])
    assert swept.pop("set") == {}
    # How long it took is another each time: those lines are the same bytes.
    assert alone.pop("wall_ms") > 0
    assert alone.pop("per_second") > 0
    assert swept == alone


def test_what_a_sweep_writes_is_the_same_each_time(cli: Cli, scenario: Path) -> None:
    given = (scenario, "--seeds", "2", "--param", "alice.priority=high,low")
    for name in ("one", "other"):
        lines = simulate(cli, *given, "--jsonl", "--csv", f"{name}.csv").out
        documents = simulate(cli, *given, "--json").out
        Path(name).write_text(lines + documents)
    assert Path("one").read_bytes() == Path("other").read_bytes()
    assert Path("one.csv").read_bytes() == Path("other.csv").read_bytes()


def test_values_of_a_sweep_keep_their_type(cli: Cli, scenario: Path) -> None:
    values = ("fair_share_cap=0.5", "alice.waits=true", "alice.priority=low", "length_secs=60")
    given = [word for value in values for word in ("--param", value)]
    (document,) = json.loads(simulate(cli, scenario, *given, "--json").out)
    assert document["set"] == {
        "fair_share_cap": 0.5,
        "alice.waits": True,
        "alice.priority": "low",
        "length_secs": 60,
    }
    jobs = [document[name]["mean"] for name in ("submitted", "admitted", "refused")]
    assert jobs[0] == jobs[1] + jobs[2] == 40


def test_value_given_twice_is_tried_once_and_that_is_told(cli: Cli, scenario: Path) -> None:
    done = simulate(cli, scenario, "--param", "fair_share_cap=0.1,0.2,0.1")
    assert [row[0] for row in done.rows] == ["0.1", "0.2"]
    assert done.err == "--param fair_share_cap: 0.1 is given twice, and tried once\n"


@pytest.mark.parametrize(
    ("given", "key", "option", "kind"),
    [
        (("s.toml", "--trace", "t.swf"), "alice.units", "--trace", "buyers"),
        (("s.toml", "--nodes", "n.csv"), "farm.count", "--nodes", "providers"),
        (("--trace", "t.swf", "--nodes", "n.csv"), "farm.count", "--nodes", "providers"),
        (("--replay", "log.jsonl"), "farm.units", "--replay", "providers"),
        (("--replay", "log.jsonl"), "start_ms", "--replay", "start_ms"),
    ],
)
def test_param_of_what_is_replaced_is_refused(
    given: tuple[str, ...], key: str, option: str, kind: str, cli: Cli, scenario: Path
) -> None:
    Path("t.swf").write_text("1 0 0 10 1 -1 -1 1 10 -1 1 1 1 1 1 1 -1 -1\n")
    Path("n.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nn1,64000,262144,2,T4\n")
    cli.post()
    Path("log.jsonl").write_text(cli("log", "--jsonl").out)
    done = cli("compute-market", "simulate", *given, "--param", f"{key}=1,5")
    message = f"error[usage]: --param {key}: {option} says what there is of {kind}\n"
    assert (done.code, done.out, done.err) == (2, "", message)
    # What stays may be tried.
    assert cli("compute-market", "simulate", *given, "--param", "fair_share_cap=0.5").code == 0


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
        (("s.toml", "--seeds", "2", "--seed", str(2**63 - 1)), "--seeds: 2 seeds from 9223372"),
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


Started = Callable[..., Any]


@pytest.fixture
def started(cli: Cli) -> Iterator[Started]:
    """What starts a simulation in a process of its own, once each of its workers has a market.

    Whatever becomes of the test, it is over then.
    """
    running = []

    def start(*arguments: str | Path, workers: int = 1) -> Any:
        words = ("compute-market", "simulate", *arguments)
        process = cli.start(*words, afresh=True, start_new_session=True)
        running.append(process.pid)
        while len(list((cli.directory / "tmp").glob("*/*/*"))) < workers:
            assert process.poll() is None
            time.sleep(0.02)
        return process

    yield start
    for group in running:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def wait_until_gone(group: int) -> None:
    """Wait until no process of a group is left."""
    until = time.monotonic() + 20
    with suppress(ProcessLookupError):
        while True:
            os.killpg(group, 0)
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("extra", [(), ("--seeds", "3", "--workers", "3")])
def test_interrupted_simulation_leaves_nothing(
    stop: signal.Signals, extra: tuple[str, ...], cli: Cli, scenario: Path, started: Started
) -> None:
    scenario.write_text(LONG)
    process = started(scenario, *extra, workers=3 if extra else 1)
    # As from a terminal, where Ctrl-C, and that it is closed, reach all of them.
    process.send_signal(stop) if stop is signal.SIGTERM else os.killpg(process.pid, stop)
    assert process.wait(30) == 128 + stop
    assert nothing_is_left(cli)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_killed_sweep_takes_its_workers_along_and_the_next_removes_what_it_left(
    cli: Cli, scenario: Path, started: Started
) -> None:
    long = scenario.with_name("long.toml")
    long.write_text(LONG)
    killed = started(long, "--seeds", "2", "--workers", "2", workers=2)
    killed.kill()
    killed.wait()
    wait_until_gone(killed.pid)
    assert len(os.listdir(cli.directory / "tmp")) == 1
    assert cli("compute-market", "simulate", scenario).code == 0
    assert nothing_is_left(cli)
    living = started(long)
    held = os.listdir(cli.directory / "tmp")
    # One that is at work still, and what only has such a name, stay.
    (cli.directory / "tmp" / "tb-simulate-notes").write_text("mine")
    assert cli("compute-market", "simulate", scenario).code == 0
    assert {*os.listdir(cli.directory / "tmp")} == {*held, "tb-simulate-notes"}
    living.terminate()
    assert living.wait(30) == 128 + signal.SIGTERM


def test_nohup_keeps_a_simulation_from_being_hung_up(
    cli: Cli, scenario: Path, started: Started
) -> None:
    scenario.write_text(LONG)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started(scenario, "--seeds", "2", "--workers", "2", workers=2)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM


# Traces, nodes and logs.

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn-1,4000,1,0,\nn-2,8000,1,2,T4\n"
TASKS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,"
    "deletion_time,scheduled_time\n"
    "t-1,2000,1,0,0,,LS,Running,0,90,0\n"
    "t-2,1000,1,1,1000,T4,BE,Running,30,8000,30\n"
)
SWF = "; Version: 2.2\n" + "".join(
    f"{number} {60 * number} 0 30 2 -1 -1 2 30 -1 1 {number % 2} -1 -1 1 -1 -1 -1\n"
    for number in range(1, 5)
)


@pytest.fixture
def log(cli: Cli, scenario: Path) -> Path:
    """What the log of a home says: two offers of one provider, three jobs, one of them refused."""
    cli.ok("wallet", "deposit", "alice", "--ct", "9000")
    cli.ok("wallet", "deposit", "prov", "--ct", "100")
    for offer_id, price in (("cheap", 4), ("dear", 9)):
        cli.advance(2)
        cli.post("--offer-id", offer_id, units=3, price=price)
    for number in range(3):
        cli.advance(10)
        cli(
            *("compute", "submit", "--job-id", f"j-{number}", "--buyer", "alice"),
            *("--workload", "transcode", "--slice", cli.sparse(2)["path"]),
            *("--max-price", "20"),
        )
    cli.advance(5)
    cli.ok("compute", "cancel", "j-1")
    file = cli.directory / "log.jsonl"
    file.write_text(cli("log", "--jsonl").out)
    return file


def document(cli: Cli, *arguments: str | Path, stdin: str = "") -> Any:
    done = cli("compute-market", "simulate", *arguments, "--json", stdin=stdin)
    assert done.code == 0, done
    return json.loads(done.out)


@pytest.mark.parametrize("given", [(), ("--trace", "t.swf"), ("--nodes", "n.csv")])
def test_series_never_take_the_place_of_what_is_played(
    given: tuple[str, ...], cli: Cli, scenario: Path
) -> None:
    Path("t.swf").write_text(SWF)
    Path("n.csv").write_text(NODES)
    played = Path(given[1]) if given else scenario
    Path("link").symlink_to(played)
    before = played.read_bytes()
    for name in (played, "link"):
        done = cli("compute-market", "simulate", scenario, *given, "--csv", name)
        assert (done.code, done.out) == (2, "")
        assert "is what is played" in done.err
    assert played.read_bytes() == before


def test_jobs_of_a_trace_behind_the_end_are_told(cli: Cli, scenario: Path) -> None:
    Path("t.swf").write_text(SWF)
    last = max(int(line.split()[1]) for line in SWF.splitlines() if not line.startswith(";"))
    scenario.write_text(SCENARIO.replace("300", str(last)))
    told = f"the trace goes on until second {last} and the scenario ends after {last}"
    assert told in simulate(cli, scenario, "--trace", "t.swf").err
    scenario.write_text(SCENARIO.replace("300", str(last + 1)))
    assert "goes on" not in simulate(cli, scenario, "--trace", "t.swf").err


def test_line_without_an_end_is_told_at_once(cli: Cli, scenario: Path) -> None:
    """And not when all that comes has been kept on the disk."""
    process = cli.start(
        "compute-market", "simulate", scenario, "--trace", "-", stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b"; a comment\n" + b"1" * 200_000)
    process.stdin.flush()
    # Nobody has closed it.
    assert process.wait(20) == 2
    assert process.stderr is not None
    assert b"stdin:2: the line has more than 65536 bytes" in process.stderr.read()
    process.stdin.close()


def test_trace_takes_the_place_of_the_buyers(cli: Cli, scenario: Path) -> None:
    Path("t.swf").write_text(SWF)
    found = document(cli, scenario, "--trace", "t.swf")
    assert found["jobs"]["submitted"] == found["jobs"]["completed"] == 4
    assert {"trace-0", "trace-1"} == {each["party"] for each in found["shares"]["buyers"]}
    # Whatever it is called and wherever it comes from, it is the same trace.
    Path("jobs").write_text(SWF)
    for again in (
        document(cli, scenario, "--trace", "jobs"),
        document(cli, scenario, "--trace", "-", stdin=SWF),
    ):
        assert again["jobs"] == found["jobs"]


def test_trace_and_nodes_need_no_scenario(cli: Cli, scenario: Path) -> None:
    Path("nodes.csv").write_text(NODES)
    Path("tasks.csv").write_text(TASKS)
    found = document(cli, "--nodes", "nodes.csv", "--trace", "tasks.csv")
    # 2 cores for 90 s are below a quarter of what 12 cores do in a minute; 7970 s are far above.
    assert found["jobs"]["refused"] == {"capacity": 1}
    assert found["jobs"]["completed"] == 1
    assert found["utilization"] == pytest.approx(180 / (12 * 8001), rel=0.05)
    tight = document(
        cli, "--nodes", "nodes.csv", "--trace", "-", "--param", "fair_share_cap=0.1", stdin=TASKS
    )
    assert tight[0]["refused"]["mean"] == 2


def test_task_of_a_trace_has_as_long_as_it_takes(cli: Cli, scenario: Path) -> None:
    Path("nodes.csv").write_text(NODES)
    Path("tasks.csv").write_text(TASKS.replace("8000,30", "3000030,30"))
    roomy = ("--param", "initial_capacity=1000000")
    found = document(cli, "--nodes", "nodes.csv", "--trace", "tasks.csv", *roomy)
    assert (found[0]["completed"]["mean"], found[0]["failed"]["mean"]) == (2, 0)


@pytest.mark.parametrize("scenario_too", [False, True])
def test_nodes_file_without_nodes_is_a_mistake(
    cli: Cli, scenario: Path, scenario_too: bool
) -> None:
    Path("nodes.csv").write_text(NODES.splitlines(keepends=True)[0])
    Path("tasks.csv").write_text(TASKS)
    given = (scenario,) if scenario_too else ("--trace", "tasks.csv")
    done = cli("compute-market", "simulate", *given, "--nodes", "nodes.csv")
    assert (done.code, done.out) == (2, "")
    assert "nodes.csv: there is no node in it" in done.err


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (None, "nosuch.swf: no such file or directory"),
        ("1 2\n", "nosuch.swf:1: 2 fields"),
    ],
)
def test_trace_of_a_scenario_is_told_with_its_key(
    cli: Cli, scenario: Path, trace: str | None, message: str
) -> None:
    if trace is not None:
        Path("nosuch.swf").write_text(trace)
    arrivals = 'arrivals = { process = "trace", file = "nosuch.swf" }'
    scenario.write_text(SCENARIO.replace(SCENARIO.splitlines()[-1], arrivals))
    done = cli("compute-market", "simulate", scenario)
    assert (done.code, done.out) == (2, "")
    assert f"s.toml:{len(SCENARIO.splitlines())}: buyers[0].arrivals.file: " in done.err
    assert message in done.err


def test_replay_of_a_log_gives_back_what_happened(cli: Cli, log: Path) -> None:
    home = cli.files()
    done = cli("compute-market", "simulate", "--replay", log, "--json")
    assert done.code == 0, done
    assert done.err.count("\n") == 1
    assert "the log says nothing of caps, capabilities" in done.err
    jobs = json.loads(done.out)["jobs"]
    # Each offer of 3 units has room for one job of 2, at its own price; the third finds none.
    assert (jobs["submitted"], jobs["admitted"], jobs["cancelled"]) == (3, 2, 1)
    assert list(jobs["refused"].values()) == [1]
    piped = cli("compute-market", "simulate", "--replay", "-", "--json", stdin=log.read_text())
    assert json.loads(piped.out)["jobs"] == jobs
    # The home knows more than its log, and is only read.
    done = cli("compute-market", "simulate", "--replay", cli.home, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["jobs"] == jobs
    assert cli.files() == home


def test_replay_infers_offers_from_before_its_log(cli: Cli, log: Path) -> None:
    lines = log.read_text().splitlines(keepends=True)
    cut = "".join(line for line in lines if '"offer_posted"' not in line)
    done = cli("compute-market", "simulate", "--replay", "-", "--json", stdin=cut)
    assert done.code == 0, done
    assert "offers posted before the log begins: 2, taken to be of as many units" in done.err
    assert json.loads(done.out)["jobs"]["admitted"] == 2


@pytest.mark.parametrize(
    ("number", "before", "after"),
    [
        (3, '"units":3', '"units":0'),
        (3, '"price_per_unit":4', '"price_per_unit":-1'),
        (5, '"units":2', '"units":0'),
    ],
)
def test_replay_of_a_number_that_cannot_be_names_its_line(
    cli: Cli, log: Path, number: int, before: str, after: str
) -> None:
    lines = log.read_text().splitlines(keepends=True)
    assert before in lines[number - 1], lines
    lines[number - 1] = lines[number - 1].replace(before, after)
    log.write_text("".join(lines))
    done = cli("compute-market", "simulate", "--replay", log)
    assert (done.code, done.out) == (2, "")
    name, value = after[1:].split('":')
    assert f"log.jsonl:{number}: {name} is {value}, not" in done.err


def test_replay_of_another_form_of_the_log_says_which_is_wanted(cli: Cli, log: Path) -> None:
    for form in ((), ("--json",)):
        done = cli("compute-market", "simulate", "--replay", "-", stdin=cli.ok("log", *form))
        assert done.code == 2
        assert "`tb-cli log --jsonl` prints what is wanted" in done.err


def test_replay_plays_what_happened_beside_the_jobs(cli: Cli, scenario: Path) -> None:
    lines: list[str] = []

    def happened(secs: int, event: str, **fields: Any) -> None:
        at_ms = 1_800_000_000_000 + secs * 1_000
        known = {"seq": len(lines) + 1, "at_ms": at_ms, "event": event}
        lines.append(json.dumps(known | fields))

    def submitted(secs: int, job_id: str) -> None:
        price = {"units": 200, "price_per_unit": 3, "provider": "p"}
        happened(secs, "job_queued", owner="b", job_id=job_id, offer_id="o", detail=price)
        happened(secs, "job_started", owner="b", job_id=job_id)
        happened(secs + 1, "job_completed", owner="b", job_id=job_id)

    change = {"proposal": 1, "key": "fair_share_cap", "value": "0.5"}
    happened(0, "mode_changed", detail={"to": "dry_run"})
    happened(0, "offer_posted", owner="p", offer_id="o", detail={"units": 900, "price_per_unit": 3})
    happened(1, "capacity_recorded", detail={"units_per_second": 19, "estimate": 12})
    happened(2, "tx_admitted", owner="c", detail={"fee": 100, "bytes": 9})
    submitted(3, "too-much")  # A quarter of 12 units a second are 180 in a minute.
    happened(100, "params_activated", detail=change)
    submitted(200, "half")
    happened(300, "params_rolled_back", detail=change)
    happened(300, "mode_changed", detail={"to": "real"})
    submitted(400, "too-much-again")
    happened(500, "capacity_recorded", detail={"units_per_second": 99, "estimate": 99})
    submitted(600, "real")
    text = "\n".join(lines)
    found = document(cli, "--replay", "-", stdin=text)
    assert found["jobs"]["refused"] == {"fair_share": 2}
    assert found["jobs"]["completed"] == 2
    assert found["money"]["paid"]["ct"] == 600  # Of the last one alone.
    assert found["consumers"]["admitted"] == 1
    # What is tried stands, whatever the log says of it.
    low, high = document(cli, "--replay", "-", "--param", "fair_share_cap=0.01,0.9", stdin=text)
    assert (low["completed"]["mean"], high["completed"]["mean"]) == (0, 4)
