"""`wallet list`, `wallet statement`, and what wallets and jobs were at an earlier time."""

from collections import Counter
from typing import Any

import pytest

from tests.support.cli import REAL, Cli

pytest_plugins = ("tests.support.cli",)

STATEMENT = ("wallet", "statement")
TOTALS = ("wallet", "list", "--totals")


def lived(cli: Cli) -> None:
    """Money in every place: in wallets, escrows and bonds, paid, refunded and burned."""
    cli.real()
    cli.post("--fee-pct-ct", "40", "--bond", "9", price=10)
    for job_id in ("done", "dropped", "runs"):
        cli.submit(job_id, "--bond", "3", "--deadline-secs", "5000")
        cli.advance(1)
    cli.ok("compute", "execute", "done")
    cli.advance(1)
    cli.ok("compute", "cancel", "dropped")
    cli.submit("late", "--bond", "3", "--deadline-secs", "100")
    cli.advance(200)
    assert cli("tick").code == 0
    assert cli.job("late")["state"] == "failed"


# `wallet list`.


def test_list_has_every_owner_and_what_is_locked(cli: Cli) -> None:
    lived(cli)
    cli.ok("wallet", "deposit", "zero", "--ct", "1")
    cli.ok("wallet", "withdraw", "zero", "--ct", "1")
    rows = cli("wallet", "list").rows
    assert [row[0] for row in rows] == ["alice", "prov", "zero"]
    assert rows[0] == ["alice", "989", "988", "4", "6", "3"]
    documents = cli.document("wallet", "list")
    assert documents == [cli.document("wallet", "balance", row[0]) for row in rows]
    assert [row[0] for row in cli("wallet", "list", "--sort", "-ct").rows][-1] == "zero"
    assert cli.ok("wallet", "list", "-q") == "alice\nprov\nzero\n"


def test_list_filters_owners_and_amounts(cli: Cli) -> None:
    for owner, ct in (("a", "5"), ("b", "50"), ("c", "500"), ("d", "1")):
        cli.ok("wallet", "deposit", owner, "--ct", ct)
    cli.ok("wallet", "withdraw", "d", "--ct", "1")
    cli.ok("wallet", "deposit", "i", "--it", "60")

    def listed(*options: str) -> list[str]:
        return cli.ok("wallet", "list", "-q", *options).split()

    assert listed("--min", "50") == ["b", "c", "i"]
    assert listed("--nonzero") == ["a", "b", "c", "i"]
    assert listed("--owner", "c,d", "--owner", "nobody") == ["c", "d"]
    assert listed("--owner", "c,d", "--nonzero") == ["c"]
    assert listed("--limit", "2") == ["a", "b"]
    assert cli("wallet", "list", "--min", "501", "--fail-empty").code == 3
    for wrong in (("--owner", "a b"), ("--min", "-1"), ("--sort", "cts"), (*TOTALS[2:], "-q")):
        assert cli("wallet", "list", *wrong).code == 2


def test_list_goes_on_over_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    owners = ["a", "a.b", "a:b", "ab", "b"]
    for owner in owners:
        cli.ok("wallet", "deposit", owner, "--ct", "1")
    for page in (1, 2, 5, 6):
        monkeypatch.setattr(paging, "PAGE", page)
        assert cli.ok("wallet", "list", "-q").split() == owners


def test_totals_are_what_all_wallets_hold_and_what_burned(cli: Cli) -> None:
    lived(cli)
    totals = cli.document(*TOTALS)
    assert totals == {name: cli.document("status")[name] for name in ("ct", "it")}
    wallets = cli.document("wallet", "list")
    for token in ("ct", "it"):
        found = totals[token]
        assert found["in_wallets"] == sum(each[token] for each in wallets)
        assert found["escrowed"] == sum(each["escrow"][token] for each in wallets)
        assert found["bonded"] == sum(each["bonds"].get(token, 0) for each in wallets)
        assert found["in_circulation"] == sum(found.values()) - found["in_circulation"]
    assert totals["ct"]["burned"] == 9
    assert cli.ok(*TOTALS).startswith("ct: in_circulation=1100 in_wallets=")


def test_archived_wallet_is_listed_for_what_is_left(cli: Cli) -> None:
    lived(cli)
    before = cli.document("wallet", "list")
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    assert cli.document("wallet", "list") == before


# `wallet statement`.


def lines(document: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(line["event"], line["ct"], line["it"]) for line in document["lines"]]


