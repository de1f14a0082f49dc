"""`compute-market params propose|approve|rollback|history`, and what shows the values in force."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

PARAMS = ("compute-market", "params")
PROPOSE = (*PARAMS, "propose")
APPROVE = (*PARAMS, "approve")
ROLLBACK = (*PARAMS, "rollback")
HISTORY = (*PARAMS, "history")
IN_FORCE = "fair_share_cap 0.1 in force"


@pytest.fixture(autouse=True)
def market(cli: Cli) -> None:
    cli.ok("state", "init")


def document(cli: Cli, *arguments: str, due: str = "") -> Any:
    """Values are numbers, and so may be floats here."""
    return json.loads(cli.ok(*arguments, "--json", due=due))


def params(cli: Cli, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli.ok(*PARAMS, *arguments))
    return found


def approve(cli: Cli, key: str = "fair_share_cap", value: str = "0.1") -> None:
    made = document(cli, *PROPOSE, key, value)["id"]
    cli.ok(*APPROVE, str(made))


def test_life_of_a_proposal(cli: Cli) -> None:
    assert cli.ok(*PROPOSE, "fair_share_cap", "0.1") == (
        "proposed fair_share_cap 0.1 as proposal 1\n"
    )
    assert cli.ok(*APPROVE, "1") == ("approved proposal 1: fair_share_cap 0.1 from height 120 on\n")
    assert cli.ok(*APPROVE, "1") == "proposal 1 is approved: unchanged\n"
    cli.ok("chain", "advance", "119")
    assert params(cli)["fair_share_cap"] == 0.25
    cli.ok("chain", "advance", "1")
    assert cli.ok(*PARAMS) == (
        "{\n"
        '  "min_capacity": 10,\n'
        '  "fair_share_cap": 0.1,\n'
        '  "burst_quota": 30.0,\n'
        '  "burst_refill_rate": 0.5\n'
        "}\n"
    )
    assert cli.ok(*APPROVE, "1", due=IN_FORCE) == "proposal 1 is active: unchanged\n"
    assert cli.ok(*ROLLBACK) == (
        "rolled back proposal 1: fair_share_cap is 0.25 again, as configured\n"
    )
    assert params(cli)["fair_share_cap"] == 0.25
    done = cli(*APPROVE, "1")
    assert (done.code, done.out) == (5, "proposal 1 was rolled back\n")
    assert done.err == (
        "error[refused]: proposal 1 was rolled back\n"
        "hint: `tb-cli compute-market params propose fair_share_cap 0.1` proposes it again\n"
    )


def test_documents_of_a_proposal(cli: Cli) -> None:
    cli.advance(5)
    made = {"id": 1, "key": "min_capacity", "value": 7, "state": "proposed"}
    times = {"in_force": False, "proposed_at": cli.now}
    found = document(cli, *PROPOSE, "min_capacity", "7")
    assert found == made | times | {"changed": True}
    assert list(found)[:4] == list(made)
    cli.advance(60)
    approved = made | {"state": "approved", "activates_at": 180} | times
    found = document(cli, *APPROVE, "1")
    assert found == approved | {"changed": True}
    assert list(found)[:5] == [*made, "activates_at"]
    assert document(cli, *APPROVE, "1") == approved | {"changed": False}
    assert document(cli, *HISTORY) == [approved]
    cli.ok("chain", "advance", "120")
    active = approved | {"state": "active", "in_force": True}
    assert document(cli, *HISTORY) == [active]
    rolled_back = approved | {"state": "rolled_back", "changed": True}
    assert document(cli, *ROLLBACK, due="min_capacity 7 in force") == rolled_back


def test_keys_make_verbs_repeatable(cli: Cli) -> None:
    for out in (
        "proposed min_capacity 5 as proposal 1",
        "key k was used: unchanged; proposal 1 is",
    ):
        assert cli.ok(*PROPOSE, "min_capacity", "5", "--key", "k").startswith(out)
    done = cli(*PROPOSE, "min_capacity", "6", "--key", "k")
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith("error[conflict]: an action with key k exists with value 5, not 6\n")
    cli.ok(*APPROVE, "1")
    approve(cli, "min_capacity", "6")
    cli.ok("chain", "advance", "120")
    due = "min_capacity 6 in force"
    assert cli.ok(*ROLLBACK, "--key", "r", due=due) == (
        "rolled back proposal 2: min_capacity is 5 again, by proposal 1\n"
    )
    again = document(cli, *ROLLBACK, "--key", "r")
    assert (again["id"], again["changed"]) == (2, False)
    assert cli.ok(*ROLLBACK, "--key", "r") == (
        "key r was used: unchanged; min_capacity is 5, by proposal 1\n"
    )
    assert params(cli)["min_capacity"] == 5


def test_history_lists_by_id_and_keeps_the_newest(cli: Cli) -> None:
    assert cli.ok(*HISTORY) == ""
    for value in ("5", "6", "7"):
        approve(cli, "min_capacity", value)
    cli.ok(*PROPOSE, "burst_refill_rate", "1")
    cli.ok("chain", "advance", "120")
    rows = cli(*HISTORY).rows
    assert rows == [
        ["1", "min_capacity", "5", "active", "120", "false"],
        ["2", "min_capacity", "6", "active", "120", "false"],
        ["3", "min_capacity", "7", "active", "120", "true"],
        ["4", "burst_refill_rate", "1.0", "proposed", "-", "false"],
    ]
    for limit in range(6):
        assert cli(*HISTORY, "--limit", str(limit)).rows == rows[max(0, 4 - limit) :]
    lines = cli.ok(*HISTORY, "--jsonl").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3, 4]
    assert [json.loads(line)["state"] for line in lines] == [row[3] for row in rows]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (
            (*PROPOSE, "fair_shar_cap", "0.1"),
            2,
            "error[usage]: KEY: 'fair_shar_cap' is none of min_capacity, fair_share_cap, "
            "burst_refill_rate, comfort_threshold_p90\nhint: did you mean fair_share_cap?\n",
        ),
        (
            (*PROPOSE, "min_capacity", "0"),
            2,
            "error[usage]: VALUE: min_capacity: 0 is not 1…10000 units per second\n",
        ),
        (
            (*PROPOSE, "fair_share_cap", "1.5"),
            2,
            "error[usage]: VALUE: fair_share_cap: '1.5' is not 0.01…1.0\n",
        ),
        (
            (*PROPOSE, "min_capacity", "٣"),
            2,
            "error[usage]: VALUE: min_capacity: expected a whole number, 1…10000 units per second; "
            "found '\\u0663'\n",
        ),
        (
            (*PROPOSE, "burst_quota", "31"),
            5,
            "error[refused]: burst_quota is read-only: no proposal can change it\n"
            "hint: set burst_quota in config.toml\n",
        ),
        (
            ROLLBACK,
            5,
            "error[refused]: no proposal is active: there is nothing to roll back\n"
            "hint: `tb-cli compute-market params history` lists what became of each\n",
        ),
        (
            (*PROPOSE, "comfort_threshold_p90", "499"),
            2,
            "error[usage]: VALUE: comfort_threshold_p90: 499 is not 500…25000\n",
        ),
    ],
)
def test_bad_input_is_told_and_changes_nothing(
    cli: Cli, words: tuple[str, ...], code: int, told: str
) -> None:
    cli.ok(*PROPOSE, "min_capacity", "5")
    before = cli.files()
    assert cli(*words) == (code, "", told)
    assert cli.files() == before


def test_approve_of_an_unknown_number_is_not_found(cli: Cli) -> None:
    cli.ok(*PROPOSE, "min_capacity", "5")
    before = cli.ok(*PARAMS, "history"), cli.ok("log")
    told = "proposal 7 does not exist"
    hint = "hint: see `tb-cli compute-market params history`"
    assert cli(*APPROVE, "7") == (3, f"{told}\n", f"error[not_found]: {told}\n{hint}\n")
    assert (cli.ok(*PARAMS, "history"), cli.ok("log")) == before


def test_approve_takes_several_each_for_itself_or_all_at_once(cli: Cli) -> None:
    for value in ("5", "6", "7"):
        cli.ok(*PROPOSE, "min_capacity", value)
    done = cli(*APPROVE, "1", "9", "--atomic")
    assert (done.code, cli.document(*PARAMS, "history")[0]["state"]) == (7, "proposed")
    done = cli(*APPROVE, "1", "9", "-", stdin="# the last\n3\n")
    assert done.code == 7
    assert [line.split(":")[0] for line in done.out.splitlines()] == [
        "approved proposal 1",
        "proposal 9 does not exist",
        "approved proposal 3",
    ]
    assert done.err.startswith("1 of 3 failed: 1 not_found\n")
    states = [each["state"] for each in cli.document(*PARAMS, "history")]
    assert states == ["approved", "proposed", "approved"]
    assert [each["id"] for each in cli(*APPROVE, "1", "9", "--jsonl").jsonl] == [1, 9]
    assert [each["changed"] for each in cli.document(*APPROVE, "3", "2")] == [False, True]


@pytest.mark.parametrize("number", ["0", "-1", "x", "٣", "1.0", "", str(2**63)])
def test_number_of_a_proposal_is_a_number(cli: Cli, number: str) -> None:
    cli.ok(*PROPOSE, "min_capacity", "5")
    done = cli(*APPROVE, number)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: ")


def test_refusals_have_reasons_for_scripts(cli: Cli) -> None:
    assert cli(*ROLLBACK, "--json").error["reason"] == "nothing_active"
    assert cli(*PROPOSE, "burst_quota", "1", "--json").error["reason"] == "read_only"


def test_configuration_tells_what_a_proposal_overrides(cli: Cli) -> None:
    (cli.home / "config.toml").write_text("min_capacity = 7\n")
    plain = cli("config", "show")
    assert plain.err == ""
    approve(cli)
    assert cli("config", "show") == plain
    cli.ok("chain", "advance", "120")
    told = cli("config", "show")
    assert told.out == plain.out
    assert told.err == "fair_share_cap is 0.1 by proposal 1, not 0.25 as configured\n"
    rows = {row["name"]: row for row in json.loads(cli.ok("config", "show", "--json"))}
    assert rows["fair_share_cap"] == {
        "name": "fair_share_cap",
        "value": 0.25,
        "origin": "default",
        "in_force": 0.1,
        "proposal": 1,
    }
    assert "in_force" not in rows["min_capacity"]


def test_configuration_is_shown_whatever_the_market_is_like(cli: Cli) -> None:
    plain = cli.ok("config", "show")
    cli.audited = False
    cli.data.write_bytes(b"no store")
    done = cli("config", "show")
    assert (done.code, done.out) == (0, plain)
    assert done.err.startswith("warning: what proposals override is not known: ")


def test_job_is_let_in_by_the_value_in_force(cli: Cli) -> None:
    (cli.home / "config.toml").write_text(
        "initial_capacity = 1\nmin_capacity = 1\nburst_quota = 0\n"
    )
    cli.post()
    job: dict[str, Any] = {
        "job_id": "j1",
        "buyer": "alice",
        "workload": "transcode",
        "max_price_per_unit": 9,
    }
    job["slices"] = [cli.sparse(16)["path"]]  # Of the 60 units of a minute.

    def submit() -> str | None:
        done = cli("compute", "submit", "-", "--json", stdin=json.dumps(job))
        return None if done.code == 0 else str(done.error["reason"])

    assert submit() == "fair_share"
    approve(cli, "fair_share_cap", "0.3")
    assert submit() == "fair_share"
    cli.ok("chain", "advance", "120")
    assert submit() is None


def test_batch_takes_the_new_value_from_one_line_to_the_next(cli: Cli) -> None:
    approve(cli)
    lines = ("compute-market params", "chain advance 120", "compute-market params")
    out = cli.ok("batch", "-", stdin="\n".join(lines))
    assert [json.loads(f"{{{text}")["fair_share_cap"] for text in parts_of(out)] == [0.25, 0.1]


def parts_of(out: str) -> list[str]:
    """What stands in the documents of an output, each to its closing brace."""
    return [part.partition("}")[0] + "}" for part in out.split("{")[1:]]


def test_metrics_tell_what_waits_and_what_is_in_force(cli: Cli) -> None:
    def gauges() -> list[str]:
        lines = cli.ok("metrics").splitlines()
        return [line for line in lines if line.startswith("param_") and "fair_share" in line]

    assert gauges() == [
        'param_change_pending{key="fair_share_cap"} 0.0',
        'param_change_active{key="fair_share_cap"} 0.25',
    ]
    approve(cli)
    assert gauges()[0] == 'param_change_pending{key="fair_share_cap"} 1.0'
    cli.ok("chain", "advance", "120")
    assert gauges() == [
        'param_change_pending{key="fair_share_cap"} 0.0',
        'param_change_active{key="fair_share_cap"} 0.1',
    ]


@pytest.mark.parametrize(
    "act",
    [
        lambda cli: cli("compute", "cancel", "nobody"),
        lambda cli: cli("tick"),
        lambda cli: cli("compute-market", "match"),
        lambda cli: cli("wallet", "deposit", "alice", "--ct", "1"),
    ],
)
def test_whichever_command_comes_first_says_what_came_into_force(
    cli: Cli, act: Callable[[Cli], Any]
) -> None:
    approve(cli)
    cli.ok("chain", "advance", "120")
    assert cli("compute-market", "stats").err == ""
    assert cli("tick", "-n").err == f"dry_run: {IN_FORCE}\n"
    assert f"{IN_FORCE}\n" in act(cli).err
    assert cli("tick").err == ""
