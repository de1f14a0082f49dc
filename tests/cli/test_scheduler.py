"""`compute queue|explain|stats` and `compute-market match`."""

import json

import pytest

from tests.support.cli import REAL, Cli

pytest_plugins = ("tests.support.cli",)


def test_queue_lists_waiting_jobs_in_starting_order(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("runs")
    cli.submit("low", "--priority", "low")
    cli.submit("normal")
    cli.submit("high", "--priority", "high")
    cli.submit("lost", "--gpu", "H100", "--wait")
    assert cli.ok("compute", "queue") == (
        "1\thigh\tqueued\thigh\t1\tslots\n"
        "2\tnormal\tqueued\tnormal\t1\tslots\n"
        "3\tlow\tqueued\tlow\t1\tslots\n"
        "4\tlost\tpending\tnormal\t1\tno offer\n"
    )
    first = cli.document("compute", "queue", "--limit", "1")
    assert first == [
        {
            "place": 1,
            "job_id": "high",
            "state": "queued",
            "priority": "high",
            "units": 1,
            "held_by": "slots",
        }
    ]
    assert cli("compute", "queue", "--limit", "1", "--jsonl").jsonl == first
    cli.ok("compute", "cancel", "runs")
    assert cli.job("high")["state"] == "active"
    assert [row[1] for row in cli("compute", "queue").rows] == ["normal", "low", "lost"]


def test_queue_names_the_cap_on_low_priority(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "4")
    monkeypatch.setenv("TB_LOW_PRIORITY_CAP_PCT", "25")
    cli.post()
    for name in ("low1", "low2", "low3"):
        cli.submit(name, "--priority", "low")
    held = cli("compute", "queue").rows
    assert {row[5] for row in held} == {"cap"}
    assert held[-1][1] == "low3"


def test_explain_names_every_condition_an_offer_fails(cli: Cli) -> None:
    cli.post("--gpu", "A100", "--gpu-count", "1", "--gpu-memory-mb", "8192")
    cli.post("--gpu", "H100", "--gpu-count", "4", "--gpu-memory-mb", "98304", price=101)
    asked = ("--gpu", "H100", "--gpu-count", "2", "--gpu-memory-mb", "16384")
    cli.submit("j1", *asked, "--wait")
    assert cli.ok("compute", "explain", "j1") == (
        "o-1: gpu H100 ≠ A100; gpu_count 2 > 1; gpu_memory_mb 16384 > 8192\n"
        "o-2: max_price_per_unit 100 < 101\n"
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
                        "text": "max_price_per_unit 100 < 101",
                    }
                ],
            }
        ],
    }


def test_queue_and_explain_tell_why_a_job_waits_now(cli: Cli) -> None:
    cli.real()
    cli.submit("j1", "--wait", buyer="bob")
    assert [row[5] for row in cli("compute", "queue").rows] == ["no offer"]
    cli.post()
    assert [row[5] for row in cli("compute", "queue").rows] == ["funds"]
    decision = cli.document("compute", "explain", "j1")["decision"]
    assert decision["reason"] == "funds"
    assert decision["message"] == "wallet of bob has 0 CT, 6 CT are needed"
    cli.ok("wallet", "deposit", "bob", "--ct", "6")
    assert cli.document("compute", "queue")[0]["held_by"] is None
    cli.ok("tick", due="1 waiting job placed")
    assert cli.job()["state"] == "active"


def test_changing_what_explain_names_flips_the_verdict(cli: Cli) -> None:
    cli.post("--gpu", "H100", "--gpu-memory-mb", "8192")
    cli.submit("j1", "--gpu", "H100", "--gpu-memory-mb", "16384", "--wait")
    assert cli.ok("compute", "explain", "j1").startswith("o-1: gpu_memory_mb 16384 > 8192\n")
    cli.post("--gpu", "H100", "--gpu-memory-mb", "16384")
    assert "o-2: fits\n" in cli.ok("compute", "explain", "j1")
    assert cli.job()["offer_id"] == "o-2"


