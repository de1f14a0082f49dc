"""What `compute-market receipts list` and `wallet history` select, and that a time and the newest
are found without a walk through all."""

from typing import Any

import pytest

from compute_market.settlement import receipts as library
from tb_cli.frame import paging
from tb_cli.frame.listing import postings, receipts
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

LIST = ("compute-market", "receipts", "list")
HISTORY = ("wallet", "history")


@pytest.fixture
def ran(cli: Cli) -> Cli:
    """Ten jobs of two buyers and two providers, a second apart; the first five in a dry run."""
    cli.post(provider="cheap", price=1, units=5)
    cli.post(provider="prov", price=5)
    for number in range(10):
        if number == 5:
            for owner in ("alice", "bob", "prov", "cheap"):
                cli.ok("wallet", "deposit", owner, "--ct", "1000")
            cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
            assert cli("tick").code == 0
        cli.advance(1)
        cli.submit(f"j{number}", buyer=("alice", "bob")[number % 2])
        cli.ok("compute", "execute", f"j{number}")
    return cli


def listed(cli: Cli, *options: str) -> str:
    """The numbers of the jobs in a list."""
    found: Any = cli(*LIST, *options)
    assert found.code == 0, found
    return "".join(row[1].removeprefix("j") for row in found.rows)


CASES: list[tuple[tuple[str, ...], str]] = [
    ((), "0123456789"),
    (("--buyer", "bob"), "13579"),
    (("--buyer", "bob,alice", "--provider", "prov"), "56789"),
    (("--status", "applied"), "56789"),
    (("--status", "recorded", "--buyer", "alice"), "024"),
    (("--status", "pending"), ""),
    (("--job", "j7,j2", "--job", "j5"), "257"),
    (("--job", "j7,j2", "--buyer", "alice"), "2"),
    (("--job", "never"), ""),
    (("--since", "3s"), "6789"),
    (("--until", "6s"), "0123"),
    (("--since", "6s", "--until", "3s"), "3456"),
    (("--since", "6s", "--until", "3s", "--limit", "2"), "56"),
    (("--limit", "3"), "789"),
    (("--limit", "0"), ""),
    (("--limit", "2", "--provider", "cheap"), "34"),
    (("--limit", "99", "--buyer", "bob"), "13579"),
    (("--since", "0s", "--limit", "9"), "9"),
]


def test_list_selects_by_what_receipts_say(ran: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in (1, 3, 1000):
        monkeypatch.setattr(paging, "PAGE", page)
        monkeypatch.setattr(receipts, "PAGE", page)
        for options, numbers in CASES:
            assert listed(ran, *options) == numbers, (options, page)
    for wrong in (
        *(("--status", "paid"), ("--buyer", "a b"), ("--since", "soon"), ("--sort", "prize")),
        ("--since", "1h", "--until", "2h"),
    ):
        done = ran(*LIST, *wrong)
        assert (done.code, done.out) == (2, "")


def test_list_tells_the_same_of_what_is_left_of_an_archive(ran: Cli) -> None:
    ran.advance(1)
    ran.ok("state", "archive", "--before", "5s", "out.jsonl")
    left = listed(ran)
    assert left == "56789"
    assert listed(ran, "--since", "20s") == left
    assert listed(ran, "--since", "3s") == "789"
    assert listed(ran, "--limit", "2") == "89"
    assert listed(ran, "--job", "j1,j8") == "8"


def test_history_selects_and_keeps_the_newest(ran: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def events(*options: str) -> list[str]:
        return [row["event"] for row in ran.document(*HISTORY, "bob", *options)]

    for page in (1, 3, 1000):
        monkeypatch.setattr(paging, "PAGE", page)
        monkeypatch.setattr(postings, "PAGE", page)
        of_a_job = ["escrow:lock", "bond:lock", "bond:release"]
        assert events() == ["deposit", *of_a_job * 3]
        assert events("--job", "j7") == of_a_job
        assert events("--job", "j7,j9", "--event", "bond:lock") == ["bond:lock"] * 2
        assert events("--limit", "2") == ["bond:lock", "bond:release"]
        assert events("--limit", "2", "--event", "deposit,escrow:lock") == ["escrow:lock"] * 2
        assert events("--since", "2s") == of_a_job * 2
        assert events("--until", "3s") == ["deposit", *of_a_job]
        assert events("--since", "0s") == of_a_job
        assert events("--token", "IT") == []
    ran.advance(1)
    ran.ok("state", "archive", "--before", "2s", "out.jsonl")
    assert events() == ["opening", *of_a_job]
    assert events("--limit", "4") == ["opening", *of_a_job]
    assert events("--limit", "1", "--event", "opening") == ["opening"]
    assert events("--since", "1s") == of_a_job


def test_time_of_a_receipt_is_found_with_few_looks(
    ran: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    page = library.page

    def counted(txn: Any, after: int, limit: int) -> Any:
        found = page(txn, after, limit)
        looks.append(len(found))
        return found

    monkeypatch.setattr(library, "page", counted)
    assert listed(ran, "--since", "1s") == "89"
    assert sum(looks) == 2
    assert ran.view(lambda txn: library.first_since(txn, ran.now - 1)) == 9
    assert ran.view(lambda txn: library.first_since(txn, ran.now + 1)) == 11
    assert ran.view(lambda txn: library.first_since(txn, 0)) == 1
