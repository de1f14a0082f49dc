"""`batch`."""

from pathlib import Path

import pytest

from tests.support.cli import HELLO, Cli

pytest_plugins = ("tests.support.cli",)


def test_batch_runs_one_command_per_line(cli: Cli) -> None:
    cli.ok("state", "init")
    script = (
        "# money first\n"
        "wallet deposit alice --ct 100 --key k\n"
        "\n"
        "  tb-cli wallet deposit 'bob' --it \"5\"\n"
        "wallet balance alice --json\n"
    )
    done = cli("batch", "-", stdin=script)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "deposited 100 CT 0 IT; alice has 100 CT 0 IT\n"
        "deposited 0 CT 5 IT; bob has 0 CT 5 IT\n"
        "{\n"
        '  "owner": "alice",\n'
        '  "ct": 100,\n'
        '  "it": 0,\n'
        '  "escrow": {\n'
        '    "ct": 0,\n'
        '    "it": 0\n'
        "  },\n"
        '  "bonds": {\n'
        '    "ct": 0\n'
        "  }\n"
        "}\n"
    )
    assert (cli.wallet("alice"), cli.wallet("bob")) == ((100, 0), (0, 5))


def test_batch_reads_stdin_without_being_told(cli: Cli) -> None:
    assert cli.ok("batch", stdin="wallet deposit a --ct 1") == (
        "deposited 1 CT 0 IT; a has 1 CT 0 IT\n"
    )


def test_batch_of_nothing_does_nothing(cli: Cli) -> None:
    assert cli("batch", "-", stdin="\n# only words\n") == (0, "", "nothing given, nothing done\n")


def test_each_line_is_a_transaction_of_its_own(cli: Cli) -> None:
    cli.active("j1", "j2")
    done = cli("batch", stdin="compute cancel j1\ncompute cancel nope\ncompute cancel j2\n")
    assert done == (
        7,
        "cancelled job j1\njob not found\ncancelled job j2\n",
        "error[not_found]: job nope does not exist\nhint: see `tb-cli compute list`\n"
        "line 2: exit code 3\n",
    )
    assert cli.states() == {"j1": "cancelled", "j2": "cancelled"}
    assert cli.log() == "j1 client\nj2 client\n"


def test_batch_may_stop_at_the_first_failure(cli: Cli) -> None:
    cli.active("j1", "j2")
    script = "compute cancel j1\ncompute cancel nope\ncompute cancel j2\n"
    done = cli("batch", "--fail-fast", stdin=script)
    assert (done.code, done.out) == (7, "cancelled job j1\njob not found\n")
    assert cli.states() == {"j1": "cancelled", "j2": "active"}


def test_batch_ends_with_the_common_code(cli: Cli) -> None:
    assert cli("batch", stdin="compute status a\ncompute status b\n").code == 3
    assert cli("batch", stdin="compute status a\nnonsense\n").code == 7
    assert cli("batch", stdin="nonsense\n").code == 2


def test_usage_errors_name_the_line(cli: Cli) -> None:
    cli.ok("state", "init")
    done = cli("batch", stdin="compute list\ncompute status 'unclosed\n")
    assert (done.code, done.out) == (7, "")
    error = "error[usage]: stdin line 2: No closing quotation\n"
    assert done.err == f"{error}line 2: exit code 2\n"
    done = cli("batch", stdin="batch -\n")
    error = "error[usage]: stdin line 1: a batch cannot hold a batch\n"
    assert (done.code, done.err) == (2, f"{error}line 1: exit code 2\n")
    error = "error[usage]: 'file': only - , stdin, can be read\n"
    assert cli("batch", "file") == (2, "", error)


def test_options_of_the_batch_hold_for_every_line(cli: Cli) -> None:
    cli.active()
    before = cli.files()
    done = cli("batch", "--dry-run", stdin="compute cancel j1\nwallet deposit a --ct 1\n")
    assert done == (
        0,
        "dry_run: cancelled job j1\ndry_run: deposited 1 CT 0 IT; a has 1 CT 0 IT\n",
        "",
    )
    assert cli.files() == before
    done = cli("batch", "--json", stdin="wallet deposit a --ct 1\ncompute status nope\n")
    assert (done.code, done.json["changed"]) == (7, True)
    assert done.err.splitlines()[0].startswith('{"error":"not_found",')


@pytest.mark.parametrize("place", ["before", "behind"])
def test_home_of_the_batch_is_that_of_every_line(cli: Cli, place: str, tmp_path: Path) -> None:
    """Another one that the environment names, where there is a market too, is left alone."""
    cli.ok("wallet", "deposit", "alice", "--ct", "1")
    other = "--home", tmp_path / "other"
    line = ("batch", "-")
    done = cli(
        *(*other, *line) if place == "before" else (*line, *other),
        stdin="wallet deposit alice --ct 5\nwallet balance alice\n",
    )
    assert done.code == 0
    assert cli.wallet("alice") == (1, 0)
    assert cli.document("wallet", "balance", "alice", *other)["ct"] == 5


