"""`compute cancel|status|list|requirements|wait`."""

import time

import pytest

from tests.support.cli import HELLO, JOB_FIELDS, MIB, Cli

pytest_plugins = ("tests.support.cli",)

ALREADY_DONE = "error[already_done]: job already {}\nhint: see `tb-cli compute status j1`\n"


def test_cancel_ends_an_active_job(cli: Cli) -> None:
    cli.active("j1", "j2")
    assert cli("compute", "cancel", "j1") == (0, "cancelled job j1\n", "")
    assert cli.states() == {"j1": "cancelled", "j2": "active"}
    assert cli.log() == "j1 client\n"
    assert cli.offer()["units_reserved"] == 1
    job = cli.job()
    assert (job["ended_by"], job["cause"]) == ("client", "cancelled_by_client")
    assert cli.score() == 0


def test_cancel_again_changes_nothing(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "cancel", "j1")
    before = cli.job()
    assert cli("compute", "cancel", "j1") == (0, "job already cancelled\n", "")
    assert cli.job() == before
    assert cli.log() == "j1 client\n"


def test_cancel_of_a_completed_job_is_already_done(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "execute", "j1")
    done = cli("compute", "cancel", "j1")
    assert done == (4, "job already completed\n", ALREADY_DONE.format("completed"))
    assert cli.states() == {"j1": "completed"}
    assert cli.log() == ""


def test_cancel_of_a_failed_job_is_already_done(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "65")
    cli.advance(66)
    done = cli("compute", "cancel", "j1")
    told = "1 overdue job failed\n" + ALREADY_DONE.format("failed")
    assert done == (4, "job already failed\n", told)
    assert cli.states() == {"j1": "failed"}


def test_cancel_of_an_unknown_job_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    error = "error[not_found]: job nope does not exist\nhint: see `tb-cli compute list`\n"
    assert cli("compute", "cancel", "nope") == (3, "job not found\n", error)


def test_cancel_by_provider_costs_a_point(cli: Cli) -> None:
    cli.active()
    assert cli.ok("compute", "cancel", "j1", "--by", "provider") == "cancelled job j1\n"
    assert cli.score() == -1
    assert cli.log() == "j1 provider\n"


def test_cancel_by_provider_of_a_pending_job_is_refused(cli: Cli) -> None:
    cli.submit("j1", "--wait")
    done = cli("compute", "cancel", "j1", "--by", "provider")
    text = "job j1 is pending, no provider holds it"
    assert done == (5, f"{text}\n", f"error[refused]: {text}\nhint: cancel it as the client\n")
    assert cli.states() == {"j1": "pending"}
    assert cli.ok("compute", "cancel", "j1") == "cancelled job j1\n"


def test_third_cancel_by_provider_burns_a_tenth_of_its_bond(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "15", "--reputation", "10")
    for number in (1, 2, 3):
        cli.submit(f"j{number}")
        cli.ok("compute", "cancel", f"j{number}", "--by", "provider")
        assert cli.wallet("prov") == (98 if number == 3 else 100, 0)
    assert cli.wallet("alice") == (1000, 1000)


def test_cancel_refunds_escrow_in_its_original_split(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "25")
    slices = [cli.slice("s0", bytes(MIB)), cli.slice("s1", b"x" * (3 * MIB))]
    held = cli.submit("j1", "--bond", "7", slices=slices)
    assert held["escrow"] == {"ct": 5, "it": 15}
    assert cli.wallet("alice") == (1000 - 5 - 7, 985)
    digest = cli.ok("compute", "run", "s0")[:64]
    cli.ok("compute", "prove", "j1", "0", digest)
    cancelled = cli.document("compute", "cancel", "j1")
    assert cancelled["paid"] == {"ct": 2, "it": 3}
    assert cancelled["refunded"] == {"ct": 3, "it": 12}
    assert cancelled["escrow"] == {"ct": 0, "it": 0}
    assert cli.wallet("alice") == (998, 997)
    assert cli.wallet("prov") == (102, 3)


def test_cancel_json_is_the_job_and_the_outcome(cli: Cli) -> None:
    cli.active()
    dry = cli.document("compute", "cancel", "j1", "--dry-run")
    assert list(dry) == [*JOB_FIELDS, "outcome", "changed", "dry_run"]
    assert (dry["state"], dry["changed"], dry["dry_run"]) == ("cancelled", True, True)
    document = cli.document("compute", "cancel", "j1")
    assert list(document) == [*JOB_FIELDS, "outcome", "changed"]
    assert document == cli.job() | {"outcome": "cancelled", "changed": True}
    again = cli.document("compute", "cancel", "j1")
    assert again == cli.job() | {"outcome": "already_cancelled", "changed": False}


