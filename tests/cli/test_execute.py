"""`compute execute|prove|run`."""

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from blake3 import blake3

from compute_market.execution import CommitAfter
from compute_market.workloads.tasks import Result
from tests.support.cli import HELLO, JOB_FIELDS, MIB, NOT_PAID, WRONG, Cli, Done

pytest_plugins = ("tests.support.cli",)

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
SMALL = ("s0", "s1", "s2")


def three_slices(cli: Cli) -> list[str]:
    """An active job of three slices; returns their outputs."""
    cli.post()
    paths = [cli.slice(name, name.encode()) for name in SMALL]
    assert cli.submit("j1", slices=paths)["slices"] == 3
    return [line[:64] for line in cli.ok("compute", "run", *SMALL).splitlines()]


def test_execute_completes_a_job(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "25", price=20)
    cli.submit("j1", slices=[cli.slice(), cli.slice("b", bytes(MIB + 1))])
    out = cli.ok("compute", "execute", "j1")
    assert out == "executed job j1: 2 of 2 slices proven, completed\n"
    job = cli.job()
    assert (job["state"], job["cause"], job["units_proven"]) == (
        "completed",
        "all_proven",
        3,
    )
    assert (job["paid"], job["escrow"]) == ({"ct": 15, "it": 45}, {"ct": 0, "it": 0})
    assert cli.wallet("alice") == (985, 955)
    assert cli.wallet("prov") == (115, 45)
    assert cli.score() == 1
    offer = cli.offer()
    assert (offer["units_reserved"], offer["units_proven"]) == (0, 3)
    assert len(cli.document("compute-market", "receipts", "list")) == 1


def test_execute_json_is_the_job(cli: Cli) -> None:
    cli.active()
    document = cli.document("compute", "execute", "j1")
    assert list(document) == [*JOB_FIELDS, "changed"]
    assert document == cli.job() | {"changed": True}


@pytest.mark.parametrize(
    "which",
    [("j1",), ("j1", "j2"), ("--all",), ("--buyer", "alice")],
    ids=" ".join,
)
@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_execute_as_a_dry_run_tells_what_is_paid_and_what_is_left(
    cli: Cli, which: tuple[str, ...], form: str
) -> None:
    cli.real()
    cli.active("j1", "j2")
    dry = cli("compute", "execute", *which, form, "-n")
    assert cli.job()["state"] == "active"
    real = cli("compute", "execute", *which, form)
    assert (dry.code, real.code) == (0, 0)

    def told(done: Done) -> list[dict[str, Any]]:
        if form == "--jsonl":
            return done.jsonl
        return done.json if isinstance(done.json, list) else [done.json]

    assert told(dry) == [each | {"dry_run": True} for each in told(real)]
    for each in told(dry):
        assert (each["paid"]["ct"], each["escrow"]) == (5, {"ct": 0, "it": 0})


def test_execute_of_a_completed_job_changes_nothing(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "execute", "j1")
    out = cli.ok("compute", "execute", "j1")
    assert out == "job j1 exists, unchanged: 1 of 1 slices proven, completed\n"
    assert cli.document("compute", "execute", "j1")["changed"] is False
    assert cli.score() == 1