def test_explain_of_several_models_names_them_all(cli: Cli) -> None:
    cli.post("--gpu", "V100")
    cli.post("--gpu", "T4")
    cli.submit("j1", "--gpu", "A100", "--gpu", "H100", "--wait")
    assert cli.ok("compute", "explain", "j1").splitlines()[:2] == [
        "o-1: gpu A100 or H100 ≠ V100",
        "o-2: gpu A100 or H100 ≠ T4",
    ]
    (first, _) = cli.document("compute", "explain", "j1")["offers"]
    assert first["shortfalls"] == [
        {
            "condition": "gpu",
            "asked": "A100 or H100",
            "offered": "V100",
            "text": "gpu A100 or H100 ≠ V100",
        }
    ]
    path = cli.directory / "need.json"
    path.write_text(json.dumps({"workload": "transcode", "capability": {"gpu": ["T4", "A100"]}}))
    assert cli.ok("compute", "explain", path).splitlines()[:2] == [
        "o-1: gpu A100 or T4 ≠ V100",
        "o-2: fits",
    ]


def test_explain_takes_a_job_file(cli: Cli) -> None:
    cli.post("--cpu-cores", "2")
    path = cli.directory / "draft.json"
    path.write_text(json.dumps({"workload": "transcode", "capability": {"cpu_cores": 4}}))
    assert cli.ok("compute", "explain", path) == (
        "o-1: cpu_cores 4 > 2\ntotals: capability_mismatch=1\n"
    )
    assert cli.states() == {}


def test_explain_of_a_refused_job_tells_the_refusal(cli: Cli) -> None:
    assert cli(*cli.job_arguments("j1")).code == 5
    done = cli("compute", "explain", "j1")
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "error[not_found]: job j1 does not exist: it was refused, capability_mismatch: no offer of "
        "another provider has the capability asked for\nhint: explain takes a job file as well\n"
    )


def test_explain_of_unknown_ids_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    error = "error[not_found]: job j1 does not exist, and there is no such file\n"
    assert cli("compute", "explain", "j1") == (3, "", error)
    cli.active()
    done = cli("compute", "explain", "j1", "--offer", "nope")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error[not_found]: offer nope does not exist\n")


STATS_KEYS = [
    *("success", "capability_mismatch", "reputation_failure", "active_jobs", "utilization"),
    *("preemptions", "effective_price", "queued_high", "queued_normal", "queued_low"),
    *("priority_miss", "price_mismatch", "no_capacity", "bond_unfunded", "pending"),
]


def test_stats_prints_the_keys_in_order(cli: Cli) -> None:
    cli.post("--gpu", "A100")
    cli.submit("j1", "--gpu", "A100")
    cli.submit("j2", "--gpu", "H100", "--wait")
    assert cli.ok("compute", "stats").splitlines() == [
        "success: 1",
        "capability_mismatch: 1",
        "reputation_failure: 0",
        "active_jobs: 1",
        "utilization: A100=1",
        "preemptions: 0",
        "effective_price: 5",
        "queued_high: 0",
        "queued_normal: 0",
        "queued_low: 0",
        "priority_miss: 0",
        "price_mismatch: 0",
        "no_capacity: 0",
        "bond_unfunded: 0",
        "pending: 1",
    ]
    document = cli.document("compute", "stats")
    assert list(document) == STATS_KEYS
    assert cli.document("net", "compute", "stats") == document
    assert cli.ok("net", "compute", "stats") == cli.ok("compute", "stats")


def test_stats_effective_prints_only_the_last_price(cli: Cli) -> None:
    cli.ok("state", "init")
    missing = (0, "", "missing effective_price\n")
    assert cli("compute", "stats", "--effective") == missing
    assert cli("net", "compute", "stats", "--effective") == missing
    cli.post("--accelerator", "TPU", "--multiplier", "0.9", price=10)
    cli.submit("j1", "--accelerator", "TPU")
    assert cli.ok("compute", "stats", "--effective") == "11\n"
    assert cli.document("compute", "stats", "--effective") == 11


def test_match_tries_pending_jobs_again(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "100")
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
    cli.ok("tick", due=REAL)
    cli.submit("j1", "--wait")
    cli.post("--bond", "50", provider="poor")
    assert cli.ok("compute-market", "match") == "0 matched, 1 still pending\n"
    assert cli.document("compute-market", "match") == {"matched": [], "pending": 1}
    cli.ok("wallet", "deposit", "poor", "--ct", "50")
    assert cli.states() == {"j1": "pending"}
    due = "1 waiting job placed"
    dry = cli.document("compute-market", "match", "--dry-run", due=f"dry_run: {due}")
    assert dry == {"matched": ["j1"], "pending": 0, "dry_run": True}
    said = cli.ok("compute-market", "match", due=due)
    assert said == "matched job j1\n1 matched, 0 still pending\n"
    assert cli.states() == {"j1": "active"}
