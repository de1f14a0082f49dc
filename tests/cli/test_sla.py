"""`compute-market sla sweep` and `extend`."""

import json

import pytest

from tests.support.cli import RETUNED, Cli, Done

pytest_plugins = ("tests.support.cli",)


def test_sweep_fails_every_overdue_job(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli import sla

    monkeypatch.setattr(sla, "_CHUNK", 2)
    cli.post()
    for number in range(5):
        cli.submit(f"j{number}", "--deadline-secs", "65")
    cli.submit("late", "--deadline-secs", "66")
    cli.advance(66)
    dry = cli.ok("compute-market", "sla", "sweep", "--dry-run", due=f"dry_run: {RETUNED}")
    said = cli.ok("compute-market", "sla", "sweep", due=RETUNED)
    assert dry == "".join(f"dry_run: {line}\n" for line in said.splitlines())
    assert said == "".join(f"failed job j{number}\n" for number in range(5)) + "5 jobs failed\n"
    assert cli.states() == dict.fromkeys((f"j{n}" for n in range(5)), "failed") | {"late": "active"}
    assert cli.ok("compute-market", "sla", "sweep") == "0 jobs failed\n"
    cli.advance(1)
    assert cli.document("compute-market", "sla", "sweep") == {
        "failed": ["late"],
        "burned_ct": 0,
        "away": 0,
    }


def test_sweep_tells_of_overdue_jobs_that_were_queued(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli import sla

    monkeypatch.setattr(sla, "_CHUNK", 2)
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "1")
    cli.post()
    for number in range(6):
        cli.submit(f"j{number}", "--deadline-secs", "65")
    cli.advance(66)
    said = cli.ok("compute-market", "sla", "sweep", due=RETUNED)
    assert set(cli.states().values()) == {"failed"}
    assert said == "".join(f"failed job j{number}\n" for number in range(6)) + "6 jobs failed\n"


def test_sweep_burns_the_bond_of_the_provider_only(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    cli.submit("j1", "--deadline-secs", "65")
    cli.advance(66)
    assert cli.ok("compute-market", "sla", "sweep", due=RETUNED) == (
        "failed job j1\n1 job failed, 10 CT of bonds burned\n"
    )
    assert (cli.wallet("alice"), cli.wallet("prov")) == ((1000, 1000), (90, 0))
    assert cli.score() == -1


def test_sweep_after_an_outage_tells_what_is_nobodys_fault(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    cli.submit("missed", "--deadline-secs", "65")
    cli.submit("away", "--deadline-secs", "900")
    cli.advance(66)
    cli.ok("compute", "offer", "list")  # Looking is no sign of life.
    dry = cli.ok("compute-market", "sla", "sweep", "--dry-run", due=f"dry_run: {RETUNED}")
    assert dry == "dry_run: failed job missed\ndry_run: 1 job failed, 10 CT of bonds burned\n"
    cli.ok("tick", due=f"1 overdue job failed, 10 CT of bonds burned, {RETUNED}")
    cli.advance(3601)
    faded = "the subsidy multiplier went from 115 to 100"
    assert cli.ok("compute-market", "sla", "sweep", due=faded) == (
        "failed job away\n1 job failed, 1 without fault (the market was away)\n"
    )
    assert cli.job("away")["cause"] == "outage"
    assert (cli.wallet("alice"), cli.wallet("prov")) == ((1000, 1000), (90, 0))
    assert cli.score() == -1


def test_change_after_an_outage_says_what_is_nobodys_fault(cli: Cli) -> None:
    cli.real()
    cli.post("--bond", "10")
    for job_id in ("a", "b"):
        cli.submit(job_id, "--deadline-secs", "900")
    cli.advance(3601)
    due = "2 overdue jobs failed, 2 without fault (the market was away)"
    cli.ok("wallet", "deposit", "bob", "--ct", "1", due=due)
    assert cli.wallet("prov") == (100, 0)


def test_extend_moves_every_deadline_and_fails_nothing(cli: Cli) -> None:
    cli.post()
    for job_id in ("a", "b"):
        cli.submit(job_id, "--deadline-secs", "60")
    deadline = cli.job("a")["deadline"]
    cli.advance(61)
    command = ("compute-market", "sla", "extend", "--by", "3600")
    dry = cli.ok(*command, "--dry-run", due=f"dry_run: {RETUNED}")
    assert dry == "dry_run: 2 jobs extended by 3600 s\n"
    assert cli.job("a")["overdue"]
    assert cli.ok(*command, due=RETUNED) == "2 jobs extended by 3600 s\n"
    assert cli.states() == {"a": "active", "b": "active"}
    assert cli.job("a")["deadline"] == deadline + 3600
    assert not cli.job("a")["overdue"]
    told = cli.ok("compute", "history", "a").splitlines()[-1]
    assert f"deadline_extended\ta\t-\talice\tdeadline={deadline + 3600} by_secs=3600" in told
    assert cli.document(*command) == {"extended": 2, "by_secs": 3600}


@pytest.mark.parametrize("by", ["0", "-1", "x", "1.5", "253402300800"])
def test_extend_by_what_is_no_time_is_a_usage_error(cli: Cli, by: str) -> None:
    cli.active()
    before = cli.files()
    assert cli("compute-market", "sla", "extend", "--by", by).code == 2
    assert cli.files() == before


@pytest.mark.parametrize("field", ["deadline_secs", "deadline"])
def test_submit_of_a_job_whose_deadline_was_moved_changes_nothing(cli: Cli, field: str) -> None:
    """As a bulk submission does that is run again after it was killed."""
    cli.post()
    deadline = 600 if field == "deadline_secs" else cli.now + 600

    def submit(deadline: int) -> Done:
        document = {field: deadline, "slices": [cli.sparse(1)]}
        return cli(*cli.job_arguments("a", slices=[])[:-2], "-", stdin=json.dumps(document))

    assert submit(deadline).code == 0
    cli.ok("compute-market", "sla", "extend", "--by", "3600")
    again = submit(deadline)
    assert (again.code, again.out) == (0, "job a exists, unchanged: active\n")
    other = submit(deadline + 1)
    assert other.code == 6
    assert "deadline" in other.err
