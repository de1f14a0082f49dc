"""`compute-market clock`, and every command under a clock that is wrong."""

import pytest

from compute_market.store.schema import META
from tests.support.cli import Cli, Done

pytest_plugins = ("tests.support.cli",)

YEAR = 365 * 86_400
AHEAD = (
    f"the clock went ahead by {10 * YEAR} s: nothing falls due; see `tb-cli compute-market clock`\n"
)
BEHIND = "the clock is 3600 s behind market time: nothing falls due; "
HELD = "time is held since a restore: nothing falls due; "
CLOCK = ("compute-market", "clock")

# What a process reads, so many seconds ahead; the boot clock goes on as it is.
FAKE = """\
import os, time
real = time.time_ns
time.time_ns = lambda: real() + int(os.environ["FAKE_SECONDS"]) * 10**9
"""


def running(cli: Cli) -> None:
    """Three jobs run, each with a bond behind it, in a market where money moves."""
    cli.real()
    cli.post("--bond", "10", "--reputation", "5")
    for job_id in ("a", "b", "c"):
        cli.submit(job_id)


def fake_clock(cli: Cli, seconds: int, *arguments: str) -> Done:
    """A command in a process of its own whose wall clock is wrong."""
    (cli.directory / "fake").mkdir(exist_ok=True)
    (cli.directory / "fake" / "sitecustomize.py").write_text(FAKE)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(cli.directory / "fake"), prepend=":")
        environment.setenv("FAKE_SECONDS", str(seconds))
        return cli.process(*arguments, afresh=True)


def test_look_under_a_clock_ten_years_ahead_changes_nothing(cli: Cli) -> None:
    running(cli)
    before = cli.files()
    found = fake_clock(cli, 10 * YEAR, "compute", "list")
    assert (found.code, found.out.count("\tactive\t")) == (0, 3)
    # The clock of the fixture may be a second or so behind that of the process.
    assert found.err.startswith(f"the clock went ahead by {10 * YEAR // 100}")
    assert found.err.count("\n") == 1
    assert cli.files() == before


def test_change_under_a_clock_ten_years_ahead_fails_and_burns_nothing(cli: Cli) -> None:
    running(cli)
    for seconds in (10 * YEAR, 10 * YEAR, 0):
        done = fake_clock(cli, seconds, "wallet", "deposit", "bob", "--ct", "1")
        assert (done.code, done.out.partition(";")[0]) == (0, "deposited 1 CT 0 IT")
        assert ("the clock went ahead by" in done.err) == bool(seconds)
    assert set(cli.states().values()) == {"active"}
    assert cli.wallet("prov") == (70, 0)
    assert cli.score() == 5


@pytest.mark.parametrize("wall_s", [-300_000_000, 0, 1_577_836_799, 8_000_000_000])
@pytest.mark.parametrize("command", [("state", "init"), ("wallet", "deposit", "a", "--ct", "1")])
def test_new_market_under_a_clock_that_was_never_set_is_refused(
    cli: Cli, wall_s: int, command: tuple[str, ...]
) -> None:
    cli.now_ms = wall_s * 1000
    done = cli(*command)
    assert (done.code, done.out) == (8, "")
    assert done.err.startswith(f"error[busy]: the system's clock stands at {wall_s} unix seconds")
    assert not cli.home.exists()


@pytest.mark.parametrize("wall_s", [-1, 0, 8_000_000_000])
@pytest.mark.parametrize("command", [("compute", "list"), ("tick",), CLOCK, (*CLOCK, "accept")])
def test_command_under_a_clock_that_was_never_set_is_refused(
    cli: Cli, wall_s: int, command: tuple[str, ...]
) -> None:
    cli.active()
    before, now_ms = cli.files(), cli.now_ms
    cli.now_ms = wall_s * 1000
    assert cli(*command).code == 8
    cli.now_ms = now_ms
    assert cli.files() == before


@pytest.mark.parametrize(("seconds", "said"), [(10 * YEAR, AHEAD), (-3600, BEHIND)])
def test_every_command_says_once_that_the_clock_is_wrong(cli: Cli, seconds: int, said: str) -> None:
    cli.active()
    cli.set_clock(seconds)
    for command in (("compute", "list"), ("tick",), ("compute-market", "sla", "sweep")):
        done = cli(*command)
        assert done.code == 0
        assert done.err.startswith(said)
        assert done.err.count("\n") == 1
    refused = cli("compute", "status", "nobody")
    assert (refused.code, refused.err.count("\n"), said in refused.err) == (3, 3, True)
    lines = "chain status\nwallet deposit alice --ct 1\nchain status\n"
    assert cli("batch", stdin=lines).err.count("nothing falls due") == 1