@pytest.mark.parametrize(
    ("job_id", "code", "message", "hint"),
    [
        ("done", 4, "job already completed", "see `tb-cli compute status done`"),
        ("nope", 3, "job nope does not exist", "see `tb-cli compute list`"),
    ],
)
def test_cancel_json_of_a_failure_is_one_object_on_stderr(
    cli: Cli, job_id: str, code: int, message: str, hint: str
) -> None:
    cli.active("done")
    cli.ok("compute", "execute", "done")
    done = cli("compute", "cancel", job_id, "--json")
    assert (done.code, done.out) == (code, "")
    token = {3: "not_found", 4: "already_done"}[code]
    assert done.error == {"error": token, "message": message, "hint": hint, "retryable": False}


def test_status_shows_every_field(cli: Cli) -> None:
    cli.post("--cpu-cores", "8", "--gpu", "A100", "--gpu-count", "2")
    cli.submit("j1", "--cpu-cores", "4", "--gpu", "A100")
    assert cli.ok("compute", "status", "j1").splitlines() == [
        "job_id: j1",
        "state: active",
        "buyer: alice",
        "provider: prov",
        "offer_id: o-1",
        "workload: transcode",
        "priority: normal",
        "lane: industrial",
        "units: 1",
        "units_proven: 0",
        "slices: 1",
        "slices_proven: 0",
        "price_per_unit: 5",
        "max_price_per_unit: 100",
        "fee_pct_ct: 100",
        "consumer_bond: 1",
        "provider_bond: 1",
        f"deadline: {cli.now + 86_400}",
        f"submitted_at: {cli.now}",
        f"started_at: {cli.now}",
        "ended_at: -",
        "funded: false",
        "cause: -",
        "escrow: ct=0 it=0",
        "paid: ct=0 it=0",
        "refunded: ct=0 it=0",
        "ended_by: -",
        "capability: cpu_cores=4 gpu=A100 gpu_count=1",
        "overdue: false",
        "provider_bond_min: 1",
        "unreadable_slice: -",
        "held: false",
    ]


def test_status_json_is_the_record(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "50", price=9)
    cli.submit("j1", "--bond", "3", "--priority", "high", "--deadline-secs", "60")
    document = cli.job()
    assert list(document) == JOB_FIELDS
    assert document == {
        "job_id": "j1",
        "state": "active",
        "buyer": "alice",
        "provider": "prov",
        "offer_id": "o-1",
        "workload": "transcode",
        "priority": "high",
        "lane": "industrial",
        "units": 1,
        "units_proven": 0,
        "slices": 1,
        "slices_proven": 0,
        "price_per_unit": 9,
        "max_price_per_unit": 100,
        "fee_pct_ct": 50,
        "consumer_bond": 3,
        "provider_bond": 1,
        "deadline": cli.now + 60,
        "submitted_at": cli.now,
        "started_at": cli.now,
        "ended_at": None,
        "funded": True,
        "cause": None,
        "escrow": {"ct": 5, "it": 4},
        "paid": {"ct": 0, "it": 0},
        "refunded": {"ct": 0, "it": 0},
        "ended_by": None,
        "capability": {},
        "overdue": False,
        "provider_bond_min": 1,
        "unreadable_slice": None,
        "held": False,
    }


def test_status_of_a_pending_job_has_no_terms_yet(cli: Cli) -> None:
    job = cli.submit("j1", "--wait")
    unknown = ("provider", "offer_id", "price_per_unit", "fee_pct_ct", "provider_bond")
    assert {job[name] for name in unknown} == {None}
    assert "price_per_unit: -\n" in cli.ok("compute", "status", "j1")


def test_status_of_an_unknown_job_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    error = "error[not_found]: job j1 does not exist\nhint: see `tb-cli compute list`\n"
    assert cli("compute", "status", "j1") == (3, "", error)


