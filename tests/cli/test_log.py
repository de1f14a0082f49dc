"""`log`: what happened, when, and who asked for it."""

import json
import os
import pwd
import signal
import subprocess
from typing import Any

import pytest

from compute_market.records import EVENT_NAMES
from tests.support.cli import HELLO, Cli, Prepared

pytest_plugins = ("tests.support.cli",)

FIELDS = [
    *("seq", "at_ms", "event", "job_id", "offer_id", "owner", "detail"),
    *("user", "host", "pid", "command"),
]


def logged(cli: Cli, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.document("log", *options)
    return found


def names(cli: Cli, *options: str) -> list[str]:
    return [event["event"] for event in logged(cli, *options)]


def live_six_minutes(cli: Cli) -> None:
    """One command a minute, all within one epoch."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TB_EPOCH_BLOCKS", "1000")
        cli.post("--offer-id", "o-a", provider="ann")  # 0
        cli.advance(60)
        cli.submit("j1")  # 1
        cli.advance(60)
        cli.submit("j2", buyer="bob")  # 2
        cli.advance(60)
        cli.ok("compute", "prove", "j1", "0", HELLO)  # 3
        cli.advance(60)
        cli.ok("compute", "cancel", "j2", "--by", "provider")  # 4
        cli.advance(60)
        cli.ok("wallet", "deposit", "bob", "--ct", "7")  # 5


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("lived"), live_six_minutes)


@pytest.fixture
def busy(cli: Cli, lived: Prepared, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Six minutes of a market."""
    monkeypatch.setenv("TB_EPOCH_BLOCKS", "1000")
    lived.copy_to(cli)
    return cli


def test_log_tells_everything_that_happened_oldest_first(busy: Cli) -> None:
    found = logged(busy)
    assert [event["event"] for event in found] == [
        "offer_posted",
        *("job_queued", "job_started"),
        *("job_queued", "job_started"),
        *("job_proved", "job_completed", "score_changed"),
        *("job_cancelled", "score_changed"),
        "deposit",
    ]
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    for event in found:
        # What an event is not about it does not say.
        assert list(event) == [name for name in FIELDS if name in event]
        assert set(FIELDS) - set(event) <= {"job_id", "offer_id", "owner"}
    cancelled = next(event for event in found if event["event"] == "job_cancelled")
    assert (cancelled["job_id"], cancelled["owner"]) == ("j2", "bob")
    assert cancelled["detail"]["cause"] == "cancelled_by_provider"
    assert cancelled["at_ms"] == busy.now_ms - 60_000


def test_log_in_a_pipe_is_a_line_for_each(busy: Cli) -> None:
    found = logged(busy)
    rows = busy("log").rows
    assert len(rows) == len(found)
    assert {len(row) for row in rows} == {9}
    assert rows[-1] == [
        *(str(found[-1]["seq"]), str(busy.now_ms), "deposit", "-", "-", "bob", "ct=7 it=0"),
        *(pwd.getpwuid(os.getuid()).pw_name, "wallet deposit bob --ct 7"),
    ]
    assert busy("log", "--jsonl").jsonl == found


def test_log_tells_who_asked(cli: Cli) -> None:
    cli.process("wallet", "deposit", "alice", "--ct", "1")
    process = cli.start("wallet", "deposit", "alice", "--key", "the first", "--ct=2")
    process.communicate(timeout=20)
    process = cli.start("wallet", "deposit", "alice", "--it", "3", "--key", "k")
    process.communicate(timeout=20)
    first, second = logged(cli, "--event", "deposit")
    for event in (first, second):
        assert event["user"] == pwd.getpwuid(os.getuid()).pw_name
        assert event["host"] == os.uname().nodename
    assert first["command"] == "wallet deposit alice --ct 1"
    assert (second["command"], second["pid"]) == (
        "wallet deposit alice --it 3 --key k",
        process.pid,
    )


def test_line_of_a_batch_is_who_asked(cli: Cli) -> None:
    script = (
        "# pay\nwallet deposit alice --ct 1\ntb-cli wallet deposit bob --it=2\nchain advance 3\n"
    )
    assert cli("batch", stdin=script).code == 0
    assert [(event["event"], event["command"]) for event in logged(cli)] == [
        ("deposit", "wallet deposit alice --ct 1"),
        ("deposit", "wallet deposit bob --it=2"),
        ("blocks_advanced", "chain advance 3"),
    ]
    assert {event["pid"] for event in logged(cli)} == {os.getpid()}


def test_command_line_in_the_log_is_one_line_that_commands_no_terminal(cli: Cli) -> None:
    cli.ok("state", "init")
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "9")
    cli.ok("compute-market", "settle", "cancel-arm")
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
    reason = "one\ntwo\t\x1b[31m" + "\U000e0001" * 180  # which is written with 10 characters each
    cli("compute-market", "settle", "dry-run", "--reason", reason)
    out = cli.ok("log")
    assert out.isprintable() or set(filter(lambda c: not c.isprintable(), out)) == {"\t", "\n"}
    assert {len(row) for row in cli("log").rows} == {9}
    last = logged(cli)[-1]
    assert last["detail"]["reason"] == reason  # JSON has it as it was given
    assert last["command"].startswith(
        "compute-market settle dry-run --reason one\\ntwo\\t\\x1b[31m"
    )
    assert len(last["command"]) <= 1000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--job", "j1"), [2, 3, 6, 7]),
        (("--job", "nobody"), []),
        (("--offer", "o-a"), [1, 2, 4]),
        (("--owner", "bob"), [4, 5, 9, 11]),
        (("--owner", "alice"), [2, 3, 6, 7]),
        # A provider is told of in the events of jobs, too.
        (("--owner", "ann"), [1, 2, 4, 6, 8, 10]),
        (("--event", "job_queued"), [2, 4]),
        (("--event", "job_queued", "--event", "deposit"), [2, 4, 11]),
        (("--event", "job_queued", "--owner", "bob"), [4]),
        (("--job", "j1", "--event", "deposit"), []),
        (("--limit", "2"), [10, 11]),
        (("--limit", "0"), []),
        (("--limit", "100"), list(range(1, 12))),
        (("--job", "j1", "--limit", "1"), [7]),
        (("--since", "60s"), [9, 10, 11]),
        (("--since", "60"), [9, 10, 11]),
        (("--since", "60s ago"), [9, 10, 11]),
        (("--until", "5m ago"), [1]),
        (("--since", "59s"), [11]),
        (("--since", "1h"), list(range(1, 12))),
        (("--since", "0"), [11]),
        (("--until", "5m"), [1]),
        (("--until", "4m"), [1, 2, 3]),
        (("--since", "4m", "--until", "3m"), [2, 3, 4, 5]),
        (("--since", "4m", "--limit", "1", "--job", "j1"), [7]),
        (("--until", "2m", "--limit", "2"), [7, 8]),
        (("--since", "2000-01-01", "--until", "2000-01-02T03:00"), []),
    ],
)
def test_log_filters(busy: Cli, options: tuple[str, ...], expected: list[int]) -> None:
    assert [event["seq"] for event in logged(busy, *options)] == expected
    assert [int(row[0]) for row in busy("log", *options).rows] == expected


