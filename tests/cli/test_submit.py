"""`compute submit`."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from compute_market.admission import decisions
from compute_market.jobs.jobs import slices
from tests.support.cli import HELLO, JOB_FIELDS, MIB, WRONG, Cli

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
    assert cli.ok(*arguments) == "submitted job j1: active, 3 units at 5 from prov\n"
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
        deadline=cli.now + 50,
        priority="high",
        lane="consumer",
        slices=["a.slice", {"path": "./a.slice", "reference": HELLO.upper()}],
    )
    monkeypatch.chdir("/")
    assert cli.ok("compute", "submit", path) == "submitted job j1: active, 2 units at 5 from prov\n"
    assert stored(cli) == [(str(cli.directory / "a.slice"), 5, HELLO)] * 2
    job = cli.job()
    given = {"deadline": cli.now + 50, "priority": "high", "lane": "consumer", "consumer_bond": 2}
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


def test_reference_that_is_given_is_kept(cli: Cli) -> None:
    cli.post()
    cli.ok("compute", "submit", job_file(cli, slices=[{"path": "a.slice", "reference": WRONG}]))
    assert stored(cli) == [(str(cli.directory / "a.slice"), 5, WRONG)]


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
        ("deadline_secs", ("--deadline-secs", "9"), "86400", "9"),
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
        "every offer that fits asks a higher price or bond than the job allows",
        (),
        ("--max-price", "4"),
    ),
    (
        "price_mismatch",
        "every offer that fits asks a higher price or bond than the job allows",
        ("--consumer-bond", "9"),
        ("--bond", "8"),
    ),
    ("no_capacity", "no offer that fits has enough units left", ("--units", "1"), ()),
]


@pytest.mark.parametrize(("reason", "message", "offered", "asked"), REFUSED)
def test_submit_without_a_match_is_refused(
    cli: Cli, reason: str, message: str, offered: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    cli.post(*offered)
    files = [cli.slice(), cli.slice("b.slice", b"b")]
    hint = (
        "`tb-cli compute explain FILE` names what each offer lacks; --wait keeps the job until an "
        "offer fits"
    )
    done = cli(*cli.job_arguments("j1", *asked, slices=files))
    assert done == (5, "refused job j1\n", f"error[refused]: {message}\nhint: {hint}\n")
    done = cli(*cli.job_arguments("j1", *asked, slices=files), "--json")
    assert (done.code, done.out) == (5, "")
    assert done.error == {
        "error": "refused",
        "reason": reason,
        "message": message,
        "hint": hint,
        "retryable": False,
    }
    assert cli.states() == {}
    assert cli.document("compute", "stats")[reason] == 2
    assert [entry.reason for entry in cli.view(decisions_of)] == [reason, reason]
    assert cli.offer()["units_reserved"] == 0


def decisions_of(txn: Any) -> list[Any]:
    return list(txn.records("decisions"))


def test_the_last_decision_is_kept_for_explain(cli: Cli) -> None:
    cli(*cli.job_arguments("j1"))
    found = cli.view(lambda txn: decisions.last(txn, "j1"))
    assert found is not None
    assert (found.verdict, found.reason, found.buyer) == ("refused", "capability_mismatch", "alice")


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


def test_demand_over_the_estimate_is_a_capacity_refusal(cli: Cli) -> None:
    cli.ok("compute-market", "capacity", "record", "0")  # with the seed of 100: 50
    cli.post()
    done = cli(*cli.job_arguments("j1", slices=[cli.slice("big", bytes(51 * MIB))]), "--json")
    assert (done.code, done.error["reason"]) == (5, "capacity")
    assert "retry_after_ms" not in done.error
    assert json.loads(cli.ok("compute-market", "stats"))["industrial_backlog"] == 0


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
    assert out == "submitted job j2: queued, 1 unit at 5 from prov\n"
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
        "submitted job j1: active, 1 unit at 5 from prov\n"
        "refused job j2\n"
        "submitted job j3: active, 1 unit at 5 from prov\n"
        "submitted job j4: active, 1 unit at 5 from prov\n",
        "1 of 4 failed: 1 refused\n",
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
    error = "error[usage]: --job-id names one job, 2 are given\n"
    assert cli("compute", "submit", *paths, "--job-id", "x") == (2, "", error)


def test_absolute_deadline_is_compared_as_given(cli: Cli) -> None:
    cli.post()
    path = job_file(cli, deadline=cli.now)
    assert cli.document("compute", "submit", path)["deadline"] == cli.now
    done = cli("compute", "submit", job_file(cli, deadline=cli.now + 1))
    text = f"job j1 exists with deadline {cli.now}, not {cli.now + 1}"
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
