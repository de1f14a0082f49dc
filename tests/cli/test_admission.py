"""`compute-market params|stats|match|capacity|sla|audit` and `net reputation show`."""

import json
from pathlib import Path

import lmdb
import pytest

from tests.support.cli import MIB, Cli

pytest_plugins = ("tests.support.cli",)

PARAMS = (
    "{\n"
    '  "min_capacity": 10,\n'
    '  "fair_share_cap": 0.25,\n'
    '  "burst_quota": 30.0,\n'
    '  "burst_refill_rate": 0.5\n'
    "}\n"
)


def damage(cli: Cli, table: str, change: str) -> None:
    """Change the first value of a table behind the market's back."""
    cli.audited = False
    env = lmdb.open(str(cli.home / "market"), max_dbs=64, map_size=2**30)
    db = env.open_db(table.encode(), create=False)
    with env.begin(write=True, db=db) as txn, txn.cursor() as cursor:
        cursor.first()
        key, value = cursor.item()
        if change == "delete":
            txn.delete(key)
        elif change == "garbage":
            txn.put(key, b"\xc1" + value[1:])
        else:
            txn.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    env.close()


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_params_prints_the_seeds_bytes(cli: Cli, extra: tuple[str, ...]) -> None:
    assert cli.ok("compute-market", "params", *extra) == PARAMS


