"""`compute-market settle status|plan|arm|cancel-arm|dry-run|tick`."""

import pytest

from tests.support.cli import REAL, Cli

pytest_plugins = ("tests.support.cli",)

SETTLE = ("compute-market", "settle")


def mode(cli: Cli) -> str:
    found: str = cli.document(*SETTLE, "status")["mode"]
    return found


def changes(cli: Cli) -> dict[str, int]:
    from compute_market import metrics

    found = cli.view(lambda txn: list(metrics.series(txn, "settle_mode_change_total")))
    return {mode: count for (mode,), count in found}


def test_status_of_a_new_market(cli: Cli) -> None:
    cli.ok("state", "init")
    text = "mode: dry_run\nheight: 0\ndue: false\npending: 0\napplied: 0\nfailed: 0\n"
    assert cli.ok(*SETTLE, "status") == text
    document = cli.document(*SETTLE, "status")
    assert list(document.items()) == [
        *(("mode", "dry_run"), ("height", 0), ("due", False)),
        *(("pending", 0), ("applied", 0), ("failed", 0)),
    ]


def test_arm_turns_real_at_its_height(cli: Cli) -> None:
    assert cli.ok(*SETTLE, "arm", "--delay-blocks", "10") == (
        "mode: armed\nheight: 0\nactivate_at: 10\ndue: false\npending: 0\napplied: 0\nfailed: 0\n"
        "changed: true\n"
    )
    cli.ok("chain", "advance", "9")
    assert list(cli.document(*SETTLE, "status").items()) == [
        ("mode", "armed"),
        ("height", 9),
        ("activate_at", 10),
        ("due", False),
        ("pending", 0),
        ("applied", 0),
        ("failed", 0),
    ]
    cli.advance(1)
    # Looking shows what is due, and leaves it; the next command that changes something does it.
    status = cli.document(*SETTLE, "status")
    assert (status["mode"], status["height"], status["due"]) == ("armed", 10, True)
    assert changes(cli) == {"armed": 1}
    cli.ok("wallet", "deposit", "alice", "--ct", "1", due=REAL)
    assert cli.document(*SETTLE, "status")["due"] is False
    assert mode(cli) == "real"
    assert changes(cli) == {"armed": 1, "real": 1}


def test_armed_behaves_as_dry_run(cli: Cli) -> None:
    cli.ok(*SETTLE, "arm", "--delay-blocks", "100")
    cli.post()
    assert cli.submit("j1")["funded"] is False


def test_activation_comes_before_the_commands_own_effects(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "10")
    cli.ok("wallet", "deposit", "prov", "--ct", "1")
    cli.post()
    cli.ok(*SETTLE, "arm", "--delay-blocks", "5")
    cli.advance(5)
    assert cli.document(*cli.job_arguments("j1"), due=REAL)["funded"] is True
    assert cli.wallet("alice") == (4, 0)


@pytest.mark.parametrize(
    ("before", "verb", "message"),
    [
        ("dry_run", ("cancel-arm",), "the mode is dry_run, nothing is armed"),
        ("real", ("cancel-arm",), "the mode is real, nothing is armed"),
        ("armed", ("arm", "--delay-blocks", "1"), "the mode is armed, only dry_run can be armed"),
        ("real", ("arm", "--delay-blocks", "1"), "the mode is real, only dry_run can be armed"),
    ],
)
def test_changes_from_the_wrong_mode_are_refused(
    cli: Cli, before: str, verb: tuple[str, ...], message: str
) -> None:
    cli.ok("state", "init")
    if before != "dry_run":
        cli.ok(*SETTLE, "arm", "--delay-blocks", "0" if before == "real" else "9")
    if before == "real":
        cli.ok("tick", due=REAL)
    assert mode(cli) == before
    done = cli(*SETTLE, *verb)
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith(f"error[refused]: {message}\n")
    assert cli(*SETTLE, *verb, "--json").error["reason"] == "mode"
    assert mode(cli) == before


def test_cancel_arm_goes_back_to_dry_run(cli: Cli) -> None:
    cli.ok(*SETTLE, "arm", "--delay-blocks", "3")
    document = cli.document(*SETTLE, "cancel-arm")
    assert (document["mode"], document["changed"]) == ("dry_run", True)
    assert "activate_at" not in document
    cli.ok("chain", "advance", "5")
    assert mode(cli) == "dry_run"


def test_dry_run_keeps_its_reason(cli: Cli) -> None:
    cli.real()
    height = cli.document("chain", "status")["height"]
    assert cli.ok(*SETTLE, "dry-run", "--reason", "a bad day") == (
        f"mode: dry_run\nheight: {height}\nreason: a bad day\ndue: false\n"
        "pending: 0\napplied: 0\nfailed: 0\nchanged: true\n"
    )
    again = cli.document(*SETTLE, "dry-run", "--reason", "another")
    assert (again["changed"], again["reason"]) == (False, "a bad day")


