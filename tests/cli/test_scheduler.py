"""`compute queue|stats` and `compute-market match`."""

from typing import Any

import pytest

from compute_market.jobs import jobs
from compute_market.jobs.selection import Selection
from compute_market.scheduler import queue as scheduled
from tb_cli.frame.listing import waiting
from tests.support.cli import REAL, Cli
from tests.support.market import Market

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


def test_queue_is_told_in_the_order_of_its_first_page_while_it_moves(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    for name in ("runs", "a", "b", "c", "d"):
        market.submit(name)
    market.submit("held")
    market.update(lambda txn: jobs.hold(txn, jobs.get(txn, "held")))
    market.submit("lost", max_price_per_unit=1, wait=True)
    fetch = waiting.reading(Selection(), None).fetch

    def page(after: Any) -> tuple[list[tuple[int, str]], Any]:
        found, last = market.view(lambda txn: fetch(txn, after, 2))
        return [(row["place"], row["job_id"]) for row in found], last

    found, after = page(None)
    assert found == [(1, "a"), (2, "b")]
    # One that was told starts, one that was not is cancelled, one comes in front of all.
    market.cancel("runs")
    market.cancel("c")
    market.update(lambda txn: jobs.release(txn, jobs.get(txn, "held")))
    market.submit("late", priority="high")
    told = []
    while after is not None:
        found, after = page(after)
        told += found
    assert told == [(4, "d"), (5, "held"), (6, "lost")]


def test_queue_with_a_limit_looks_at_no_more_jobs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("runs")
    for number in range(9):
        cli.submit(f"j{number}")
    looked: list[str] = []
    find = jobs.find
    monkeypatch.setattr(jobs, "find", lambda txn, name: looked.append(name) or find(txn, name))
    assert [row[1] for row in cli("compute", "queue", "--limit", "2").rows] == ["j0", "j1"]
    assert looked == ["j0", "j1"]
    sorted_ = cli("compute", "queue", "--limit", "2", "--sort", "-place").rows
    assert [row[1] for row in sorted_] == ["j8", "j7"]


def test_queue_takes_the_filters_of_jobs_and_tells_places_among_all(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    offer_id = cli.post()
    cli.submit("runs")
    cli.submit("a1", "--priority", "low")
    cli.submit("b1", buyer="bob")
    cli.advance(100)
    cli.submit("a2", "--lane", "consumer")
    cli.submit("b2", "--priority", "high", buyer="bob")
    cli.submit("a3", "--gpu", "H100", "--wait")
    cli.ok("compute", "hold", "a2")
    for options, places in (
        ("", "1 b2|2 b1|3 a2|4 a1|5 a3"),
        ("--buyer alice", "3 a2|4 a1|5 a3"),
        ("--buyer alice --limit 2", "3 a2|4 a1"),
        ("--buyer alice --sort -place --limit 2", "5 a3|4 a1"),
        ("--buyer bob,nobody", "1 b2|2 b1"),
        ("--provider prov", "1 b2|2 b1|3 a2|4 a1"),
        (f"--offer {offer_id} --buyer bob --limit 1", "1 b2"),
        ("--offer none", ""),
        ("--workload inference", ""),
        ("--priority low,high", "1 b2|4 a1"),
        ("--lane consumer", "3 a2"),
        ("--state pending", "5 a3"),
        ("--state pending,queued --limit 1", "1 b2"),
        ("--held", "3 a2"),
        ("--since 50s", "1 b2|3 a2|5 a3"),
        ("--until 50s", "2 b1|4 a1"),
    ):
        form = ("--columns", "place,job_id", "-o", "tsv")
        rows = cli.ok("compute", "queue", *options.split(), *form).splitlines()
        assert "|".join(row.replace("\t", " ") for row in rows) == places, options
    done = cli("compute", "queue", "--state", "active")
    assert (done.code, done.out) == (2, "")
    assert "--state: 'active' is none of pending, queued" in done.err
    done = cli("compute", "queue", "--buyer", "nobody", "--fail-empty")
    assert done.code == 3


def test_queue_finds_out_what_holds_only_those_that_it_tells(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.active("runs")
    for number in range(9):
        cli.submit(f"j{number}", buyer="bob" if number % 2 else "alice")
    asked: list[str] = []
    held_by = scheduled.held_by
    monkeypatch.setattr(
        scheduled, "held_by", lambda txn, job: asked.append(job.job_id) or held_by(txn, job)
    )
    rows = cli("compute", "queue", "--buyer", "bob", "--limit", "2").rows
    assert [row[:2] for row in rows] == [["2", "j1"], ["4", "j3"]]
    assert asked == ["j1", "j3"]


def test_queue_names_the_cap_on_low_priority(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "4")
    monkeypatch.setenv("TB_LOW_PRIORITY_CAP_PCT", "25")
    cli.post()
    for name in ("low1", "low2", "low3"):
        cli.submit(name, "--priority", "low")
    held = cli("compute", "queue").rows
    assert {row[5] for row in held} == {"cap"}
    assert held[-1][1] == "low3"


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