def test_line_may_name_a_home_of_its_own(cli: Cli) -> None:
    other = cli.directory / "other"
    script = f"wallet deposit a --ct 1\nwallet deposit a --ct 2 --home {other}\n"
    script += f"wallet deposit b --ct 8 --home {cli.home}/../home\n"
    cli.ok("batch", stdin=script + "wallet deposit a --ct 4\n")
    assert (cli.wallet("a"), cli.wallet("b")) == ((5, 0), (8, 0))
    assert cli.document("wallet", "balance", "a", "--home", other)["ct"] == 2


@pytest.mark.parametrize(
    "bad",
    [
        b'wallet deposit b --ct 1 "',
        b"wallet deposit \xff\xfe --ct 1",
        b"wallet deposit b --ct 1 --key " + b"k" * 70_000,
        b"state backup copy\0",
        b"batch -",
        b"nonsense",
    ],
    ids=["unclosed", "not UTF-8", "too long", "NUL", "batch", "nonsense"],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_line_that_is_wrong_fails_alone(cli: Cli, bad: bytes, form: tuple[str, ...]) -> None:
    given = b"wallet deposit a --ct 1\n" + bad + b"\nwallet deposit a --ct 2\n"
    done = cli("batch", "-", *form, stdin=given)
    assert (done.code, cli.wallet("a")) == (7, (3, 0))
    assert done.err.count('"error":"usage"' if form else "error[usage]: ") == 1
    assert "\nline 2: exit code 2\n" in done.err
    assert len(done.err) < 500


@pytest.mark.parametrize("line", ["--show-completion", "--help", "compute cancel --help", "tb-cli"])
@pytest.mark.usefixtures("from_bash")
def test_line_that_only_shows_something_does_not_end_the_batch(cli: Cli, line: str) -> None:
    done = cli("batch", "-", stdin=f"{line}\nwallet deposit a --ct 1\n")
    assert done.code == 0
    assert done.out.endswith("deposited 1 CT 0 IT; a has 1 CT 0 IT\n")


def test_batch_prints_as_it_goes(cli: Cli) -> None:
    cli.ok("state", "init")
    import subprocess

    process = cli.start("batch", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"wallet deposit a --ct 1\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"deposited 1 CT 0 IT; a has 1 CT 0 IT\n"
    # The store is not locked while the batch waits for its next line.
    cli.ok("wallet", "deposit", "a", "--ct", "1", "--lock-timeout", "1")
    process.stdin.write(b"wallet deposit a --ct 1\n")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"deposited 1 CT 0 IT; a has 3 CT 0 IT\n", b"")


READS_STDIN = (
    "compute run -",
    "compute run --workload inference -",
    "compute cancel -",
    "compute execute -",
    "compute wait -",
    "compute submit -",
    "compute submit --buyer alice -",
    "compute offer post -",
    "compute offer withdraw o-1 -",
)


@pytest.mark.parametrize("line", READS_STDIN)
def test_line_cannot_read_the_lines_after_it(line: str, cli: Cli) -> None:
    cli.ok("state", "init")
    done = cli("batch", "-", stdin=f"{line}\nwallet deposit a --ct 1\n")
    assert (done.code, done.out) == (7, "deposited 1 CT 0 IT; a has 1 CT 0 IT\n")
    assert done.err == (
        "error[usage]: standard input cannot be read here: the commands of the batch come from it\n"
        "hint: name a file, or run this command by itself\n"
        "line 1: exit code 2\n"
    )
    assert (cli.document("compute", "list"), cli.document("compute", "offer", "list")) == ([], [])
    done = cli("batch", "--fail-fast", "--json", stdin=f"{line}\nwallet deposit a --ct 1\n")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith('{"error":"usage","message":"standard input cannot be read here: ')
    assert cli.wallet("a") == (1, 0)


def test_every_line_that_reads_stdin_fails_alike(cli: Cli) -> None:
    script = "".join(f"{line}\n" for line in READS_STDIN)
    done = cli.process("batch", "-", stdin=script)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("error[usage]: standard input cannot be read here: ") == len(READS_STDIN)


def test_line_keeps_a_file_of_the_name_of_stdin(cli: Cli) -> None:
    """Where - is no standard input to a command, it is none in a batch."""
    cli.ok("state", "init")
    path = cli.slice("-")
    done = cli("batch", "-", stdin="compute run ./-\nwallet deposit a --ct 1\n")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{HELLO}  ./-\n")
    assert path.read_bytes() == b"hello"