def test_dry_run_needs_a_reason_and_arm_a_delay(cli: Cli) -> None:
    done = cli(*SETTLE, "dry-run")
    assert done.code == 2
    assert done.err.startswith("error[usage]: --reason is missing\n")
    done = cli(*SETTLE, "arm")
    assert done.code == 2
    assert done.err.startswith("error[usage]: --delay-blocks is missing\n")


def test_receipts_of_funded_jobs_wait_in_dry_run(cli: Cli) -> None:
    cli.real()
    cli.post("--fee-pct-ct", "25", price=20)
    cli.submit("j1")
    cli.ok(*SETTLE, "dry-run", "--reason", "test")
    cli.ok("compute", "execute", "j1")
    assert cli.document(*SETTLE, "status")["pending"] == 1
    assert cli.wallet("prov") == (100, 0)  # Its bond is back, its pay is not there yet.
    assert cli.document("wallet", "balance", "alice")["escrow"] == {"ct": 5, "it": 15}
    cli.ok(*SETTLE, "arm", "--delay-blocks", "0")
    ticked = cli.document(*SETTLE, "tick", due=f"{REAL}, 1 receipt that had waited paid")
    assert (ticked["mode"], ticked["pending"], ticked["applied"]) == ("real", 0, 1)
    assert (cli.wallet("prov"), cli.wallet("alice")) == ((105, 15), (995, 985))
    assert cli.job()["paid"] == {"ct": 5, "it": 15}
    cli.ok(*SETTLE, "tick")
    assert cli.wallet("prov") == (105, 15)