def test_status_shows_an_overdue_job_which_the_next_change_fails(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    cli.submit("j1", "--deadline-secs", "65")
    cli.submit("j2", "--deadline-secs", "65")
    cli.advance(65)
    assert cli.job()["overdue"] is False
    cli.advance(1)
    job = cli.job()
    assert (job["state"], job["overdue"]) == ("active", True)
    assert [each["overdue"] for each in cli.document("compute", "list")] == [True, True]
    done = cli("wallet", "deposit", "bob", "--ct", "1")
    assert done.code == 0
    assert done.err == "2 overdue jobs failed, 20 CT of bonds burned\n"
    job = cli.job()
    assert (job["state"], job["ended_by"], job["cause"], job["overdue"]) == (
        *("failed", "deadline", "deadline_missed", False),
    )
    assert cli.score() == -2
    assert cli.ok("wallet", "deposit", "bob", "--ct", "1")


def test_status_of_a_queued_job_that_never_started(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active()
    cli.submit("j2", "--deadline-secs", "65")
    cli.advance(66)
    assert cli.job("j2")["overdue"] is True
    cli.ok("tick", due="1 overdue job failed")
    assert (cli.job("j2")["state"], cli.job("j2")["cause"]) == ("failed", "never_started")
    assert cli.score() == 0


def test_list_prints_one_line_per_job(cli: Cli) -> None:
    cli.active("b", "a")
    cli.ok("compute", "cancel", "b")
    deadline = cli.now + 86_400
    live = f"a\tactive\tnormal\talice\tprov\t1\t0\t5\t{deadline}\n"
    assert cli.ok("compute", "list") == live
    # The oldest comes first.
    assert cli.ok("compute", "list", "--all") == (
        f"b\tcancelled\tnormal\talice\tprov\t1\t0\t5\t{deadline}\n{live}"
    )


def test_list_of_nothing_is_empty_in_every_form(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.ok("compute", "list") == ""
    assert cli.ok("compute", "list", "--jsonl") == ""
    assert cli.document("compute", "list") == []


def test_list_json_and_jsonl_are_the_records(cli: Cli) -> None:
    cli.active("j1", "j2")
    both = [cli.job("j1"), cli.job("j2")]
    assert cli.document("compute", "list") == both
    done = cli("compute", "list", "--jsonl")
    assert done.jsonl == both
    assert list(done.jsonl[0]) == JOB_FIELDS


def test_list_filters(cli: Cli) -> None:
    cli.active("a1", "a2")
    cli.post("--offer-id", "dear", provider="other", price=50)
    cli.submit("b1", "--priority", "low", buyer="bob")
    cli.submit("b2", "--priority", "high", "--gpu", "H100", "--wait", buyer="bob")
    cli.ok("compute", "cancel", "a1")

    def listed(*options: str) -> list[str]:
        return [row[0] for row in cli("compute", "list", *options).rows]

    assert listed() == ["a2", "b1", "b2"]
    assert listed("--all") == ["a1", "a2", "b1", "b2"]
    assert listed("--state", "active") == ["a2", "b1"]
    assert listed("--state", "cancelled", "--state", "pending") == ["a1", "b2"]
    assert listed("--buyer", "bob") == ["b1", "b2"]
    assert listed("--state", "cancelled,pending") == ["a1", "b2"]
    assert listed("--provider", "prov", "--all") == ["a1", "a2", "b1"]
    assert listed("--provider", "other") == []
    assert listed("--priority", "high") == ["b2"]
    assert listed("--buyer", "bob", "--state", "active") == ["b1"]
    assert listed("--limit", "2") == ["b1", "b2"]
    assert listed("--limit", "0") == []
    assert listed("--buyer", "bob", "--limit", "1") == ["b2"]


def test_list_goes_on_over_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    cli.active("a", "b", "c", "d", "e")
    for page in (1, 2, 5, 6):
        monkeypatch.setattr(paging, "PAGE", page)
        assert [row[0] for row in cli("compute", "list").rows] == ["a", "b", "c", "d", "e"]
        assert [row[0] for row in cli("compute", "list", "--limit", "3").rows] == ["c", "d", "e"]


def test_list_with_an_unknown_state_is_usage(cli: Cli) -> None:
    error = (
        "error[usage]: --state: 'done' is none of pending, queued, active, completed, cancelled, "
        "failed\nhint: see `tb-cli compute list --help`\n"
    )
    assert cli("compute", "list", "--state", "done") == (2, "", error)


def test_requirements_prints_the_capability_of_a_live_job(cli: Cli) -> None:
    cli.post("--accelerator", "TPU", "--accelerator-memory-mb", "4096")
    cli.submit("j1", "--accelerator", "TPU", "--accelerator-memory-mb", "1024")
    expected = '{\n  "accelerator": "TPU",\n  "accelerator_memory_mb": 1024\n}\n'
    assert cli.ok("compute", "requirements", "j1") == expected
    assert cli.ok("compute", "requirements", "j1", "--json") == expected
    cli.ok("compute", "cancel", "j1")
    assert cli.ok("compute", "requirements", "j1") == "{}\n"
    assert cli.ok("compute", "requirements", "never") == "{}\n"


def test_wait_returns_at_once_for_jobs_that_have_ended(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "execute", "j1")
    cli.ok("compute", "cancel", "j2")
    both = "job j2 cancelled\njob j1 completed\n"
    assert cli.ok("compute", "wait", "j2", "j1", "--for", "ended") == both
    error = "error[already_done]: 1 of 2 ended otherwise: j2 cancelled\n"
    assert cli("compute", "wait", "j2", "j1") == (4, both, error)
    assert cli("compute", "wait", "j2", "j1", "--for", "active") == (4, both, error)
    assert cli.document("compute", "wait", "-", stdin="j1\n") == [
        {"job_id": "j1", "state": "completed", "cause": "all_proven"}
    ]


def test_wait_times_out_as_pending(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    done = cli("compute", "wait", "j1", "j2", "--timeout", "0")
    assert done == (10, "job j2 cancelled\n", "error[pending]: not completed yet: j1\n")
    done = cli("compute", "wait", "j1", "--timeout", "0", "--json")
    assert (done.code, done.out, done.error["retryable"]) == (10, "", True)


def test_wait_tells_of_an_overdue_job_and_leaves_it(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", "--deadline-secs", "65")
    cli.advance(66)
    done = cli("compute", "wait", "j1", "--timeout", "0")
    assert done == (
        10,
        "",
        "warning: job j1 is overdue; `tb-cli tick` fails it\n"
        "error[pending]: not completed yet: j1\n",
    )
    cli.ok("tick", due="1 overdue job failed")
    error = "error[already_done]: 1 of 1 ended otherwise: j1 failed\n"
    assert cli("compute", "wait", "j1") == (4, "job j1 failed\n", error)
    assert cli.ok("compute", "wait", "j1", "--for", "ended") == "job j1 failed\n"


def test_wait_for_a_start_ends_when_the_job_has_a_slot(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active()
    cli.submit("j2")
    done = cli("compute", "wait", "j1", "j2", "--for", "active", "--timeout", "0")
    assert done == (10, "job j1 active\n", "error[pending]: not active yet: j2\n")
    cli.ok("compute", "execute", "j1")
    out = cli.ok("compute", "wait", "j1", "j2", "--for", "active")
    assert out == "job j1 completed\njob j2 active\n"


def test_wait_with_a_timeout_that_is_no_number_is_usage(cli: Cli) -> None:
    cli.active()
    assert cli("compute", "wait", "j1", "--timeout", "nan").code == 2


def test_wait_for_an_unknown_job_is_not_found(cli: Cli) -> None:
    assert cli("compute", "wait", "nope").code == 3


def test_wait_ends_when_another_process_ends_the_job(cli: Cli) -> None:
    cli.active()
    waiting = cli.start("compute", "wait", "j1")
    time.sleep(0.3)
    assert waiting.poll() is None
    cli.ok("compute", "prove", "j1", "0", HELLO)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out, err) == (0, b"job j1 completed\n", b"")


def test_wait_for_many_names_some_and_says_how_many_more(cli: Cli) -> None:
    cli.post()
    for number in range(7):
        cli.submit(f"j{number}")
    done = cli("compute", "wait", "--all", "--timeout", "0")
    assert done.err.splitlines()[-1] == (
        "error[pending]: not completed yet: j0 j1 j2 j3 j4 and 2 more"
    )
    assert done.code == 10


def test_log_keeps_why_a_job_was_cancelled(cli: Cli) -> None:
    cli.active("j1", "j2", "j3")
    cli.ok("compute", "cancel", "j1", "j2", "--reason", "too late\nj9 client\x1b[31m")
    cli.ok("compute", "cancel", "j3", "--by", "provider", "--reason", "no power")
    found = cli.document("log", "--event", "job_cancelled")
    assert [(each["job_id"], each["detail"]["reason"]) for each in found] == [
        ("j1", "too late\nj9 client\x1b[31m"),
        ("j2", "too late\nj9 client\x1b[31m"),
        ("j3", "no power"),
    ]
    assert all(line.isprintable() for line in cli.ok("log").replace("\t", "").splitlines())
    assert cli.log() == "j1 client\nj2 client\nj3 provider\n"


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("", "--reason is empty"),
        ("  \t", "--reason is empty"),
        ("r" * 201, "--reason has 201 characters, at most 200 are allowed"),
        ("\udcff", "--reason \\xff is not UTF-8"),
    ],
)
def test_reason_that_is_none_cancels_nothing(cli: Cli, reason: str, says: str) -> None:
    cli.active("j1")
    done = cli("compute", "cancel", "j1", "--reason", reason)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert cli.states() == {"j1": "active"}