def test_clock_shows_both_clocks_and_market_time(cli: Cli) -> None:
    cli.active()
    before = cli.files()
    found = cli.document(*CLOCK)
    assert (found["wall_ms"], found["market_ms"], found["believed"]) == (
        cli.now_ms,
        cli.now_ms,
        True,
    )
    assert found["boot_ms"] > 0
    assert len(found["boot_id"]) == 36
    names = [line.partition(":")[0] for line in cli.ok(*CLOCK).splitlines()]
    assert names == [
        *("clock", "since boot", "market time", "ahead of the clock", "last outage", "believed")
    ]
    assert cli.ok(*CLOCK).endswith("\nbelieved: yes\n")
    assert cli.files() == before


def test_clock_says_why_it_is_not_believed(cli: Cli) -> None:
    cli.active()
    cli.set_clock(10 * YEAR)
    done = cli(*CLOCK)
    why, _, see = AHEAD.partition(";")
    assert see == " see `tb-cli compute-market clock`\n"
    # It does not send the reader to where it is.
    way_out = "until it is right or `tb-cli compute-market clock accept` takes it"
    assert done.out.endswith(f"\nbelieved: {why} {way_out}\n")
    assert (done.code, done.err) == (0, "")
    shown = cli(*CLOCK, "--json").json
    assert (shown["doubt"], shown["off_ms"]) == ("ahead", 10 * YEAR * 1000)
    assert shown["market_ms"] == cli.now_ms - 10 * YEAR * 1000
    assert "clock_held 1.0" in cli("metrics").out


def test_accept_takes_the_new_time_and_tells_of_the_outage(cli: Cli) -> None:
    running(cli)
    (cli.home / "config.toml").write_text("provider_reputation_decay = 0")
    cli.set_clock(10 * YEAR)
    dry = cli(*CLOCK, "accept", "--dry-run")
    assert dry.out.startswith("dry_run: the clock is accepted\n")
    assert cli(*CLOCK, "--json").json["doubt"] == "ahead"
    done = cli(*CLOCK, "accept")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("the clock is accepted\n")
    assert done.out.endswith("\nbelieved: yes\n")
    cli.ok("tick", due="3 overdue jobs failed, 3 without fault (the market was away)")
    assert (cli.wallet("prov"), cli.score()) == ((100, 0), 5)
    again = cli.document(*CLOCK, "accept")
    assert (again["changed"], again["market_ms"]) == (False, cli.now_ms)
    assert "clock_held 0.0" in cli.ok("metrics")


def test_accept_of_a_clock_that_was_set_back_lets_time_go_on_from_there(cli: Cli) -> None:
    cli.active()
    market_ms = cli.now_ms
    cli.set_clock(-3600)
    assert cli(*CLOCK, "accept").code == 0
    cli.advance(60)
    found = cli.document(*CLOCK)
    assert (found["market_ms"], found["ahead_ms"]) == (market_ms + 60_000, 3_600_000)
    assert "ahead of the clock: 3600 s" in cli.ok(*CLOCK)


@pytest.mark.parametrize("word", ["now", "", "accept accept"])
def test_clock_with_another_word_is_a_usage_error(cli: Cli, word: str) -> None:
    cli.active()
    before = cli.files()
    assert cli(*CLOCK, *word.split(" ")).code == 2
    assert cli.files() == before


@pytest.mark.parametrize("command", [(*CLOCK, "accept"), ("compute-market", "sla", "extend")])
def test_time_that_a_restore_holds_goes_on_when_somebody_says_so(
    cli: Cli, command: tuple[str, ...]
) -> None:
    cli.active()
    cli.update(lambda txn: txn.put(META, b"time_held"))
    cli.advance(2 * 86_400)
    assert cli("tick").err.startswith(HELD)
    assert cli(*CLOCK, "--json").json["doubt"] == "held"
    given = () if "accept" in command else ("--by", "200000")
    assert cli(*command, *given).code == 0
    due = "1 overdue job failed, 1 without fault (the market was away)" if not given else ""
    cli.ok("tick", due=due)
    assert cli.job()["cause"] == (None if given else "outage")