def test_params_follows_the_configuration(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.home.mkdir()
    (cli.home / "config.toml").write_text("min_capacity = 3\nfair_share_cap = 1\n")
    monkeypatch.setenv("TB_BURST_QUOTA", "0")
    monkeypatch.setenv("TB_BURST_REFILL_RATE", "0.125")
    assert cli.ok("compute-market", "params") == (
        "{\n"
        '  "min_capacity": 3,\n'
        '  "fair_share_cap": 1.0,\n'
        '  "burst_quota": 0.0,\n'
        '  "burst_refill_rate": 0.125\n'
        "}\n"
    )


def test_stats_of_a_market_at_work(cli: Cli) -> None:
    empty = (
        "{\n"
        '  "industrial_backlog": 0,\n'
        '  "industrial_utilization": 0.0,\n'
        '  "industrial_units_total": 0,\n'
        '  "industrial_price_per_unit": 0\n'
        "}\n"
    )
    assert cli.ok("compute-market", "stats") == empty
    assert cli.ok("compute-market", "stats", "--json") == empty
    cli.post("--multiplier", "0.5", price=11)
    big = cli.slice("big", bytes(90 * MIB))
    cli.submit("j1", slices=[big, cli.slice()])
    assert json.loads(cli.ok("compute-market", "stats")) == {
        "industrial_backlog": 91,
        "industrial_utilization": 0.0,
        "industrial_units_total": 0,
        "industrial_price_per_unit": 6,
    }
    cli.ok("compute", "execute", "j1")
    at_work = json.loads(cli.ok("compute-market", "stats"))
    # 91 units of the 6000 that 100 units a second make in a minute.
    assert (at_work["industrial_backlog"], at_work["industrial_utilization"]) == (0, 0.02)
    assert at_work["industrial_units_total"] == 91
    cli.advance(60)
    assert json.loads(cli.ok("compute-market", "stats"))["industrial_utilization"] == 0.0


def test_match_tries_pending_jobs_again(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "100")
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
    cli.submit("j1", "--wait")
    cli.post("--bond", "50", provider="poor")
    assert cli.ok("compute-market", "match") == "0 matched, 1 still pending\n"
    assert cli.document("compute-market", "match") == {"matched": [], "pending": 1}
    cli.ok("wallet", "deposit", "poor", "--ct", "50")
    assert cli.states() == {"j1": "pending"}
    dry = cli.document("compute-market", "match", "--dry-run")
    assert dry == {"matched": ["j1"], "pending": 0, "dry_run": True}
    assert cli.ok("compute-market", "match") == "matched job j1\n1 matched, 0 still pending\n"
    assert cli.states() == {"j1": "active"}


def test_capacity_record_averages_the_last_eight(cli: Cli) -> None:
    assert cli.ok("compute-market", "capacity", "record", "51") == (
        "recorded 51 units/s, the estimate is 75 units/s\n"
    )
    for _ in range(6):
        cli.ok("compute-market", "capacity", "record", "0")
    assert cli.document("compute-market", "capacity", "record", "10") == {
        "recorded": 10,
        "estimate": (51 + 10) // 8,
    }


@pytest.mark.parametrize("value", ["-1", "1.5", "many", str(10**15 + 1)])
def test_capacity_record_of_no_capacity_is_usage(cli: Cli, value: str) -> None:
    done = cli("compute-market", "capacity", "record", "--", value)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: Invalid value for 'N': ")
    assert not cli.home.exists()


def test_sweep_fails_every_overdue_job(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli import admission as market

    monkeypatch.setattr(market, "_SWEEP_CHUNK", 2)
    cli.post()
    for number in range(5):
        cli.submit(f"j{number}", "--deadline-secs", "5")
    cli.submit("late", "--deadline-secs", "6")
    cli.advance(6)
    dry = cli.ok("compute-market", "sla", "sweep", "--dry-run")
    said = cli.ok("compute-market", "sla", "sweep")
    assert dry == "".join(f"dry_run: {line}\n" for line in said.splitlines())
    assert said == "".join(f"failed job j{number}\n" for number in range(5)) + "5 jobs failed\n"
    assert cli.states() == dict.fromkeys((f"j{n}" for n in range(5)), "failed") | {"late": "active"}
    assert cli.ok("compute-market", "sla", "sweep") == "0 jobs failed\n"
    cli.advance(1)
    assert cli.document("compute-market", "sla", "sweep") == {"failed": ["late"]}


def test_sweep_tells_of_overdue_jobs_that_were_queued(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli import admission as market

    monkeypatch.setattr(market, "_SWEEP_CHUNK", 2)
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.post()
    for number in range(6):
        cli.submit(f"j{number}", "--deadline-secs", "5")
    cli.advance(6)
    said = cli.ok("compute-market", "sla", "sweep")
    assert set(cli.states().values()) == {"failed"}
    assert said == "".join(f"failed job j{number}\n" for number in range(6)) + "6 jobs failed\n"


def test_sweep_burns_the_bond_of_the_provider_only(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    cli.submit("j1", "--deadline-secs", "5")
    cli.advance(6)
    cli.ok("compute-market", "sla", "sweep")
    assert (cli.wallet("alice"), cli.wallet("prov")) == ((1000, 1000), (90, 0))
    assert cli.score() == -1


def test_audit_counts_receipts(cli: Cli) -> None:
    assert cli.ok("compute-market", "audit") == "receipts 0 invalid 0\n"
    cli.active("j1", "j2", "j3")
    cli.ok("compute", "execute", "j1", "j2", "j3")
    assert cli.ok("compute-market", "audit") == "receipts 3 invalid 0\n"
    assert cli.document("compute-market", "audit") == {
        "receipts": 3,
        "invalid": 0,
        "violations": [],
    }


@pytest.mark.parametrize(
    ("table", "change", "named"),
    [
        ("accounts", "flip", "accounts CT: conservation: balances sum to "),
        ("postings", "delete", "postings 2: no gaps: expected 1"),
        ("receipts", "garbage", "receipts "),
        ("receipt_chain", "delete", "receipts *: every receipt is on the chain: "),
        ("active", "delete", "active runs: every live job is in its line: active"),
        ("offers", "garbage", "offers b'o-1': records decode: "),
        ("cancellations", "delete", "cancellations gone: one line for each cancelled job: "),
        ("counters", "flip", "counters "),
        ("slices", "delete", "jobs done: slices, units, proven slices "),
    ],
)
def test_audit_names_damage_and_exits_with_9(cli: Cli, table: str, change: str, named: str) -> None:
    cli.real()
    cli.post("--bond", "10")
    for name in ("done", "gone", "late", "runs"):
        cli.submit(name, "--deadline-secs", "5" if name == "late" else "50")
    cli.ok("compute", "execute", "done")
    cli.ok("compute", "cancel", "gone")
    cli.advance(6)
    cli.ok("compute-market", "sla", "sweep")
    assert cli.ok("compute-market", "audit") == "receipts 1 invalid 0\n"
    damage(cli, table, change)
    done = cli("compute-market", "audit")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (9, "")
    assert any(line.startswith(named) for line in lines[:-1]), lines
    receipts, invalid = lines[-1].split()[1::2]
    assert (int(receipts), int(invalid)) == (0 if table == "receipt_chain" else 1, len(lines) - 1)
    done = cli("compute-market", "audit", "--json")
    violations = done.json["violations"]
    assert (done.code, done.json["invalid"]) == (9, len(violations))
    assert [list(found) for found in violations] == [["table", "key", "law", "detail"]] * len(
        lines[:-1]
    )
    assert [f"{v['table']} {v['key']}: {v['law']}: {v['detail']}" for v in violations] == lines[:-1]


def test_audit_completes_the_log_before_it_looks(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j1", "j2")
    log = cli.home / "cancellations.log"
    log.write_text("j1 cl")  # A process died while it wrote.
    assert cli.ok("compute-market", "audit") == "receipts 0 invalid 0\n"
    assert log.read_text() == "j1 client\nj2 client\n"
    log.unlink()
    assert cli.ok("compute-market", "audit") == "receipts 0 invalid 0\n"
    assert log.read_text() == "j1 client\nj2 client\n"


@pytest.mark.parametrize("text", ["j1 client\nj9 client\n", "j1 client\nj2 client\nj3 client\n"])
def test_audit_finds_a_log_that_tells_other_things(cli: Cli, text: str) -> None:
    cli.audited = False
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j1", "j2")
    (cli.home / "cancellations.log").write_text(text)
    done = cli("compute-market", "audit")
    assert done.code == 9
    assert done.out.startswith("cancellations.log byte ")
    assert (cli.home / "cancellations.log").read_text() == text


def test_reputation_shows_the_best_first(cli: Cli) -> None:
    cli.post("--reputation", "3", provider="good")
    cli.post("--reputation", "-4", provider="bad")
    cli.post(provider="new")
    at = cli.now
    assert cli.ok("net", "reputation", "show").splitlines() == [
        f"good\t3\t3\t{cli.document('net', 'reputation', 'show')[0]['epoch']}\t{at}",
        f"new\t0\t0\t{cli.document('net', 'reputation', 'show', 'new')[0]['epoch']}\t{at}",
        f"bad\t-4\t-4\t{cli.document('net', 'reputation', 'show', 'bad')[0]['epoch']}\t{at}",
    ]
    only = cli.document("net", "reputation", "show", "--limit", "1")
    assert [list(row) for row in only] == [["provider", "score", "seed", "epoch", "last_change"]]
    assert cli("net", "reputation", "show", "--limit", "1", "--jsonl").jsonl == only
    error = "error[not_found]: provider nobody has no score\n"
    assert cli("net", "reputation", "show", "nobody") == (3, "", error)


def test_audit_of_a_copied_home(cli: Cli, tmp_path: Path) -> None:
    import shutil

    cli.active()
    cli.ok("compute", "cancel", "j1")
    shutil.copytree(cli.home, tmp_path / "copy")
    assert (
        cli.ok("--home", tmp_path / "copy", "compute-market", "audit") == "receipts 0 invalid 0\n"
    )