def test_statement_tells_every_movement_between_two_balances(cli: Cli) -> None:
    lived(cli)
    found = cli.document(*STATEMENT, "prov")
    assert list(found) == [
        *("owner", "since_ms", "until_ms", "archived_before_ms"),
        *("opening", "lines", "closing"),
    ]
    assert found["opening"] == {"ct": 0, "it": 0}
    balance = Counter({"ct": 0, "it": 0})
    for line in found["lines"]:
        balance += Counter({"ct": 0, "it": 0})
        balance["ct"] += line["ct"]
        balance["it"] += line["it"]
        assert (line["balance_ct"], line["balance_it"]) == (balance["ct"], balance["it"])
    assert found["closing"] == {"ct": balance["ct"], "it": balance["it"]}
    assert (found["closing"]["ct"], found["closing"]["it"]) == cli.wallet("prov")
    # A bond that burned was locked, and never came back.
    assert (
        lines(found).count(("bond:lock", -9, 0)) - lines(found).count(("bond:release", 9, 0)) == 2
    )
    # Each form has the same.
    first, *middle, last = cli(*STATEMENT, "prov", "--jsonl").jsonl
    assert {**first, "lines": middle, **last} == found
    rows = cli(*STATEMENT, "prov", "--header").rows
    assert rows[0] == ["seq", "at_ms", "event", "ref", "ct", "it", "balance_ct", "balance_it"]
    assert [row[2] for row in rows[1:]] == ["opening", *(e for e, _, _ in lines(found)), "closing"]
    assert rows[-1][-2:] == [str(found["closing"]["ct"]), str(found["closing"]["it"])]


def test_statement_by_job_day_and_event_adds_up_to_the_same(cli: Cli) -> None:
    lived(cli)
    closing = cli.document(*STATEMENT, "prov")["closing"]
    for by in ("job", "day", "event"):
        found = cli.document(*STATEMENT, "prov", "--by", by)
        assert found["closing"] == closing
        for token in ("ct", "it"):
            assert sum(line[token] for line in found["lines"]) == closing[token]
    by_job = {
        line["job_id"] or line["event"]: line
        for line in cli.document(*STATEMENT, "prov", "--by", "job")["lines"]
    }
    assert (by_job["done"]["ct"], by_job["done"]["it"]) == (4, 6)
    assert (by_job["dropped"]["ct"], by_job["late"]["ct"]) == (0, -9)
    assert (by_job["deposit"]["job_id"], by_job["subsidy"]["job_id"]) == (None, None)
    by_event = cli(*STATEMENT, "prov", "--by", "event").rows
    assert by_event[0][0] == "opening"
    assert by_event[-1][0] == "closing"
    assert {row[0] for row in by_event} >= {"deposit", "bond:lock", "bond:release", "settle"}


def test_statement_of_a_time_begins_with_what_there_was(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "10")
    cli.advance(100)
    cli.ok("wallet", "deposit", "alice", "--ct", "20")
    cli.advance(100)
    cli.ok("wallet", "withdraw", "alice", "--ct", "5")
    cli.advance(100)
    found = cli.document(*STATEMENT, "alice", "--since", "250s", "--until", "150s")
    assert (found["opening"]["ct"], lines(found), found["closing"]["ct"]) == (
        *(10, [("deposit", 20, 0)], 30),
    )
    assert (found["since_ms"], found["until_ms"]) == (cli.now_ms - 250_000, cli.now_ms - 150_000)
    empty = cli.document(*STATEMENT, "alice", "--since", "50s")
    assert (empty["opening"], empty["lines"], empty["closing"]) == (
        *({"ct": 25, "it": 0}, [], {"ct": 25, "it": 0}),
    )


def test_statement_says_what_was_archived(cli: Cli) -> None:
    lived(cli)
    cli.advance(1)
    whole = cli.document(*STATEMENT, "prov")
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    done = cli(*STATEMENT, "prov", "--json")
    assert done.err.startswith("postings from before ")
    assert done.err.endswith(
        "may have been archived: what they came to is in the opening balance\n"
    )
    assert done.json["archived_before_ms"] == cli.now_ms
    assert done.json["closing"] == whole["closing"]
    # What subsidies paid stays, as their epochs do.
    assert {line["ref"] for line in done.json["lines"]} == {"runs", "0"}
    for token in ("ct", "it"):
        moved = sum(line[token] for line in done.json["lines"])
        assert done.json["opening"][token] + moved == whole["closing"][token]
    # Of what came since, nothing has gone.
    cli.advance(1)
    cli.ok("wallet", "deposit", "prov", "--ct", "1")
    cli.ok(*STATEMENT, "prov", "--since", "0s")


def test_statement_in_a_dry_run_and_in_what_is_real_later(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "100")
    cli.ok("wallet", "deposit", "prov", "--ct", "100")
    cli.post()
    cli.submit("free")
    cli.ok("compute", "execute", "free")
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
    cli.ok("tick", due=REAL)
    cli.submit("paid")
    cli.ok("compute", "execute", "paid")
    found = cli.document(*STATEMENT, "prov", "--by", "job")
    assert [line["job_id"] for line in found["lines"]] == [None, "paid"]
    assert found["closing"]["ct"] == 105


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("al ice",), "owner 'al ice' has the character ' '"),
        (("alice", "--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("alice", "--since", "1h", "--until", "2h"), "--until is before --since"),
        (("alice", "--by", "week"), "week"),
        (("alice", "-o", "ids"), "ids"),
    ],
)
def test_statement_of_what_cannot_be_is_usage(
    cli: Cli, words: tuple[str, ...], problem: str
) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "1")
    done = cli(*STATEMENT, *words)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err