def test_tick_reports_whether_it_changed_the_mode(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.ok(*SETTLE, "tick").splitlines()[0] == "mode: dry_run"
    cli.ok(*SETTLE, "arm", "--delay-blocks", "0")
    assert cli.document(*SETTLE, "tick", due=REAL)["changed"] is True
    assert cli.document(*SETTLE, "tick")["changed"] is False


def test_tick_does_all_that_is_due_and_says_it_in_one_line(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    cli.submit("j1")
    cli.submit("j2", "--deadline-secs", "65")
    cli.submit("j3", "--deadline-secs", "65")
    cli.ok(*SETTLE, "dry-run", "--reason", "test")
    cli.ok("compute", "execute", "j1")
    cli.ok(*SETTLE, "arm", "--delay-blocks", "5")
    cli.advance(66)
    due = f"{REAL}, 1 receipt that had waited paid, 2 overdue jobs failed, 20 CT of bonds burned"
    due += ", 1 IT of subsidies paid"
    before = cli.files()
    dry = cli("tick", "-n")
    assert dry.err == f"dry_run: {due}\n"
    assert cli.files() == before
    said = cli.ok("tick", due=due)
    assert dry.out == "".join(f"dry_run: {line}\n" for line in said.splitlines())
    assert said.splitlines()[-1] == "changed: true"
    assert cli.ok("tick") == said.replace("changed: true", "changed: false")


def test_tick_has_changed_something_where_the_multiplier_changed(cli: Cli) -> None:
    cli.active("j1")
    cli.advance(60)
    assert cli("tick", "-n").err == ""  # It goes on all the time, and no money has moved.
    assert cli.document("tick")["changed"] is True
    assert cli.document("tick")["changed"] is False
    cli.advance(120)
    assert cli.document("tick")["changed"] is True


def test_tick_has_changed_something_where_blocks_took_transactions(cli: Cli) -> None:
    for _ in range(2):
        send = ("--lane", "consumer", "--sender", "ann", "--fee", "3", "--bytes", "1")
        cli.ok("mempool", "submit", *send)
    cli.advance(1)
    assert cli.document("tick")["changed"] is True
    cli.advance(1)
    assert cli.document("tick")["changed"] is False


def test_tick_says_nothing_of_an_idle_epoch(cli: Cli) -> None:
    cli.post()
    for _ in range(2):
        cli.advance(60)
        assert cli.document("tick")["changed"] is False


def test_tick_that_closes_an_epoch_with_work_changes_something(cli: Cli) -> None:
    cli.active("j1")
    cli.ok("compute", "execute", "j1")
    cli.advance(60)
    assert cli.document("tick")["changed"] is True
    assert cli.document("tick")["changed"] is False


def test_tick_drops_events_that_are_too_old(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "1")
    cli.advance(4000)
    cli.ok("wallet", "deposit", "alice", "--ct", "2")
    monkeypatch.setenv("TB_LOG_RETENTION_SECS", "3600")
    assert len(cli.document("log", "--event", "deposit")) == 2
    cli.ok("tick")
    assert [event["detail"]["ct"] for event in cli.document("log", "--event", "deposit")] == [2]


def test_command_that_fails_leaves_undone_what_is_due(cli: Cli) -> None:
    """All of its transaction is taken back, and nothing is told that did not happen."""
    cli.ok(*SETTLE, "arm", "--delay-blocks", "0")
    done = cli("wallet", "withdraw", "nobody", "--ct", "1")
    assert done.code == 5
    assert REAL not in done.err
    assert cli.document(*SETTLE, "status")["due"] is True


def test_configuration_seeds_only_an_empty_store(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SETTLE_MODE", "real")
    cli.ok("state", "init")
    assert mode(cli) == "real"
    cli.ok(*SETTLE, "dry-run", "--reason", "r")
    assert mode(cli) == "dry_run"


def test_armed_cannot_be_configured(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_SETTLE_MODE", "armed")
    done = cli(*SETTLE, "status")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith('error[usage]: TB_SETTLE_MODE: settle_mode: "armed" cannot be ')


def root(cli: Cli) -> str:
    found: str = cli.document("state", "root")["root"]
    return found


def waiting(cli: Cli) -> None:
    """A receipt of 20 CT and 60 IT waits, and one of a job that pays in CT alone."""
    cli.real()
    cli.post("--fee-pct-ct", "25", price=80)
    cli.submit("j1")
    cli.post("--fee-pct-ct", "100", price=3)
    cli.submit("j2")
    cli.ok(*SETTLE, "dry-run", "--reason", "test")
    cli.ok("compute", "execute", "j1", "j2")


def test_plan_shows_what_paying_would_move(cli: Cli) -> None:
    waiting(cli)
    before = cli.files()
    document = cli.document(*SETTLE, "plan")
    assert list(document) == ["root", "pending", "moves"]
    assert document["root"] == root(cli)
    assert document["pending"] == 2
    assert document["moves"] == [
        {"token": "CT", "from": "escrow/j1", "to": "wallet/prov", "amount": 20},
        {"token": "IT", "from": "escrow/j1", "to": "wallet/prov", "amount": 60},
        {"token": "CT", "from": "escrow/j2", "to": "wallet/prov", "amount": 3},
    ]
    assert cli.ok(*SETTLE, "plan").splitlines() == [
        f"root: {root(cli)}",
        "pending: 2",
        "20 CT from escrow/j1 to wallet/prov",
        "60 IT from escrow/j1 to wallet/prov",
        "3 CT from escrow/j2 to wallet/prov",
    ]
    assert cli.files() == before
    cli.ok(*SETTLE, "arm", "--delay-blocks", "0", "--expect-root", document["root"])
    wallet = cli.wallet("prov")
    cli.ok("tick", due=f"{REAL}, 2 receipts that had waited paid")
    assert cli.wallet("prov") == (wallet[0] + 23, wallet[1] + 60)
    assert cli.document(*SETTLE, "plan")["moves"] == []


def test_plan_of_a_market_in_which_nothing_waits(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.document(*SETTLE, "plan") == {"root": root(cli), "pending": 0, "moves": []}


def test_arm_that_expects_another_state_is_refused(cli: Cli) -> None:
    waiting(cli)
    planned = cli.document(*SETTLE, "plan")["root"]
    cli.ok("wallet", "deposit", "alice", "--ct", "1")
    arm = (*SETTLE, "arm", "--delay-blocks", "5", "--expect-root")
    done = cli(*arm, planned)
    assert (done.code, done.out) == (6, "")
    moved = f"the state moved: its root is {root(cli)}, not {planned}"
    assert done.err.splitlines()[0] == f"error[conflict]: {moved}"
    error = cli(*arm, planned, "--json").error
    assert (error["reason"], error["root"], error["expected"]) == (
        "state_moved",
        root(cli),
        planned,
    )
    assert mode(cli) == "dry_run"
    assert cli(*arm, planned, "-n").code == 6
    # In upper case it is the same.
    assert cli.document(*arm, root(cli).upper())["mode"] == "armed"
    # Armed or not, another state is what is told first.
    assert cli(*arm, planned, "--json").error["reason"] == "state_moved"
    assert cli(*arm, root(cli), "--json").error["reason"] == "mode"


def test_arm_sees_what_is_due_as_well(cli: Cli) -> None:
    """An overdue job gives its escrow back before: that moves the state that was planned with."""
    waiting(cli)
    cli.ok(*SETTLE, "arm", "--delay-blocks", "0")
    cli.ok("tick", due=f"{REAL}, 2 receipts that had waited paid")
    cli.submit("j3", "--deadline-secs", "100")
    cli.ok(*SETTLE, "dry-run", "--reason", "again")
    cli.advance(50)
    planned = cli.document(*SETTLE, "plan")["root"]
    arm = (*SETTLE, "arm", "--delay-blocks", "5", "--expect-root")
    assert cli(*arm, planned, "-n").code == 0  # Time alone moves nothing.
    cli.advance(51)
    assert cli.document(*SETTLE, "plan")["root"] == planned
    assert cli(*arm, planned).code == 6
    assert cli("tick").code == 0
    assert cli.document(*arm, cli.document(*SETTLE, "plan")["root"])["mode"] == "armed"


def test_arm_that_expects_a_root_makes_no_market(cli: Cli) -> None:
    done = cli(*SETTLE, "arm", "--delay-blocks", "5", "--expect-root", "ab" * 32)
    assert done.code == 6
    assert not cli.home.exists()
    done = cli(*SETTLE, "arm", "--delay-blocks", "5", "--expect-root", "ab")
    assert done == (2, "", "error[usage]: --expect-root: 'ab' is not 64 hex digits\n")
