"""`wallet deposit|withdraw|balance|history`."""

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

MAX = 2**63 - 1


def test_deposit_and_withdraw_say_what_is_left(cli: Cli) -> None:
    assert cli.ok("wallet", "deposit", "alice", "--ct", "100", "--it", "50") == (
        "deposited 100 CT 50 IT; alice has 100 CT 50 IT\n"
    )
    assert cli.ok("wallet", "withdraw", "alice", "--ct", "30") == (
        "withdrew 30 CT 0 IT; alice has 70 CT 50 IT\n"
    )
    assert cli.wallet("alice") == (70, 50)


def test_deposit_json_is_the_balance(cli: Cli) -> None:
    document = cli.document("wallet", "deposit", "alice", "--it", "7")
    assert list(document) == ["owner", "ct", "it", "escrow", "bonds", "changed"]
    assert document == {
        "owner": "alice",
        "ct": 0,
        "it": 7,
        "escrow": {"ct": 0, "it": 0},
        "bonds": {"ct": 0},
        "changed": True,
    }


@pytest.mark.parametrize("verb", ["deposit", "withdraw"])
def test_same_key_moves_nothing_again(cli: Cli, verb: str) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "100")
    move = ("wallet", verb, "alice", "--ct", "10", "--key", "k1")
    cli.ok(*move)
    balance = cli.wallet("alice")
    has = f"alice has {balance[0]} CT 0 IT"
    assert cli.ok(*move) == f"key k1 was used: unchanged; {has}\n"
    assert cli.document(*move)["changed"] is False
    assert cli.wallet("alice") == balance == ((110, 0) if verb == "deposit" else (90, 0))


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (("deposit", "alice", "--ct", "11"), "ct 10, not 11"),
        (("deposit", "alice", "--ct", "10", "--it", "1"), "it 0, not 1"),
        (("deposit", "bob", "--ct", "10"), "owner alice, not bob"),
        (("withdraw", "alice", "--ct", "10"), "event deposit, not withdraw"),
    ],
)
def test_same_key_for_another_movement_is_a_conflict(
    cli: Cli, again: tuple[str, ...], message: str
) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "10", "--key", "k1")
    text = f"an action with key k1 exists with {message}"
    assert cli("wallet", *again, "--key", "k1") == (
        *(6, "", f"error[conflict]: {text}\nhint: use another --key\n"),
    )
    assert cli.wallet("alice") == (10, 0)
    assert cli.wallet("bob") == (0, 0)


def test_withdraw_of_more_than_there_is_moves_nothing(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "10", "--it", "5")
    error = (
        "error[refused]: wallet of alice has 5 IT, 6 IT are needed\n"
        "hint: tb-cli wallet deposit alice --it 1\n"
    )
    assert cli("wallet", "withdraw", "alice", "--ct", "10", "--it", "6", "--key", "k") == (
        5,
        "",
        error,
    )
    assert cli.wallet("alice") == (10, 5)
    done = cli("wallet", "withdraw", "alice", "--ct", "11", "--json")
    assert done.error == {
        "error": "refused",
        "reason": "insufficient_funds",
        "message": "wallet of alice has 10 CT, 11 CT are needed",
        "hint": "tb-cli wallet deposit alice --ct 1",
        "retryable": False,
        "owner": "alice",
        "token": "CT",
        "needed": 11,
        "available": 10,
    }
    # A refusal uses nothing up, not even the key.
    cli.ok("wallet", "withdraw", "alice", "--ct", "10", "--it", "5", "--key", "k")
    assert cli.wallet("alice") == (0, 0)