def test_statement_of_a_stranger_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    for words in ((*STATEMENT, "nobdy"), ("wallet", "history", "nobdy")):
        done = cli(*words)
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith("error[not_found]: party nobdy does not exist\n")


# Earlier times.


def test_balance_is_told_as_it_was(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "9", price=10)
    seen = []
    for act in (
        ("compute", "execute", "j1"),
        ("compute", "cancel", "j2"),
        ("compute", "cancel", "j3", "--by", "provider"),
        ("wallet", "withdraw", "alice", "--ct", "7"),
    ):
        if act[2] != "alice":
            cli.submit(act[2])
            cli.advance(1)
        seen.append((cli.now, cli.document("wallet", "balance", "alice", "prov")))
        cli.advance(1)
        cli.ok(*act)
        cli.advance(1)
    for at, documents in seen:
        ago = f"{cli.now - at}s"
        told = cli.document("wallet", "balance", "alice", "prov", "--at", ago)
        assert told == [each | {"at_ms": at * 1000} for each in documents]
    one = cli.document("wallet", "balance", "alice", "--at", "2020-01-01T00:00")
    assert (one["ct"], one["escrow"], one["bonds"]) == (0, {"ct": 0, "it": 0}, {"ct": 0})


def test_balance_of_what_was_archived_is_not_known(cli: Cli) -> None:
    lived(cli)
    now = cli.document("wallet", "balance", "prov")
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    cli.advance(5)
    done = cli("wallet", "balance", "prov", "--at", "60s", "--json")
    assert done.code == 3
    assert (done.error["reason"], done.error["known_from_ms"]) == (
        *("archived", cli.now_ms - 5001),
    )
    assert done.error["hint"].startswith("it is known from ")
    told = cli.document("wallet", "balance", "prov", "--at", "1s")
    assert told == now | {"at_ms": cli.now_ms - 1000}


def test_statement_that_ends_in_what_was_archived_is_not_known(cli: Cli) -> None:
    lived(cli)
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    cli.advance(5)
    words = (*STATEMENT, "alice", "--since", "100s", "--until")
    done = cli(*words, "60s", "--json")
    assert (done.code, done.out, done.error["reason"]) == (3, "", "archived")
    assert done.error["hint"].startswith("it is known from ")
    found = cli(*words, "1s", "--json").json
    balance = cli.document("wallet", "balance", "alice")
    assert found["closing"] == {token: balance[token] for token in ("ct", "it")}


@pytest.mark.parametrize("part_ms", [0, 1, 947, 999])
def test_time_that_is_told_to_be_known_is(cli: Cli, part_ms: int) -> None:
    cli.now_ms += part_ms
    lived(cli)
    cli.now_ms += 10
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    cli.advance(100)
    for verb, when in (
        (("compute", "status", "runs"), "2020-01-01T00:00"),
        (("wallet", "balance", "alice"), "101s"),
    ):
        done = cli(*verb, "--at", when)
        assert done.code == 3
        known = done.err.partition("it is known from ")[2].partition(" on;")[0]
        cli.ok(*verb, "--at", known)


def test_status_is_told_as_it_was(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", slices=[cli.slice("s0"), cli.slice("s1")])
    cli.advance(10)
    digest = cli.ok("compute", "run", "s0")[:64]
    cli.ok("compute", "prove", "j1", "0", digest)
    cli.advance(10)
    cli.ok("compute", "cancel", "j1")
    cli.advance(10)

    def told(ago: int) -> dict[str, Any]:
        found: dict[str, Any] = cli.document("compute", "status", "j1", "--at", f"{ago}s")
        return found

    assert [(told(ago)["state"], told(ago)["slices_proven"]) for ago in (0, 10, 15, 20, 25)] == [
        *(("cancelled", 1), ("cancelled", 1), ("active", 1), ("active", 1), ("active", 0)),
    ]
    assert told(25)["last_event"] == {"event": "job_started", "at_ms": cli.now_ms - 30_000}
    assert "state: active\n" in cli.ok("compute", "status", "j1", "--at", "15s")
    error = cli("compute", "status", "j1", "--at", "31s", "--json").error
    assert (error["error"], error["reason"]) == ("not_found", "not_yet")
    assert error["known_from_ms"] == cli.now_ms - 30_000


@pytest.mark.parametrize("verb", [("compute", "status", "j1"), ("wallet", "balance", "alice")])
@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ("soon", "--at: 'soon' is no time"),
        ("", "--at: '' is no time"),
        ("2099-01-01T00:00", "--at: 2099-01-01 00:00:00 is still to come"),
    ],
)
def test_time_that_has_not_been_is_usage(
    cli: Cli, verb: tuple[str, ...], when: str, problem: str
) -> None:
    cli.active("j1")
    done = cli(*verb, "--at", when)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {problem}")
