"""`compute submit`."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from compute_market.errors import RefusedError
from compute_market.jobs.jobs import slices
from compute_market.market import Market
from tb_cli.frame.times import local, utc_text
from tests.support.cli import HELLO, JOB_FIELDS, MIB, NO_MONEY, WRONG, Cli

pytest_plugins = ("tests.support.cli",)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "workloads"


def job_file(cli: Cli, name: str = "job.json", **fields: Any) -> Path:
    cli.slice()
    document = {
        "job_id": "j1",
        "buyer": "alice",
        "workload": "transcode",
        "slices": ["a.slice"],
        "max_price_per_unit": 100,
    } | fields
    path = cli.directory / name
    path.write_text(json.dumps({key: value for key, value in document.items() if value != "-"}))
    return path


def stored(cli: Cli, job_id: str = "j1") -> list[tuple[str, int, str]]:
    entries = cli.view(lambda txn: list(slices(txn, job_id)))
    return [(entry.path, entry.length, entry.reference.hex()) for entry in entries]


def test_submit_by_options(cli: Cli) -> None:
    cli.post()
    big = cli.slice("b.slice", bytes(MIB + 1))
    arguments = cli.job_arguments("j1", slices=[cli.slice(), big])
    assert cli.ok(*arguments) == f"submitted job j1: active, 3 units at 5 from prov{NO_MONEY}\n"
    digest = "c9b3e89559bb623b5e2dc19daebf3933c1afe5ee5dca08428522e60a40fcb998"
    assert stored(cli) == [
        (str(cli.directory / "a.slice"), 5, HELLO),
        (str(big), MIB + 1, digest),
    ]
    offer = cli.offer()
    assert (offer["units_left"], offer["units_reserved"]) == (997, 3)


def test_submit_json_is_the_job_and_whether_it_is_new(cli: Cli) -> None:
    cli.post()
    dry = cli.document(*cli.job_arguments(), "--dry-run")
    assert list(dry) == [*JOB_FIELDS, "changed", "dry_run"]
    document = cli.document(*cli.job_arguments())
    assert list(document) == [*JOB_FIELDS, "changed"]
    assert document == cli.job() | {"changed": True}
    assert cli.document(*cli.job_arguments()) == cli.job() | {"changed": False}


def test_submit_by_file_finds_slices_beside_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.post()
    path = job_file(
        cli,
        _note="a comment",
        capability={},
        consumer_bond=2,
        deadline=cli.now + 500,
        priority="high",
        lane="consumer",
        slices=["a.slice", {"path": "./a.slice", "reference": HELLO.upper()}],
    )
    monkeypatch.chdir("/")
    assert (
        cli.ok("compute", "submit", path)
        == f"submitted job j1: active, 2 units at 5 from prov{NO_MONEY}\n"
    )
    assert stored(cli) == [(str(cli.directory / "a.slice"), 5, HELLO)] * 2
    job = cli.job()
    given = {"deadline": cli.now + 500, "priority": "high", "lane": "consumer", "consumer_bond": 2}
    assert {name: job[name] for name in given} == given


def test_options_win_over_the_file(cli: Cli) -> None:
    cli.post("--cpu-cores", "4")
    other = cli.slice("other.slice", b"hello!")
    path = job_file(
        cli, capability={"cpu_cores": 99}, deadline=1, priority="low", max_price_per_unit=1
    )
    cli.ok(
        *("compute", "submit", path, "--job-id", "mine", "--buyer", "bob", "--slice", other),
        *("--workload", "inference", "--max-price", "5", "--bond", "3", "--deadline-secs", "60"),
        *("--priority", "high", "--lane", "consumer", "--cpu-cores", "2"),
    )
    job = cli.job("mine")
    expected = {
        "buyer": "bob",
        "workload": "inference",
        "max_price_per_unit": 5,
        "consumer_bond": 3,
        "deadline": cli.now + 60,
        "priority": "high",
        "lane": "consumer",
        "capability": {"cpu_cores": 2},
    }
    assert {name: job[name] for name in expected} == expected
    assert stored(cli, "mine")[0][:2] == (str(other), 6)


def test_reference_that_is_false_is_refused_and_stores_nothing(cli: Cli) -> None:
    cli.post()
    before = cli.files()
    done = cli("compute", "submit", job_file(cli, slices=[{"path": "a.slice", "reference": WRONG}]))
    text = f"slice 0 does not give the reference of the job file: {cli.directory}/a.slice"
    hint = "leave the reference out, or restore the file"
    refused = "refused job j1: reference_mismatch\n"
    assert done == (9, refused, f"error[integrity]: {text}\nhint: {hint}\n")
    assert HELLO not in done.out + done.err
    assert cli.files() == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cpu_only", ()),
        ("gpu_inference", ()),
        ("multi_gpu", ()),
        ("tpu_inference", ()),
    ],
)
def test_examples_need_only_buyer_slice_and_price(
    cli: Cli, name: str, options: tuple[str, ...]
) -> None:
    path = EXAMPLES / f"{name}.json"
    document = json.loads(path.read_text())
    asked = [
        text
        for field, value in document["capability"].items()
        for text in (f"--{field.replace('_', '-')}", str(value))
    ]
    cli.post(*asked)
    given = ("--buyer", "alice", "--slice", cli.slice(), "--max-price", "5")
    job = cli.document("compute", "submit", path, *given)
    assert job["job_id"] == document["job_id"]
    assert job["workload"] == document["workload"]
    assert (job["state"], job["offer_id"]) == ("active", "o-1")


def test_submit_again_changes_nothing(cli: Cli) -> None:
    cli.active()
    assert cli.ok(*cli.job_arguments()) == "job j1 exists, unchanged: active\n"
    cli.advance(3600)
    assert cli.ok(*cli.job_arguments()) == "job j1 exists, unchanged: active\n"
    cli.ok("compute", "execute", "j1")
    assert cli.ok(*cli.job_arguments()) == "job j1 exists, unchanged: completed\n"
    assert cli.offer()["units_left"] == 999


@pytest.mark.parametrize(
    ("field", "options", "before", "now"),
    [
        ("buyer", ("--buyer", "bob"), "alice", "bob"),
        ("workload", ("--workload", "inference"), "transcode", "inference"),
        ("max_price_per_unit", ("--max-price", "99"), "100", "99"),
        ("consumer_bond", ("--bond", "2"), "1", "2"),
        ("deadline_secs", ("--deadline-secs", "99"), "86400", "99"),
        ("priority", ("--priority", "low"), "normal", "low"),
        ("lane", ("--lane", "consumer"), "industrial", "consumer"),
        ("slices[0].length", ("--slice", "b.slice"), "5", "6"),
    ],
)
def test_same_id_with_other_content_is_a_conflict(
    cli: Cli, field: str, options: tuple[str, ...], before: str, now: str
) -> None:
    cli.active()
    path = job_file(cli)
    if "--slice" in options:
        cli.slice("a.slice", b"hello!")
        options = ()
    done = cli("compute", "submit", path, *options)
    text = f"job j1 exists with {field} {before}, not {now}"
    hint = "hint: use another job id"
    assert done == (6, f"{text}\n", f"error[conflict]: {text}\n{hint}\n")
    assert cli("compute", "submit", path, *options, "--json").error["field"] == field
    assert cli.offer()["units_reserved"] == 1


# What each job asks that makes it no job, the code and the reason it gets.
NO_JOB: list[tuple[dict[str, Any], int, str]] = [
    ({"deadline_secs": 1}, 5, "deadline"),
    ({"consumer_bond": 0}, 5, "consumer_bond_too_low"),
    ({"slices": ["empty.slice"]}, 5, "empty_slice"),
    ({"slices": ["nope"]}, 2, "missing"),
    ({"slices": [{"path": "a.slice", "reference": WRONG}]}, 9, "reference_mismatch"),
    ({"slices": ["/etc/passwd"]}, 5, "outside_slice_root"),
    ({"max_price_per_unit": 1}, 5, "price_mismatch"),
]


def test_every_refused_job_is_named_with_its_reason_alone_and_among_others(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SLICE_ROOT", str(cli.directory))
    cli.post()
    cli.slice("empty.slice", b"")
    files = []
    for number, (fields, code, reason) in enumerate(NO_JOB):
        files.append(job_file(cli, f"{number}.json", job_id=f"j{number}", **fields))
        done = cli("compute", "submit", files[-1])
        assert (done.code, done.out) == (code, f"refused job j{number}: {reason}\n")
        assert done.err.startswith("error[")
    lines = cli("compute", "submit", *files).out.splitlines()
    for number, (line, (_, _, reason)) in enumerate(zip(lines, NO_JOB, strict=True)):
        said, _, detail = line.partition(f": {reason}")
        assert said == f"refused job j{number}"
        # What only this job knows is told on its line: there is no other place for it.
        assert detail[:2] == ("" if reason == "price_mismatch" else ": ")
    assert "empty.slice is empty" in lines[2]


TERMS = "no offer that fits has the terms asked for: o-1, the cheapest,"
# Reason, what the buyer is told, the offer's options, the job's.
REFUSED = [
    (
        "capability_mismatch",
        "no offer of another provider has the capability asked for",
        ("--gpu", "A100"),
        ("--gpu", "H100"),
    ),
    (
        "reputation_failure",
        "every offer that fits is of a provider in bad standing",
        ("--reputation", "-1"),
        (),
    ),
    (
        "price_mismatch",
        f"{TERMS} asks 5 per unit, more than the 4 allowed",
        (),
        ("--max-price", "4"),
    ),
    (
        "price_mismatch",
        f"{TERMS} asks a buyer's bond of 9, more than the 8 given",
        ("--consumer-bond", "9"),
        ("--bond", "8"),
    ),
    (
        "price_mismatch",
        f"{TERMS} locks a bond of 7, less than the 8 wanted",
        ("--bond", "7"),
        ("--provider-bond-min", "8"),
    ),
    (
        "price_mismatch",
        f"{TERMS} asks 5 per unit, more than the 4 allowed and locks a bond of 7, less than the 8 "
        "wanted",
        ("--bond", "7"),
        ("--provider-bond-min", "8", "--max-price", "4"),
    ),
    ("no_capacity", "no offer that fits has enough units left", ("--units", "1"), ()),
]


EXPLAIN = "`tb-cli compute explain`, given the same, names what each offer lacks"
WAYS_OUT = {
    "capability_mismatch": EXPLAIN,
    "price_mismatch": EXPLAIN,
    "reputation_failure": "`tb-cli net reputation show` lists the scores; `tb-cli net reputation "
    "adjust PROVIDER +N --reason TEXT` adds to one",
    "no_capacity": "`tb-cli compute offer list` tells what each has left; `tb-cli compute offer "
    "set OFFER --units +N` adds units",
    "bond_unfunded": "`tb-cli wallet deposit PROVIDER --ct N` fills the wallet that pays the bond; "
    "`tb-cli compute offer list` shows which offers lack it",
}


@pytest.mark.parametrize(("reason", "message", "offered", "asked"), REFUSED)
def test_submit_without_a_match_is_refused(
    cli: Cli, reason: str, message: str, offered: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    cli.post(*offered)
    files = [cli.slice(), cli.slice("b.slice", b"b")]
    hint = f"{WAYS_OUT[reason]}; --wait keeps the job until an offer fits"
    done = cli(*cli.job_arguments("j1", *asked, slices=files))
    assert done == (5, f"refused job j1: {reason}\n", f"error[refused]: {message}\nhint: {hint}\n")
    done = cli(*cli.job_arguments("j1", *asked, slices=files), "--json")
    assert (done.code, done.out) == (5, "")
    assert done.error == {
        "error": "refused",
        "reason": reason,
        "message": message,
        "hint": hint,
        "retryable": reason == "no_capacity",  # Units come back.
    }
    assert cli.states() == {}
    assert cli.document("compute", "stats")[reason] == 2
    refusals = cli.document("log", "--event", "job_refused")
    assert [(event["job_id"], event["owner"]) for event in refusals] == [("j1", "alice")] * 2
    assert [event["detail"]["reason"] for event in refusals] == [reason, reason]
    assert cli.offer()["units_reserved"] == 0


def test_the_last_decision_is_kept_for_explain(cli: Cli) -> None:
    cli(*cli.job_arguments("j1"))
    done = cli("compute", "explain", "j1")
    assert (done.code, done.err.splitlines()[0]) == (
        3,
        "error[not_found]: job j1 does not exist: it was refused, capability_mismatch: "
        "there are no offers",
    )


def test_admission_refusal_says_when_it_would_pass(cli: Cli) -> None:
    cli.ok("compute-market", "capacity", "record", "20")  # with the seed of 100: 60
    cli.post("--multiplier", "1", price=1)
    big = [cli.slice("big.slice", bytes(60 * MIB))]
    for number in range(15):
        cli.submit(f"j{number}", slices=big)
    done = cli(*cli.job_arguments("late", slices=big), "--json")
    assert (done.code, done.out) == (5, "")
    assert done.error["error"] == "refused"
    assert done.error["reason"] == "fair_share"
    assert done.error["retryable"] is True
    wait_ms = done.error["retry_after_ms"]
    assert 0 < wait_ms <= 60_000
    cli.advance(-(-wait_ms // 1000))
    assert cli.submit("late", slices=big)["state"] == "active"


def test_demand_over_what_the_market_does_in_a_minute_is_a_capacity_refusal(cli: Cli) -> None:
    cli.ok("compute-market", "capacity", "record", "0")  # with the seed of 100: 50
    cli.post(units=9000)
    done = cli("compute", "submit", job_file(cli, slices=[cli.sparse(3001)]), "--json")
    assert (done.code, done.error["reason"]) == (5, "capacity")
    assert done.error["message"] == "the job needs 3001 units, the market does 3000 in 60 s"
    assert done.error["hint"].startswith("split it into jobs of at most 3000 units")
    assert (done.error["retryable"], "retry_after_ms" in done.error) == (False, False)
    assert json.loads(cli.ok("compute-market", "stats"))["industrial_backlog"] == 0


def test_demand_over_the_headroom_is_a_capacity_refusal_that_passes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_FAIR_SHARE_CAP", "1")
    monkeypatch.setenv("TB_INITIAL_CAPACITY", "10")
    cli.post(units=9000)
    first, second = (
        job_file(cli, f"{job_id}.json", job_id=job_id, buyer=job_id, slices=[cli.sparse(units)])
        for job_id, units in (("j1", 400), ("j2", 201))
    )
    cli.ok("compute", "submit", first)
    done = cli("compute", "submit", second, "--json")
    assert (done.code, done.error["reason"]) == (5, "capacity")
    message = "the job needs 201 units, 200 of the 600 in 60 s are left"
    assert (done.error["message"], done.error["retryable"]) == (message, True)
    assert cli.document("compute-market", "capacity", "show")["headroom"] == 200
    cli.advance(-(-done.error["retry_after_ms"] // 1000))
    assert cli.document("compute", "submit", second)["state"] == "active"


def test_buyer_without_funds_is_refused_in_real_mode(cli: Cli) -> None:
    cli.real()
    cli.post()
    done = cli(*cli.job_arguments("j1", buyer="bob"), "--json")
    assert (done.code, done.error["reason"]) == (5, "insufficient_funds")
    assert done.error["message"] == "wallet of bob has 0 CT, 6 CT are needed"
    cli.ok("wallet", "deposit", "bob", "--ct", "6")
    assert cli.submit("j1", buyer="bob")["escrow"] == {"ct": 5, "it": 0}
    assert cli.wallet("bob") == (0, 0)


def test_provider_without_funds_is_passed_over_in_real_mode(cli: Cli) -> None:
    cli.real()
    cli.post(provider="poor")
    done = cli(*cli.job_arguments("j1"), "--json")
    assert (done.code, done.error["reason"]) == (5, "bond_unfunded")
    assert done.error["hint"].startswith(WAYS_OUT["bond_unfunded"])


def test_wait_keeps_a_job_without_a_match(cli: Cli) -> None:
    out = cli.ok(*cli.job_arguments("j1"), "--wait")
    assert out == "submitted job j1: pending, no offer fits yet\n"
    assert cli.ok(*cli.job_arguments("j1"), "--wait") == "job j1 exists, unchanged: pending\n"
    assert cli.states() == {"j1": "pending"}
    cli.post()
    assert cli.states() == {"j1": "active"}


def test_job_queues_while_all_slots_are_taken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("j1")
    out = cli.ok(*cli.job_arguments("j2"))
    assert out == f"submitted job j2: queued, 1 unit at 5 from prov{NO_MONEY}\n"
    cli.ok("compute", "cancel", "j1")
    assert cli.job("j2")["state"] == "active"


def test_cheapest_effective_price_wins(cli: Cli) -> None:
    cli.post(price=10, provider="a")
    cli.post("--multiplier", "0.5", price=18, provider="b")
    job = cli.submit("j1")
    assert (job["provider"], job["price_per_unit"]) == ("b", 18)


def test_many_files_and_lines_each_get_an_outcome(cli: Cli) -> None:
    cli.post()
    first = job_file(cli, "1.json")
    second = job_file(cli, "2.json", job_id="j2", max_price_per_unit=1)
    third = json.dumps(json.loads(first.read_text()) | {"job_id": "j3"})
    fourth = json.dumps(json.loads(first.read_text()) | {"job_id": "j4"})
    done = cli("compute", "submit", first, second, "-", stdin=f"{third}\n{fourth}\n")
    assert done == (
        7,
        f"submitted job j1: active, 1 unit at 5 from prov{NO_MONEY}\n"
        "refused job j2: price_mismatch\n"
        f"submitted job j3: active, 1 unit at 5 from prov{NO_MONEY}\n"
        f"submitted job j4: active, 1 unit at 5 from prov{NO_MONEY}\n",
        "1 of 4 failed: 1 price_mismatch\n"
        "hint: price_mismatch: `tb-cli compute explain`, given the same, names what each offer "
        "lacks; --wait keeps the job until an offer fits\n",
    )
    assert cli.states() == {"j1": "active", "j3": "active", "j4": "active"}


def test_many_jobs_as_json_are_a_list_and_as_jsonl_lines(cli: Cli) -> None:
    cli.post()
    paths = [job_file(cli, f"{n}.json", job_id=f"j{n}") for n in (1, 2)]
    done = cli("compute", "submit", *paths, "--jsonl")
    assert [document["job_id"] for document in done.jsonl] == ["j1", "j2"]
    again = cli.document("compute", "submit", *paths)
    assert again == [cli.job(name) | {"changed": False} for name in ("j1", "j2")]


def test_one_job_id_for_many_files_is_usage(cli: Cli) -> None:
    paths = [job_file(cli, f"{n}.json") for n in (1, 2)]
    error = "error[usage]: --job-id names one job, and more are given\n"
    assert cli("compute", "submit", *paths, "--job-id", "x") == (2, "", error)
    given = "".join(path.read_text() + "\n" for path in paths)
    assert cli("compute", "submit", "-", "--job-id", "x", stdin=given) == (2, "", error)
    assert not cli.home.exists()


def test_file_that_is_not_there_stops_the_run_before_it_begins(cli: Cli) -> None:
    good = job_file(cli)
    error = "error[usage]: missing.json: no such file or directory\n"
    command = ("compute", "submit", "--chunk", "1")
    assert cli(*command, good, good, "missing.json") == (2, "", error)
    error = f"error[usage]: {cli.directory}: is a directory\n"
    assert cli(*command, good, good, cli.directory) == (2, "", error)
    assert not cli.home.exists()


def test_line_that_is_wrong_fails_alone_and_is_named(cli: Cli) -> None:
    cli.post()
    job = json.loads(job_file(cli).read_text())
    good = [json.dumps(job | {"job_id": name}) for name in ("a", "b")]
    bad = ["{", "[1]", json.dumps(job | {"prize": 1}), json.dumps(job | {"job_id": "no such"})]
    given = "\n".join([good[0], *bad, "", good[1]])
    done = cli("compute", "submit", "-", stdin=given)
    assert (done.code, done.err) == (7, "4 of 6 failed: 4 usage\n")
    first, *failed, last = done.out.splitlines()
    assert first == f"submitted job a: active, 1 unit at 5 from prov{NO_MONEY}"
    assert last == f"submitted job b: active, 1 unit at 5 from prov{NO_MONEY}"
    assert [line.partition(":")[0] for line in failed] == [
        *("stdin line 2, column 2", "stdin line 3", "stdin line 4", "stdin line 5"),
    ]
    assert "prize" in failed[2]
    done = cli("compute", "submit", "-", "--jsonl", stdin=given)
    assert [document["changed"] for document in done.jsonl] == [False] * 6
    assert [document.get("error", {}).get("error") for document in done.jsonl] == [
        *(None, "usage", "usage", "usage", "usage", None),
    ]


def test_lines_that_are_all_wrong_are_usage_and_open_no_transaction(cli: Cli) -> None:
    done = cli("compute", "submit", "-", stdin='{"job_id": "a"}\n{"job_id": "b"}\n')
    hint = "hint: usage: it goes into the file, or is given with --buyer\n"
    assert (done.code, done.err) == (2, f"2 of 2 failed: 2 usage\n{hint}")
    assert [line[:13] for line in done.out.splitlines()] == ["stdin line 1:", "stdin line 2:"]
    assert not cli.home.exists()
    done = cli("compute", "submit", "-", stdin='{"job_id": "a"}\n')
    assert (done.code, done.err.count("\n")) == (2, 2)
    assert not cli.home.exists()


def test_file_that_is_wrong_among_others_fails_alone(cli: Cli) -> None:
    cli.post()
    bad = cli.directory / "bad.json"
    bad.write_text("{\n  1\n}\n")
    empty = cli.directory / "empty.json"
    empty.write_text("")
    done = cli("compute", "submit", bad, job_file(cli), empty)
    assert (done.code, done.err) == (7, f"{empty}: nothing in it\n1 of 2 failed: 1 usage\n")
    first, second = done.out.splitlines()
    assert first.startswith(f"{bad}: line 2, column 3: ")
    assert second == f"submitted job j1: active, 1 unit at 5 from prov{NO_MONEY}"
    done = cli("compute", "submit", bad)
    assert (done.code, done.out, done.err[:13]) == (2, "", "error[usage]:")


def test_input_that_breaks_off_keeps_what_was_done(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli.frame import json_lines, lines

    cli.post()
    job = json.loads(job_file(cli).read_text())
    given = "".join(json.dumps(job | {"job_id": name}) + "\n" for name in "abc")
    monkeypatch.setattr(json_lines, "DOCUMENT_BYTES_MAX", 500)
    monkeypatch.setattr(lines, "SKIPPED_MAX", 1000)
    given += " " * 100_000 + "\n"
    done = cli("compute", "submit", "-", "--chunk", "2", stdin=given)
    assert (done.code, done.err) == (7, "1 of 4 failed: 1 usage\n")
    assert done.out.splitlines()[3] == "input: stdin line 4 does not end"
    assert list(cli.states()) == ["a", "b", "c"]
    # Nothing is done where the first transaction would come after it.
    done = cli("compute", "submit", "-", stdin=given.replace('"a"', '"z"'))
    assert (done.code, done.out) == (2, "")
    assert list(cli.states()) == ["a", "b", "c"]


def test_jobs_are_taken_as_they_are_read(cli: Cli) -> None:
    """A writer sees the outcomes of a chunk before it goes on."""
    cli.post()
    job = json.loads(job_file(cli).read_text())
    process = cli.start("compute", "submit", "-", "--chunk", "1", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    # Whether there is one job or many is known with the second.
    for names in (("a", "b"), ("c",), ("d",)):
        for name in names:
            process.stdin.write(json.dumps(job | {"job_id": name}).encode() + b"\n")
        process.stdin.flush()
        for name in names:
            assert process.stdout.readline().startswith(b"submitted job " + name.encode())
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 0


def test_any_of_several_models_will_do(cli: Cli) -> None:
    cli.post("--gpu", "V100", provider="old")
    one = cli.submit("one", "--gpu", "V100")
    assert one["capability"] == {"gpu": "V100", "gpu_count": 1}
    two = cli.submit("two", "--gpu", "A100", "--gpu", "V100", "--gpu-count", "1")
    assert two["capability"] == {"gpu": ["A100", "V100"], "gpu_count": 1}
    assert two["offer_id"] == "o-1"
    path = job_file(cli, job_id="three", capability={"gpu": ["A100", "V100"], "gpu_count": 1})
    cli.ok("compute", "submit", path)
    assert cli.job("three")["capability"] == two["capability"]
    assert cli.document("compute", "requirements", "three") == two["capability"]
    # Options win over the file, and the parser reads them as the plain way does.
    cli.ok("compute", "submit", path, "--job-id", "four", "--gpu=V100", "--gpu-count=1")
    assert cli.job("four")["capability"] == one["capability"]
    done = cli("compute", "submit", path, "--job-id", "five", "--gpu", "H100", "--gpu", "A100")
    assert (done.code, done.out) == (5, "refused job five: capability_mismatch\n")
    assert "capability: gpu=A100|V100 gpu_count=1\n" in cli.ok("compute", "status", "two")


def test_deadline_is_given_as_a_time(cli: Cli) -> None:
    cli.post()
    at = cli.now + 7200
    for number, text in enumerate((str(at), local(at * 1000), utc_text(at * 1000))):
        path = job_file(cli, job_id=f"j{number}", deadline_secs=60)
        assert cli.document("compute", "submit", path, "--deadline", text)["deadline"] == at
    # Either option gives way to none of the file, and both are one too many.
    path = job_file(cli, job_id="k", deadline=at)
    found = cli.document("compute", "submit", path, "--deadline-secs", "600")
    assert found["deadline"] == cli.now + 600
    done = cli("compute", "submit", path, "--deadline-secs", "9", "--deadline", str(at))
    assert done.err.startswith("error[usage]: --deadline and --deadline-secs are both given\n")
    done = cli("compute", "submit", path, "--deadline", "2h")
    assert done.err.startswith("error[usage]: --deadline: '2h' is a duration and no time\n")
    past = ("--job-id", "new", "--deadline", str(cli.now - 1))
    held = cli.document("compute", "explain", path, *past)["held"]
    assert held["by"] == "deadline"


def test_absolute_deadline_is_compared_as_given(cli: Cli) -> None:
    cli.post()
    path = job_file(cli, deadline=cli.now + 60)
    assert cli.document("compute", "submit", path)["deadline"] == cli.now + 60
    done = cli("compute", "submit", job_file(cli, deadline=cli.now + 61))
    text = f"job j1 exists with deadline {cli.now + 60}, not {cli.now + 61}"
    assert (done.code, done.out) == (6, f"{text}\n")


def test_unknown_workload_names_those_there_are(cli: Cli) -> None:
    cli.ok("state", "init")
    done = cli("compute", "submit", job_file(cli, workload="mine"))
    text = "unknown workload 'mine': known are gpu_hash, inference, transcode"
    assert (done.code, done.err) == (2, f"error[usage]: {text}\n")


def test_submit_waits_for_a_writer_that_takes_its_time(cli: Cli) -> None:
    """As in `compute submit <(…)`."""
    cli.ok("state", "init")
    path = job_file(cli, slices=[str(cli.slice())])
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as pipe:
            pipe.write(path.read_bytes())

    timer = threading.Timer(0.2, write)
    timer.start()
    done = cli("compute", "submit", f"/dev/fd/{reading}", "--wait")
    timer.join()
    os.close(reading)
    assert (done.code, done.err) == (0, "")


def far_too_long(cli: Cli) -> Path:
    """A slice of a TB that takes no room: whoever hashes it is not back for minutes."""
    path = cli.directory / "huge.slice"
    with path.open("wb") as file:
        file.truncate(2**40)
    return path


@pytest.mark.parametrize(
    ("extra", "reason"),
    [((), "no_capacity"), (("--cpu-cores", "9"), "capability_mismatch")],
)
def test_job_that_the_market_would_not_take_is_refused_before_it_is_hashed(
    cli: Cli, extra: tuple[str, ...], reason: str
) -> None:
    cli.post()
    done = cli(*cli.job_arguments("j1", *extra, slices=[far_too_long(cli)]), "--json")
    assert (done.code, done.error["reason"]) == (5, reason)
    assert cli.document("log", "--event", "job_refused")[0]["detail"]["reason"] == reason


def test_library_asks_before_it_hashes_too(cli: Cli) -> None:
    cli.post()
    path = far_too_long(cli)
    with (
        Market.open(str(cli.home), clock=lambda: cli.now_ms, sleep=time.sleep) as market,
        pytest.raises(RefusedError) as caught,
    ):
        market.submit(
            job_id="j1", buyer="b", workload="transcode", slices=[str(path)], max_price_per_unit=9
        )
    assert caught.value.reason == "no_capacity"


def test_explain_of_a_file_hashes_nothing(cli: Cli) -> None:
    cli.post()
    path = job_file(cli, slices=[str(far_too_long(cli))])
    (verdict,) = cli.document("compute", "explain", path)["offers"]
    assert verdict["result"] == "no_capacity"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"workload": "mine"}, 2),
        ({"slices": ["missing.slice"]}, 2),
        ({"slices": ["empty.slice"]}, 5),
        ({"consumer_bond": 0}, 5),
        ({"provider_bond_min": 0}, 5),
        ({"deadline": 1}, 5),
        ({"deadline_secs": 59}, 5),
        ({"deadline_secs": 2_592_001}, 5),
        ({"slices": [{"path": "a.slice", "reference": WRONG}]}, 9),
        ({"priority": "urgent"}, 2),
    ],
)
def test_bad_input_leaves_the_store_as_it_is(cli: Cli, fields: dict[str, Any], code: int) -> None:
    cli.post()
    cli.submit("late", "--deadline-secs", "60")
    cli.advance(61)  # What is due is not done either.
    cli.slice("empty.slice", b"")
    path = job_file(cli, **fields)
    before = cli.data.read_bytes()
    assert cli("compute", "submit", path).code == code
    assert cli.data.read_bytes() == before


def test_market_that_changes_while_a_slice_is_not_hashed_says_try_again(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli import submit

    cli.active()
    monkeypatch.setattr(submit, "ask", lambda *_, **__: False)
    done = cli(*cli.job_arguments("j2", slices=[cli.slice("big", bytes(2 * MIB))]), "--json")
    assert (done.code, done.error["reason"], done.error["retryable"]) == (5, "not_hashed", True)
    assert cli.states() == {"j1": "active"}


def test_job_says_what_bond_its_provider_has_at_least(cli: Cli) -> None:
    cli.post("--bond", "9")
    cli.post("--bond", "10", provider="other", price=6)
    assert cli.submit("j1", "--provider-bond-min", "10")["provider"] == "other"
    done = cli(*cli.job_arguments("j2", "--provider-bond-min", "11"), "--json")
    assert (done.code, done.error["reason"]) == (5, "price_mismatch")
    path = job_file(cli, provider_bond_min=11)
    assert "o-1: provider_bond_min: needs 11, has 9\n" in cli.ok("compute", "explain", path)


def test_id_that_collides_names_one_that_will_do(cli: Cli) -> None:
    cli.post("--reputation", "5")
    cli.submit("inv-1a", buyer="lice")
    cli.ok("compute", "cancel", "inv-1a")
    done = cli(*cli.job_arguments("inv-1", buyer="alice"), "--json")
    assert (done.code, done.error["reason"]) == (6, "key_collision")
    assert done.error["hint"] == "use another job id: inv-1.2 will do"
    assert cli.submit("inv-1.2", buyer="alice")["state"] == "active"


def test_outcome_of_options_names_the_job_they_ask_for(cli: Cli) -> None:
    done = cli("compute", "submit", "--job-id", "q")
    assert done == (2, "q: --buyer is missing\n", "error[usage]: --buyer is missing\n")
    assert cli("compute", "submit", "--buyer", "b").out == "--job-id is missing\n"
    done = cli("compute", "offer", "post", "--offer-id", "o")
    assert done.out == "o: --provider is missing\n"