@pytest.mark.parametrize("page", [1, 2, 3, 11, 12])
def test_log_goes_on_over_the_page(busy: Cli, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    monkeypatch.setattr(paging, "PAGE", page)
    assert [event["seq"] for event in logged(busy)] == list(range(1, 12))
    assert [event["seq"] for event in logged(busy, "--since", "3m")] == list(range(4, 12))
    assert [event["seq"] for event in logged(busy, "--job", "j1")] == [2, 3, 6, 7]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("--since", "3m", "--until", "4m"), "--until is before --since"),
        (("--until", "25:00"), "--until: '25:00' is no time"),
        (("--since", ""), "--since: '' is no time"),
        (("--since", "-1h"), "--since"),
        (("--since", "1w"), "--since: '1w' is no time"),
        (("--since", " ago"), "--since: ' ago' is no time"),
        (("--since", "ago"), "--since: 'ago' is no time"),
        (("--since", "2026-13-01"), "--since: '2026-13-01' is no time"),
        (("--since", "\x1b[2J"), "--since: '\\\\x1b[2J' is no time"),
        (("--job", "no such"), "--job 'no such' has the character ' '"),
        (("--job", ""), "--job is empty"),
        (("--offer", "a/b"), "--offer 'a/b' has the character '/'"),
        (("--owner", "é"), "--owner '\\xe9' has the character '\\xe9'"),
        (("--event", "job_lost"), "--event: 'job_lost' is none of job_queued, job_pending, "),
        (("--limit", "-1"), "--limit"),
        (("--limit", "many"), "--limit"),
        (("extra",), "extra"),
    ],
)
def test_bad_filter_is_usage(busy: Cli, options: tuple[str, ...], says: str) -> None:
    done = busy("log", *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: ")
    assert says in done.err.splitlines()[0]


def test_every_event_can_be_asked_for(busy: Cli) -> None:
    for name in EVENT_NAMES:
        assert set(names(busy, "--event", name)) <= {name}


def test_dry_run_is_no_event(busy: Cli) -> None:
    before = logged(busy)
    busy.ok("wallet", "deposit", "alice", "--ct", "1", "-n")
    assert logged(busy) == before


def lines_of(process: "subprocess.Popen[bytes]", count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_follow_goes_on_with_what_happens(busy: Cli) -> None:
    process = busy.start("log", "-f", "--limit", "1", "--jsonl", "--owner", "bob")
    (last,) = lines_of(process, 1)
    assert last["seq"] == 11
    busy.ok("wallet", "deposit", "alice", "--ct", "1")
    busy.ok("wallet", "deposit", "bob", "--ct", "2")
    busy.ok("wallet", "deposit", "bob", "--ct", "3")
    found = lines_of(process, 2)
    assert [event["detail"]["ct"] for event in found] == [2, 3]
    busy.ok("wallet", "withdraw", "bob", "--ct", "1")
    (last,) = lines_of(process, 1)
    assert (last["event"], last["seq"]) == ("withdraw", 15)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_follow_prints_what_there_is_first(busy: Cli) -> None:
    process = busy.start("log", "--follow", "--jsonl", "--since", "1h")
    assert [event["seq"] for event in lines_of(process, 11)] == list(range(1, 12))
    process.terminate()
    assert process.wait(timeout=20) == 143
    process.communicate()


def test_follow_ends_at_the_given_time(busy: Cli) -> None:
    process = busy.start("log", "-f", "--until", "1s", "--limit", "1")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    # The clock of the process is not that of the fixture, which may be minutes ahead.
    assert out.count(b"\n") <= 1


def test_follow_ends_quietly_when_nobody_reads(busy: Cli) -> None:
    process = busy.start("log", "-f", "--limit", "1", "--jsonl")
    lines_of(process, 1)
    assert process.stdout is not None
    process.stdout.close()
    busy.ok("wallet", "deposit", "bob", "--ct", "2")
    assert process.wait(timeout=20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_history_is_the_log_of_one_job(busy: Cli) -> None:
    assert busy.document("compute", "history", "j1") == logged(busy, "--job", "j1")
    assert busy("compute", "history", "j1", "--jsonl").jsonl == logged(busy, "--job", "j1")
    assert busy.ok("compute", "history", "j2") == busy.ok("log", "--job", "j2")
    error = "error[not_found]: job nope does not exist\nhint: see `tb-cli compute list`\n"
    assert busy("compute", "history", "nope") == (3, "", error)
    assert busy("compute", "history", "no such").code == 2


def test_history_goes_back_as_far_as_the_log(busy: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_LOG_RETENTION_SECS", "3600")
    busy.advance(3600 - 3 * 60)
    busy.ok("tick")
    assert [event["event"] for event in busy.document("compute", "history", "j1")] == [
        *("job_proved", "job_completed"),
    ]
