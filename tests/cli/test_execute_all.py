"""`compute execute --all`."""

import pytest

from tests.support.cli import NOT_PAID, Cli

pytest_plugins = ("tests.support.cli",)


@pytest.fixture
def busy(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Two slots: `a` of `far` and `b` of `prov` have them, `c` and `d` wait."""
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "2")
    cli.post("--offer-id", "far", "--job", "a", price=4, provider="far")
    cli.post()
    for number, job_id in enumerate("abcd"):
        cli.ok(*cli.job_arguments(job_id), "--deadline-secs", str(9_000 - number))
    return cli


def executed(*job_ids: str) -> str:
    lines = (
        f"executed job {each}: 1 of 1 slices proven, completed{NOT_PAID}\n" for each in job_ids
    )
    return "".join(lines)


def states(cli: Cli) -> dict[str, str]:
    return {job_id: cli.job(job_id)["state"] for job_id in "abcd"}


def test_all_runs_what_is_active_by_deadline(busy: Cli) -> None:
    done = busy("compute", "execute", "--all")
    told = "2 jobs selected\n2 tried; 2 active, 0 queued, 0 pending now\n"
    assert done == (0, executed("b", "a"), told)
    assert states(busy) == dict(zip("abcd", ["completed"] * 2 + ["active"] * 2, strict=True))


def test_until_empty_runs_what_starts_meanwhile(busy: Cli) -> None:
    dry = busy("compute", "execute", "--all", "--until-empty", "-n")
    assert dry.code == 0
    assert set(states(busy).values()) == {"active", "queued"}
    done = busy("compute", "execute", "--all", "--until-empty")
    told = "2 jobs selected\n4 tried; 0 active, 0 queued, 0 pending now\n"
    assert (done.code, done.err) == (0, told)
    assert set(states(busy).values()) == {"completed"}
    again = busy("compute", "execute", "--all", "--until-empty")
    assert again == (0, "", "no job selected\n0 tried; 0 active, 0 queued, 0 pending now\n")


def test_all_of_a_provider_leaves_the_others(busy: Cli) -> None:
    done = busy("compute", "execute", "--provider", "far")
    assert (done.code, done.out) == (0, executed("a"))
    assert busy.job("b")["state"] == "active"
    documents = busy("compute", "execute", "--all", "--provider", "prov", "--json").json
    assert [each["job_id"] for each in documents] == ["c", "b"]


def test_all_goes_on_after_one_that_fails_and_ends(busy: Cli) -> None:
    """What cannot be run is tried once, and kept for the next time."""
    busy.slice("gone", b"hello")
    busy.ok("compute", "cancel", "a")
    busy.ok("compute", "cancel", "b")
    busy.submit("e", slices=["gone"])
    (busy.directory / "gone").unlink()
    left = busy.directory / "left"
    done = busy("compute", "execute", "--all", "--until-empty", "--failed-to", left)
    assert done.code == 7
    assert "1 of 3 failed: 1 missing" in done.err
    assert left.read_text() == "e\n"
    assert busy.job("e")["state"] == "active"
    assert busy.job("d")["state"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "JOB… is missing"),
        (("a", "--all"), "job ids and options that select jobs are both given"),
        (("a", "--until-empty"), "--until-empty goes with --all"),
        (("--until-empty",), "JOB… is missing"),
        (("--all", "--provider", "b ad"), "--provider 'b ad' has the character ' '"),
    ],
)
def test_what_selects_nothing_or_twice_is_a_usage_error(
    cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    cli.post()
    done = cli("compute", "execute", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {message}")
