"""`tb-cli status`: the market on one page."""

import pytest

from compute_market import overview
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

SENT = ("--lane", "consumer", "--sender", "s")


def test_status_tells_how_the_market_stands(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.post(units=100, price=5)
    cli.real()
    for job_id in ("first", "second"):
        cli.submit(job_id)
    cli.submit("dear", "--max-price", "1", "--wait")
    cli.submit("later", "--max-price", "1", "--wait")
    cli.ok("compute", "hold", "later")
    cli.ok("wallet", "withdraw", "prov", "--ct", "50")
    cli.ok("mempool", "submit", *SENT, "--fee", "3000", "--bytes", "9")
    found = cli.document("status")
    assert found["settlement"] == "real"
    assert found["guard"] == {"mode": "tight", "fee_p50": 3000, "fee_p90": 3000, "pool": 1}
    assert found["slots"] == {"used": 1, "free": 0}
    assert found["queue"] == {"high": 0, "normal": 1, "low": 0}
    assert found["queue_reasons"] == {"slots": 1, "hold": 1}
    assert found["pending"] == {"jobs": 1, "reasons": {"admission: comfort_guard": 1}}
    assert found["held"] == {"jobs": 1}
    shelves = {"open": 1, "exhausted": 0, "withdrawn": 0, "barred": 0, "unfunded": 0}
    assert found["offers"] == shelves
    ct = found["ct"]
    assert (ct["in_circulation"], ct["escrowed"], ct["burned"]) == (1_050, 10, 0)
    assert ct["in_circulation"] == sum(ct.values()) - ct["in_circulation"]
    assert found["last_command"]["command"].startswith("mempool submit")
    assert found["due"] == {}
    assert found["store"]["home"] == str(cli.home)
    text = cli.ok("status")
    assert "queue_reasons: slots=1 hold=1\n" in text
    assert "pending: jobs=1 reasons=admission: comfort_guard=1\n" in text
    assert text.count("\n") == len(found)


def test_status_says_of_how_many_jobs_it_has_the_reasons(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "ASKED_MAX", 2)
    cli.post()
    for number in (1, 2):
        cli.submit(f"j{number}", "--max-price", "1", "--wait")
    assert cli.document("status")["pending"] == {"jobs": 2, "reasons": {"price": 2}}
    cli.submit("j3", "--max-price", "1", "--wait")
    assert cli.document("status")["pending"] == {
        "jobs": 3,
        "reasons_of_first": 2,
        "reasons": {"price": 2},
    }
    assert "pending: jobs=3 reasons_of_first=2 reasons=price=2\n" in cli.ok("status")


def test_status_tells_what_is_due_and_a_tick_leaves_nothing(cli: Cli) -> None:
    cli.active()
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "100")
    cli.ok("compute-market", "params", "propose", "min_capacity", "5")
    cli.ok("compute-market", "params", "approve", "1")
    cli.ok("mempool", "submit", *SENT, "--fee", "3", "--bytes", "9")
    cli.advance(90_000)
    before = cli.view(lambda txn: txn.number("last_run_ms"))
    due = cli.document("status")["due"]
    assert due.pop("epochs") > 1_000
    assert due == {"transactions": 1, "overdue_jobs": 1, "settlement": 1, "proposals": 1}
    assert cli.view(lambda txn: txn.number("last_run_ms")) == before
    assert cli("tick").code == 0
    assert cli.document("status")["due"] == {}


def test_status_tells_why_jobs_wait_for_a_slot(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def reasons() -> dict[str, int]:
        found: dict[str, int] = cli.document("status")["queue_reasons"]
        held = [row[5] for row in cli("compute", "queue").rows]
        held = ["the next change" if each == "-" else each for each in held]
        assert found == {reason: held.count(reason) for reason in held}
        return found

    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "4")
    monkeypatch.setenv("TB_LOW_PRIORITY_CAP_PCT", "25")
    cli.post()
    assert reasons() == {}
    for number in range(4):
        cli.submit(f"low-{number}", "--priority", "low")
    assert reasons() == {"cap": 3}
    for number in range(5):
        cli.submit(f"high-{number}", "--priority", "high")
    assert reasons() == {"slots": 5}
    cli.ok("compute", "hold", "high-4", "low-3")
    assert reasons() == {"slots": 3, "hold": 2}
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "6")
    assert reasons() == {"the next change": 1, "cap": 2, "hold": 2}