def test_execute_goes_on_at_the_first_unproven_slice(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = three_slices(cli)
    cli.ok("compute", "prove", "j1", "0", outputs[0])
    # What is proven is not run again, so its file need not be there any more.
    (cli.directory / "s0").unlink()
    assert cli.ok("compute", "execute", "j1") == (
        f"executed job j1: 3 of 3 slices proven, completed{NOT_PAID}\n"
    )


def test_execute_keeps_the_proofs_made_before_a_failure(cli: Cli) -> None:
    three_slices(cli)
    (cli.directory / "s2").unlink()
    done = cli("compute", "execute", "j1")
    assert done.code == 2
    assert done.err == f"error[usage]: {cli.directory / 's2'}: no such file\n"
    assert cli.job()["slices_proven"] == 2


def test_execute_commits_as_it_goes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli import execute

    monkeypatch.setattr(execute, "COMMIT_AFTER", CommitAfter(slices=2))
    three_slices(cli)
    assert cli.document("compute", "execute", "j1", "--dry-run")["state"] == "completed"
    assert cli.job()["slices_proven"] == 0
    assert cli.document("compute", "execute", "j1")["state"] == "completed"


def with_workload(cli: Cli, job_id: str, workload: str, *contents: bytes) -> list[str]:
    """An active job whose slices bring their references; returns their paths."""
    paths = [str(cli.slice(f"{job_id}-{number}", each)) for number, each in enumerate(contents)]
    slices = [
        {"path": path, "reference": blake3(content).hexdigest()}
        for path, content in zip(paths, contents, strict=True)
    ]
    terms = {"job_id": job_id, "buyer": "alice", "workload": workload, "max_price_per_unit": 100}
    path = cli.directory / f"{job_id}.json"
    path.write_text(json.dumps(terms | {"slices": slices}))
    assert cli.document("compute", "submit", str(path))["state"] == "active"
    return paths


@pytest.mark.parametrize(
    ("workload", "what"),
    [
        ("faulty", "failed: ValueError: not this"),
        ("leaving", "failed: SystemExit: 3"),
        ("wordy", "returned a str, not 32 bytes"),
        ("short_proof", "returned 9 bytes, not 32 bytes"),
    ],
)
def test_workload_that_fails_ends_its_job_alone(
    workload: str, what: str, cli: Cli, plugin: ModuleType
) -> None:
    cli.post()
    paths = with_workload(cli, "bad", workload, b"one", b"two", b"three")
    with_workload(cli, "good", "transcode", b"one")
    failed = paths[1] if workload in ("faulty", "leaving") else paths[0]
    done = cli("compute", "execute", "bad", "good")
    assert (done.code, done.out) == (
        7,
        f"bad: {failed}: workload {workload} {what}\n"
        f"executed job good: 1 of 1 slices proven, completed{NOT_PAID}\n",
    )
    # What was proven before is kept, and told.
    proven = int(failed == paths[1])
    assert cli.job("bad")["slices_proven"] == proven
    done = cli("compute", "execute", "bad", "--jsonl")
    assert (done.json["changed"], done.json["error"]["reason"]) == (False, "broken_workload")


def test_execute_that_is_interrupted_keeps_the_proofs(cli: Cli, plugin: ModuleType) -> None:
    cli.post()
    with_workload(cli, "j1", "stopped", b"one", b"1", b"two", b"three")
    assert cli("compute", "execute", "j1", "--dry-run").code == 130
    assert cli.job()["slices_proven"] == 0
    assert cli("compute", "execute", "j1").code == 130
    assert cli.job()["slices_proven"] == 2


def test_execute_tells_that_a_job_that_failed_has_come_further(cli: Cli) -> None:
    three_slices(cli)
    (cli.directory / "s2").unlink()
    done = cli("compute", "execute", "j1", "--dry-run", "--jsonl")
    assert (done.code, done.json["changed"]) == (2, True)
    assert cli.job()["slices_proven"] == 0
    done = cli("compute", "execute", "j1", "--jsonl")
    assert (done.code, done.json["changed"]) == (2, True)
    assert cli("compute", "execute", "j1", "--jsonl").json["changed"] is False


def test_execute_commits_before_much_time_has_passed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli import execute

    prove, commits = execute.prove_slices, []

    def counted(txn: Any, job_id: str, proofs: Any) -> Any:
        commits.append(len(proofs))
        return prove(txn, job_id, proofs)

    monkeypatch.setattr(execute, "prove_slices", counted)
    three_slices(cli)
    cli.ok("compute", "execute", "j1", "--dry-run")
    monkeypatch.setattr(execute, "COMMIT_AFTER", CommitAfter(ms=0))
    cli.ok("compute", "execute", "j1")
    assert commits == [3, 1, 1, 1]


@pytest.mark.parametrize("content", [b"hellO", b"hello!", b""])
def test_slice_changed_since_submission_ends_the_job_at_the_cost_of_its_buyer(
    cli: Cli, content: bytes
) -> None:
    cli.real()
    cli.post("--bond", "10")
    cli.submit("j1", "--bond", "7", slices=[cli.slice("b.slice", b"b"), cli.slice()])
    path = cli.slice("a.slice", content)
    text = f"slice 1 of job j1 has changed since submission: {path}"
    hint = "hint: the job has failed; its buyer may submit it again under another id"
    dry = cli("compute", "execute", "j1", "-n")
    assert dry == (9, f"dry_run: {text}\n", f"error[integrity]: {text}\n{hint}\n")
    assert cli.job()["state"] == "active"
    done = cli("compute", "execute", "j1")
    assert done == (9, f"{text}\n", f"error[integrity]: {text}\n{hint}\n")
    job = cli.job()
    assert (job["state"], job["cause"], job["slices_proven"]) == ("failed", "slice_changed", 1)
    # The first slice is paid; the provider has its bond, and the buyer has lost its own.
    assert (cli.wallet("alice"), cli.wallet("prov")) == ((1000 - 5 - 7, 1000), (105, 0))
    assert cli.score() == 0
    done = cli("compute", "execute", "j1", "--json")
    assert (done.code, done.error["error"]) == (4, "already_done")


def test_slice_that_is_not_there_costs_nobody_anything(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    for job_id in ("back", "gone"):
        cli.submit(job_id, slices=[cli.slice(job_id)])
        (cli.directory / job_id).unlink()
        done = cli("compute", "execute", job_id, "--json")
        assert (done.code, done.error["reason"]) == (2, "missing")
        assert cli.job(job_id)["unreadable_slice"] == 0
    cli.slice("back")
    assert cli.document("compute", "execute", "back")["unreadable_slice"] is None
    cli.advance(86_000)
    cli.ok("tick", due="1 IT of subsidies paid")
    cli.advance(401)
    cli.ok("tick", due="1 overdue job failed")
    assert cli.job("gone")["cause"] == "slice_unreadable"
    assert (cli.wallet("alice"), cli.wallet("prov")) == ((995, 1000), (105, 1))
    assert cli.score() == 1


def test_wrong_result_of_a_device_ends_no_job(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from compute_market.workloads import runner

    def wrong(self: Any, *_: Any, **__: Any) -> Iterator[Result]:
        yield Result(str(cli.directory / "a.slice"), bytes(32), 5)

    cli.active()
    monkeypatch.setattr(runner.Runner, "run", wrong)
    assert cli.document("compute", "execute", "j1")["state"] == "completed"


def test_execute_of_jobs_that_do_not_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("active")
    cli.submit("queued")
    cli.submit("pending", "--gpu", "H100", "--wait")
    text = "job queued is queued, only an active job can be run"
    hint = "hint: see `tb-cli compute queue`"
    assert cli("compute", "execute", "queued") == (
        5,
        f"{text}\n",
        f"error[refused]: {text}\n{hint}\n",
    )
    assert cli("compute", "execute", "pending", "--json").error["reason"] == "not_active"
    cli.ok("compute", "cancel", "pending")
    done = cli("compute", "execute", "pending")
    assert (done.code, done.err) == (4, "error[already_done]: job pending is cancelled\n")
    assert cli("compute", "execute", "nope").code == 3


def test_execute_of_many_tells_each(cli: Cli) -> None:
    cli.active("j1", "j2")
    done = cli("compute", "execute", "j1", "nope", "-", stdin="j2\n# not this one\n")
    assert done == (
        7,
        f"executed job j1: 1 of 1 slices proven, completed{NOT_PAID}\n"
        "job nope does not exist\n"
        f"executed job j2: 1 of 1 slices proven, completed{NOT_PAID}\n",
        "1 of 3 failed: 1 not_found\nhint: not_found: see `tb-cli compute list`\n",
    )
    assert cli.states() == {"j1": "completed", "j2": "completed"}


def test_execute_after_the_deadline_finds_the_job_failed(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "61")
    cli.advance(62)
    done = cli("compute", "execute", "j1")
    assert (done.code, done.err) == (4, "error[already_done]: job j1 is failed\n")


def test_prove_takes_proofs_in_any_order(cli: Cli) -> None:
    outputs = three_slices(cli)
    said = [cli.ok("compute", "prove", "j1", str(n), outputs[n]) for n in (2, 0)]
    assert said == [
        "proved slice 2 of job j1: 1 of 3 slices proven, active\n",
        "proved slice 0 of job j1: 2 of 3 slices proven, active\n",
    ]
    last = cli.document("compute", "prove", "j1", "1", outputs[1].upper())
    assert list(last) == [*JOB_FIELDS, "changed"]
    assert (last["state"], last["changed"]) == ("completed", True)


def test_prove_again_changes_nothing(cli: Cli) -> None:
    outputs = three_slices(cli)
    cli.ok("compute", "prove", "j1", "1", outputs[1])
    out = cli.ok("compute", "prove", "j1", "1", outputs[1])
    assert out == "proven before: 1 of 3 slices proven, active\n"
    assert cli.document("compute", "prove", "j1", "1", outputs[1])["changed"] is False
    cli.ok("compute", "execute", "j1")
    assert cli.ok("compute", "prove", "j1", "1", outputs[1]) == (
        "proven before: 3 of 3 slices proven, completed\n"
    )
    assert json.loads(cli.ok("compute-market", "stats"))["industrial_units_total"] == 3


def test_wrong_proof_costs_a_point_and_leaves_the_slice_open(cli: Cli) -> None:
    cli.active()
    text = f"slice 0 of job j1: {WRONG} is not its output"
    assert cli("compute", "prove", "j1", "0", WRONG) == (9, "", f"error[integrity]: {text}\n")
    assert (cli.score(), cli.job()["slices_proven"]) == (-1, 0)
    done = cli("compute", "prove", "j1", "0", WRONG, "--json")
    assert (done.code, done.out, done.error["reason"]) == (9, "", "invalid_proof")
    assert cli.score() == -2
    assert cli("compute", "prove", "j1", "0", WRONG, "--dry-run").code == 9
    assert cli.score() == -2
    assert cli.document("compute", "prove", "j1", "0", HELLO)["state"] == "completed"


def test_other_output_of_a_proven_slice_is_a_conflict(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "prove", "j1", "0", HELLO)
    text = "slice 0 of job j1 is proven with another output"
    assert cli("compute", "prove", "j1", "0", WRONG) == (6, "", f"error[conflict]: {text}\n")
    assert cli.score() == 1


@pytest.mark.parametrize(
    ("job_id", "index", "digest", "code", "message"),
    [
        ("nope", "0", HELLO, 3, "job nope does not exist"),
        ("j1", "1", HELLO, 2, "job j1 has no slice 1"),
        ("j1", str(2**63 - 1), HELLO, 2, f"job j1 has no slice {2**63 - 1}"),
        ("j1", str(2**64), HELLO, 2, "INDEX: "),
        ("j1", "0", HELLO[:-1], 2, f"'{HELLO[:-1]}' is not an output"),
        ("j1", "0", "é" * 64, 2, "is not an output"),
        ("j1", "0", " ".join([HELLO[:31], HELLO[:32]]), 2, "is not an output"),
        ("j1", "x", HELLO, 2, "INDEX: "),
    ],
)
def test_prove_of_what_there_is_not(
    cli: Cli, job_id: str, index: str, digest: str, code: int, message: str
) -> None:
    cli.active()
    done = cli("compute", "prove", job_id, index, digest)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error[")
    assert message in done.err.splitlines()[0]
    assert cli.job()["slices_proven"] == 0


def test_prove_of_a_negative_index_is_usage(cli: Cli) -> None:
    cli.active()
    for arguments in (("--", "j1", "-1", HELLO), ("j1", "-1", HELLO)):
        done = cli("compute", "prove", *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error[usage]: ")
        assert "-1" in done.err.splitlines()[0]


def test_prove_of_a_job_that_is_not_active_is_refused(cli: Cli) -> None:
    cli.submit("j1", "--wait")
    text = "job j1 is pending, only an active job can be run"
    error = f"error[refused]: {text}\nhint: see `tb-cli compute queue`\n"
    assert cli("compute", "prove", "j1", "0", HELLO) == (5, "", error)
    cli.ok("compute", "cancel", "j1")
    done = cli("compute", "prove", "j1", "0", HELLO)
    assert done == (4, "", "error[already_done]: job j1 is cancelled\n")


def test_the_deadline_second_is_still_in_time(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "65")
    cli.submit("j2", "--deadline-secs", "65")
    cli.advance(65)
    assert cli.document("compute", "prove", "j1", "0", HELLO)["state"] == "completed"
    cli.advance(1)
    assert cli("compute", "prove", "j2", "0", HELLO).code == 4
    cli.ok("tick", due="1 overdue job failed")
    assert cli.states() == {"j1": "completed", "j2": "failed"}
