"""`compute explain`: why a job runs, waits or would be refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tb_cli.entry import call
from tb_cli.frame.guard import guarded
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def need(cli: Cli, *jobs: dict[str, Any]) -> Path:
    """A file of jobs, each of which asks for little."""
    path = cli.directory / "need.json"
    path.write_text("".join(json.dumps({"workload": "transcode"} | job) + "\n" for job in jobs))
    return path


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What a command shows to eyes."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", shown)
        assert guarded(lambda: call(list(words)), list(words)) == 0
    return shown.getvalue()


def test_explain_names_every_condition_an_offer_fails(cli: Cli) -> None:
    cli.post("--gpu", "A100", "--gpu-count", "1", "--gpu-memory-mb", "8192")
    cli.post("--gpu", "H100", "--gpu-count", "4", "--gpu-memory-mb", "98304", price=101)
    asked = ("--gpu", "H100", "--gpu-count", "2", "--gpu-memory-mb", "16384")
    cli.submit("j1", *asked, "--wait")
    assert cli.ok("compute", "explain", "j1") == (
        "o-1: gpu: needs H100, has A100; gpu_count: needs 2, has 1; "
        "gpu_memory_mb: needs 16384, has 8192\n"
        "o-2: max_price_per_unit: allows 100, asks 101\n"
        "0 of 2 fit\n"
        "nearest: o-2 of prov would fit with max_price_per_unit 101 instead of 100\n"
        f"decision: verdict=pending at={cli.now} reason=price units=1 mode=loose message=no offer "
        "that fits has the terms asked for: o-2, the cheapest, asks 101 per unit, more than the "
        "100 allowed\n"
        "totals: capability_mismatch=1 price_mismatch=1\n"
    )
    only = cli.document("compute", "explain", "j1", "--offer", "o-2")
    assert only == {
        "job_id": "j1",
        "state": "pending",
        "decision": {
            "verdict": "pending",
            "at": cli.now,
            "reason": "price",
            "units": 1,
            "mode": "loose",
            "message": "no offer that fits has the terms asked for: o-2, the cheapest, asks 101 "
            "per unit, more than the 100 allowed",
        },
        "held": None,
        "totals": {"price_mismatch": 1},
        "offers": [
            {
                "offer_id": "o-2",
                "provider": "prov",
                "fits": False,
                "result": "price_mismatch",
                "shortfalls": [
                    {
                        "condition": "max_price_per_unit",
                        "asked": 100,
                        "offered": 101,
                        "text": "max_price_per_unit: allows 100, asks 101",
                    }
                ],
                "price_per_unit": 101,
                "effective_price": 101,
                "rank": None,
                "wins": False,
            }
        ],
        "fitting": 0,
        "considered": 1,
        "winner": None,
        "nearest": {
            "offer_id": "o-2",
            "provider": "prov",
            "effective_price": 101,
            "changes": [
                {
                    "whose": "job",
                    "name": "j1",
                    "field": "max_price_per_unit",
                    "now": 100,
                    "needed": 101,
                    "text": "max_price_per_unit 101 instead of 100",
                }
            ],
        },
        "queue": None,
        "note": None,
    }


def test_explain_says_who_wins_at_what_price(cli: Cli) -> None:
    cli.post(price=9, provider="dear")
    cli.post(price=5, provider="acme")
    cli.post("--cpu-cores", "8", price=1, provider="acme")
    path = need(cli, {"capability": {"cpu_cores": 8}})
    assert cli.ok("compute", "explain", path).splitlines()[0] == "o-3: fits at 1, wins"
    lines = cli.ok("compute", "explain", "--max-price", "9").splitlines()
    assert lines == [
        "o-3: fits at 1, wins",
        "o-2: fits at 5, rank 2: o-3 wins at 1",
        "o-1: fits at 9, rank 3: o-3 wins at 1",
        "3 of 3 fit; cheapest 1 from acme (o-3)",
        "totals: success=3",
    ]
    (one,) = cli.document("compute", "explain", "--max-price", "9", "--offer", "o-1")["offers"]
    assert (one["rank"], one["effective_price"], one["wins"]) == (3, 9, False)


def test_explain_begins_with_the_summary_on_a_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok(
        *("compute", "offer", "post", "-"),
        stdin="".join(
            json.dumps({"provider": f"p{n}", "units": 1, "price_per_unit": n}) + "\n"
            for n in range(1, 13)
        ),
    )
    words = ("compute", "explain", "--max-price", "11")
    shown = on_a_terminal(monkeypatch, *words).splitlines()
    assert shown[0] == "11 of 12 fit; cheapest 1 from p1 (o-1)"
    assert shown[1] == "o-1: fits at 1, wins"
    assert shown[-1] == "2 more; -v shows all"
    assert len(shown) == 12
    assert len(on_a_terminal(monkeypatch, *words, "-v").splitlines()) == 13
    # In a pipe there is a line for each, as ever.
    assert sum(line.startswith("o-") for line in cli.ok(*words).splitlines()) == 12


def test_changing_what_explain_names_flips_the_verdict(cli: Cli) -> None:
    cli.post("--gpu", "H100", "--gpu-memory-mb", "8192")
    asked = ("--gpu", "H100", "--gpu-memory-mb", "16384")
    (change,) = cli.document("compute", "explain", *asked)["nearest"]["changes"]
    assert (change["field"], change["needed"]) == ("gpu_memory_mb", 8192)
    cli.submit("j1", "--gpu", "H100", "--gpu-memory-mb", str(change["needed"]))
    assert cli.job()["offer_id"] == "o-1"


def test_explain_of_several_models_names_them_all(cli: Cli) -> None:
    cli.post("--gpu", "V100")
    cli.post("--gpu", "T4")
    cli.submit("j1", "--gpu", "A100", "--gpu", "H100", "--wait")
    assert cli.ok("compute", "explain", "j1").splitlines()[:2] == [
        "o-1: gpu: needs A100 or H100, has V100",
        "o-2: gpu: needs A100 or H100, has T4",
    ]
    path = need(cli, {"capability": {"gpu": ["T4", "A100"]}})
    assert cli.ok("compute", "explain", path).splitlines()[:2] == [
        "o-2: fits at 5, wins",
        "o-1: gpu: needs A100 or T4, has V100",
    ]


def test_explain_takes_a_job_file_and_options_win(cli: Cli) -> None:
    cli.post("--cpu-cores", "2")
    path = need(cli, {"capability": {"cpu_cores": 4}})
    assert cli.ok("compute", "explain", path) == (
        "o-1: cpu_cores: needs 4, has 2\n0 of 1 fit\n"
        "nearest: o-1 of prov would fit with cpu_cores 2 instead of 4\n"
        "totals: capability_mismatch=1\n"
    )
    found = cli.document("compute", "explain", path, "--cpu-cores", "2")
    assert (found["fitting"], found["state"]) == (1, None)
    assert cli.ok("compute", "explain", "-", stdin=path.read_text()).startswith("o-1: cpu_cores")
    assert cli.states() == {}


def test_explain_says_what_holds_a_job_that_fits(cli: Cli) -> None:
    cli.real()
    cli.post()
    assert cli.document("compute", "explain", "--max-price", "9")["held"] is None
    held = cli.document("compute", "explain", "--max-price", "9", "--buyer", "bob")["held"]
    assert (held["by"], held["message"]) == ("funds", "wallet of bob has 0 CT, 1 CT are needed")
    lines = cli.ok("compute", "explain", "--max-price", "9", "--buyer", "bob").splitlines()
    assert lines[1] == "1 of 1 fit; cheapest 5 from prov (o-1)"
    assert lines[2].startswith("held: funds: wallet of bob has 0 CT")


def test_refusal_by_admission_passes_when_explain_says(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_FAIR_SHARE_CAP", "1")
    monkeypatch.setenv("TB_INITIAL_CAPACITY", "10")
    cli.post(units=9000)
    cli.submit("j1", slices=[cli.sparse(400)["path"]])
    path = need(cli, {"slices": [cli.sparse(201)]})
    for buyer in ((), ("--buyer", "bob")):  # The load is the same for everybody.
        found = cli.document("compute", "explain", path, *buyer)
        assert found["fitting"] == 1
        assert found["held"] == {
            "by": "admission: capacity",
            "message": "the job needs 201 units, 200 of the 600 in 60 s are left",
            "hint": "it would pass in 1 s",
            "retry_after_ms": found["held"]["retry_after_ms"],
        }
        assert 0 < found["held"]["retry_after_ms"] <= 1000
    held = (
        "held: admission: capacity: the job needs 201 units, 200 of the 600 in 60 s are left; "
        "it would pass in 1 s"
    )
    assert held in cli.ok("compute", "explain", path).splitlines()
    cli.advance(1)
    assert cli.document("compute", "explain", path)["held"] is None


def test_explain_tells_the_place_in_the_queue(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("runs")
    for number in range(13):
        cli.submit(f"q{number:02}")
    found = cli.document("compute", "explain", "q12")
    assert found["held"] == {"by": "slots", "message": "1 of 1 slots are taken"}
    assert found["queue"] == {
        "place": 13,
        "waiting": 13,
        "held_by": "slots",
        "ahead": [f"q{number:02}" for number in range(10)],
        "held_ahead": 0,
        "waited_ms": 0,
    }
    lines = cli.ok("compute", "explain", "q12").splitlines()
    assert "held: slots: 1 of 1 slots are taken" in lines
    ahead = " ".join(f"q{number:02}" for number in range(10))
    assert f"queue: place 13 of 13, behind {ahead} and 2 more" in lines
    assert "queue: place 1 of 13" in cli.ok("compute", "explain", "q00").splitlines()


def test_explain_knows_those_that_are_held(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("runs")
    for number in range(5):
        cli.submit(f"q{number}")
    cli.ok("compute", "hold", "q1", "q2", "q4")
    lines = cli.ok("compute", "explain", "q3").splitlines()
    assert "queue: place 4 of 5, behind q0; 2 before it on hold" in lines
    place = cli.document("compute", "explain", "q3")["queue"]
    listed = {row[1]: int(row[0]) for row in cli("compute", "queue").rows}
    assert (place["place"], place["held_ahead"], place["ahead"]) == (listed["q3"], 2, ["q0"])
    held = cli.ok("compute", "explain", "q1").splitlines()
    assert "held: hold: it is held until `tb-cli compute release q1`" in held
    assert "queue: place 2 of 5, behind q0" in held


def test_explain_of_one_offer_that_is_withdrawn_says_that(cli: Cli) -> None:
    cli.post("--offer-id", "gone")
    cli.post("--offer-id", "there")
    cli.ok("compute", "offer", "withdraw", "gone")
    found = cli.ok("compute", "explain", "--max-price", "9", "--offer", "gone")
    assert "offer gone is withdrawn: nobody can take it" in found.splitlines()
    assert "there are no offers" not in found


def test_explain_of_a_job_that_has_its_place_or_has_ended_is_of_the_market_now(cli: Cli) -> None:
    cli.active()
    assert cli.document("compute", "explain", "j1")["note"] == (
        "job j1 has its units of o-1: this is how another like it would fare now"
    )
    cli.ok("compute", "cancel", "j1")
    assert cli.document("compute", "explain", "j1")["note"] == (
        "job j1 has ended (cancelled): this is the market as it is now"
    )


def test_explain_of_an_empty_market_says_so(cli: Cli) -> None:
    cli.ok("state", "init")
    empty = "there are no offers: `tb-cli compute offer post` posts one"
    assert cli.ok("compute", "explain", "--gpu", "T4").splitlines()[0] == empty
    cli.post()
    cli.ok("compute", "offer", "withdraw", "o-1")
    assert cli.ok("compute", "explain", "--gpu", "T4").splitlines() == [
        "o-1: state: is withdrawn; gpu: needs T4, has none; gpu_count: needs 1, has 0",
        empty,
        "totals: capability_mismatch=1",
    ]
    done = cli(*cli.job_arguments("j1"))
    assert done.err.startswith("error[refused]: there are no offers\n")


def test_explain_of_a_refused_job_tells_the_refusal(cli: Cli) -> None:
    assert cli(*cli.job_arguments("j1")).code == 5
    done = cli("compute", "explain", "j1")
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "error[not_found]: job j1 does not exist: it was refused, capability_mismatch: there are "
        "no offers\nhint: explain takes a job file, or the options of `submit`, as well\n"
    )


def test_explain_of_unknown_ids_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    error = "error[not_found]: job j1 does not exist\n"
    error += "hint: explain takes a job file, or the options of `submit`, as well\n"
    assert cli("compute", "explain", "j1") == (3, "", error)
    cli.active()
    done = cli("compute", "explain", "j1", "--offer", "nope")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error[not_found]: offer nope does not exist\n")


def test_bad_words_of_explain_are_usage(cli: Cli) -> None:
    cli.active()
    two = str(need(cli, {}, {}))
    none = cli.directory / "empty.json"
    none.touch()
    for words, said in (
        ((), "nothing to explain"),
        (("j1", "--gpu", "T4"), "j1 is no file: options are for a file, or for a job without one"),
        ((two,), f"{two}: holds more than one job"),
        ((str(none),), f"{none}: is empty"),
        (("-",), "stdin: is empty"),
        (("--slice", ""), "--slice is empty"),
        (("--buyer", "a b"), "--buyer 'a b' has the character ' '"),
        ((two, "--offer", ""), "--offer is empty"),
    ):
        done = cli("compute", "explain", *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error[usage]: {said}"), done.err


def test_offer_explain_says_why_it_gets_no_jobs(cli: Cli) -> None:
    cli.post(price=9, provider="dear")
    cli.post(price=5, provider="cheap")
    cli.submit("j1")
    cli.submit("j2")
    assert cli(*cli.job_arguments("j3", "--gpu", "H100")).code == 5
    lines = cli.ok("compute", "offer", "explain", "o-1").splitlines()
    assert lines[0].startswith("o-1: 3 jobs seen, 0 won, since ")
    assert lines[1:] == [
        "undercut: 2 (median winner 5, this offer 9)",
        "lacked: 1 (gpu 1, gpu_count 1)",
    ]
    found = cli.document("compute", "offer", "explain", "o-2", "--since", "1h")
    assert {name: found[name] for name in list(found)[:7]} == {
        "offer_id": "o-2",
        "seen": 3,
        "won": 2,
        "undercut": 0,
        "lacked": {"gpu": 1, "gpu_count": 1},
        "barred": 0,
        "unfunded": 0,
    }


def test_bad_words_of_offer_explain_are_told(cli: Cli) -> None:
    cli.post()
    for words, code, said in (
        (("o-9",), 3, "error[not_found]: offer o-9 does not exist"),
        (("",), 2, "error[usage]: offer id is empty"),
        (("o-1", "--since", "soon"), 2, "error[usage]: --since: 'soon' is no time"),
    ):
        done = cli("compute", "offer", "explain", *words)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(said)


def test_list_on_a_terminal_says_what_holds_a_job(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    cli.active("runs")
    cli.submit("waits")
    cli.submit("lost", "--gpu", "H100", "--wait")
    rows = on_a_terminal(monkeypatch, "compute", "list").splitlines()[-3:]
    held = {row.split()[0]: " ".join(row.split()[9:11]) for row in rows}
    assert held["lost"] == "no offer"
    assert held["waits"].startswith("slots ")
    assert held["runs"].startswith("- ")
    assert "held_by" not in cli.document("compute", "list")[0]


def test_decision_is_told_for_eyes_on_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.submit("j1", "--wait")
    cli.advance(90)
    shown = on_a_terminal(monkeypatch, "compute", "explain", "j1")
    assert shown.splitlines()[-1] == "decision: pending 90s ago: no offer: there are no offers"


def test_explain_asks_what_a_submission_asks_before_it_looks_for_an_offer(cli: Cli) -> None:
    cli.post()
    empty = str(cli.slice("empty.slice", b""))
    job = ("--buyer", "b", "--workload", "transcode", "--max-price", "9")
    slice_ = ("--slice", str(cli.slice()))
    for by, words in (
        ("deadline", (*slice_, "--deadline-secs", "1")),
        ("deadline", (*slice_, "--deadline-secs", "40d")),
        ("deadline", ("--deadline-secs", "1")),
        ("empty_slice", (*slice_, "--slice", empty)),
        ("consumer_bond_too_low", (*slice_, "--bond", "0")),
    ):
        found = cli.document("compute", "explain", *job, *words)
        assert found["held"]["by"] == by, words
        if slice_[0] in words:
            done = cli("compute", "submit", "--job-id", "j", *job, *words)
            assert done.err.startswith("error[refused]: ")
            message = found["held"]["message"]
            assert done.err.partition(": ")[2].partition("\n")[0] == message
            assert f"\nheld: {by}: {message}" in cli.ok("compute", "explain", *job, *words)
    # An id that stands for another job, or for this one.
    cli.ok("compute", "submit", "--job-id", "j", *job, *slice_)
    whole = ("compute", "explain", "--job-id", "j", *job, *slice_)
    assert cli.document(*whole)["held"] is None
    held = cli.document(*whole, "--priority", "high")["held"]
    assert (held["by"], held["hint"]) == ("conflict", "use another job id")
    assert "priority" in held["message"]