def test_amounts_go_up_to_the_limit_and_no_further(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", str(MAX))
    assert cli.wallet("alice") == (MAX, 0)
    done = cli("wallet", "deposit", "bob", "--ct", "1", "--it", "1", "--json")
    assert (done.code, done.error["reason"]) == (5, "overflow")
    assert cli.wallet("bob") == (0, 0)
    cli.ok("wallet", "withdraw", "alice", "--ct", str(MAX))
    cli.ok("wallet", "deposit", "bob", "--ct", "1")


def test_moving_nothing_is_usage(cli: Cli) -> None:
    error = "error[usage]: nothing to move\nhint: give --ct, --it or both\n"
    assert cli("wallet", "deposit", "alice") == (2, "", error)
    assert cli("wallet", "withdraw", "alice", "--ct", "0") == (2, "", error)
    assert not cli.home.exists()


def test_balance_shows_what_jobs_hold(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "40", "--bond", "9", price=10)
    cli.submit("j1", "--bond", "3")
    assert cli.ok("wallet", "balance", "alice") == (
        "owner: alice\nct: 993\nit: 994\nescrow: ct=4 it=6\nbonds: ct=3\n"
    )
    document = cli.document("wallet", "balance", "prov")
    assert list(document) == ["owner", "ct", "it", "escrow", "bonds"]
    assert document == {
        "owner": "prov",
        "ct": 91,
        "it": 0,
        "escrow": {"ct": 0, "it": 0},
        "bonds": {"ct": 9},
    }
    cli.ok("compute", "execute", "j1")
    assert cli.document("wallet", "balance", "alice")["escrow"] == {"ct": 0, "it": 0}
    assert (cli.wallet("alice"), cli.wallet("prov")) == ((996, 994), (104, 6))


def test_balance_of_a_stranger_is_not_found(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "nobody-else", "--ct", "1")
    error = (
        "error[not_found]: party nobody does not exist\n"
        "hint: a buyer or provider is known from its first job, offer or deposit on; "
        "see `tb-cli wallet list`\n"
    )
    assert cli("wallet", "balance", "nobody") == (3, "", error)
    assert cli("wallet", "balance", "nobody", "--at", "0s") == (3, "", error)


def test_balance_of_a_party_without_money_is_zero(cli: Cli) -> None:
    """In a dry run buyers and providers may never have had any."""
    cli.active("j1")
    nothing = "ct: 0\nit: 0\nescrow: ct=0 it=0\nbonds: ct=0\n"
    assert cli.ok("wallet", "balance", "alice") == f"owner: alice\n{nothing}"
    assert cli.ok("wallet", "balance", "prov") == f"owner: prov\n{nothing}"
    # One that had some and paid it all out.
    cli.ok("wallet", "deposit", "bob", "--ct", "3")
    cli.ok("wallet", "withdraw", "bob", "--ct", "3")
    assert cli.ok("wallet", "balance", "bob") == f"owner: bob\n{nothing}"


def test_history_lists_movements_oldest_first(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "100", "--it", "50", "--key", "k1")
    cli.ok("wallet", "deposit", "bob", "--ct", "1")
    cli.advance(1)
    cli.ok("wallet", "withdraw", "alice", "--ct", "30")
    at = cli.now_ms
    assert cli.ok("wallet", "history", "alice") == (
        f"1\t{at - 1000}\tCT\t100\tsupply\twallet/alice\tdeposit\tk1\n"
        f"2\t{at - 1000}\tIT\t50\tsupply\twallet/alice\tdeposit\tk1\n"
        f"4\t{at}\tCT\t30\twallet/alice\tsupply\twithdraw\t-\n"
    )
    newest = {
        "seq": 4,
        "at_ms": at,
        "token": "CT",
        "amount": 30,
        "debit": "wallet/alice",
        "credit": "supply",
        "event": "withdraw",
        "ref": "",
    }
    documents = cli.document("wallet", "history", "alice")
    assert documents[-1] == newest
    assert list(documents[0]) == list(newest)
    assert cli("wallet", "history", "alice", "--jsonl").jsonl == documents
    assert cli.document("wallet", "history", "alice", "--limit", "2") == documents[-2:]
    assert cli("wallet", "history", "al").code == 3
    # Names that begin alike are others.
    cli.ok("wallet", "deposit", "al", "--ct", "1")
    assert [row[5] for row in cli("wallet", "history", "al").rows] == ["wallet/al"]


def test_history_of_a_job_adds_up(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "25", price=4)
    cli.submit("j1")
    cli.ok("compute", "cancel", "j1")
    rows = cli.document("wallet", "history", "alice")
    assert [(row["event"], row["token"], row["amount"]) for row in rows] == [
        ("deposit", "CT", 1000),
        ("deposit", "IT", 1000),
        ("escrow:lock", "CT", 1),
        ("escrow:lock", "IT", 3),
        ("bond:lock", "CT", 1),
        ("escrow:refund", "CT", 1),
        ("escrow:refund", "IT", 3),
        ("bond:release", "CT", 1),
    ]
    assert {row["ref"] for row in rows[2:]} == {"j1"}


def test_history_goes_on_over_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    for amount in ("1", "2", "3", "4", "5"):
        cli.ok("wallet", "deposit", "alice", "--ct", amount)
    for page in (1, 2, 5, 6):
        monkeypatch.setattr(paging, "PAGE", page)
        assert [row[3] for row in cli("wallet", "history", "alice").rows] == list("12345")
        assert len(cli("wallet", "history", "alice", "--limit", "3").rows) == 3
