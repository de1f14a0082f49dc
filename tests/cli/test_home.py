"""The home: where it is, who makes it, whose it is, and what in it is never followed."""

import fcntl
import json
import os
import pwd
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from compute_market import home as names
from compute_market.hashing.calibration import Calibration, CpuRates, machine
from tb_cli.frame import mounts
from tests.support.cli import Cli
from tests.support.owners import SOMEBODY, as_root, umask
from tests.support.processes import Running, needs_proc, until

pytest_plugins = ("tests.support.cli",)

DEPOSIT = ("wallet", "deposit", "alice", "--ct", "1")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate at once: it is not about what comes out."""
    found = Calibration(1, machine(), 1, CpuRates(1, 1, 1, 1, 1))
    monkeypatch.setattr("compute_market.hashing.measure.measure", lambda *_, **__: found)


def everything(directory: Path) -> list[Path]:
    return [directory, *sorted(directory.rglob("*"))]


# Where it is.


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TB_HOME": ""}, "TB_HOME is empty"),
        ({"TB_HOME": "~nobody-of-that-name/x"}, "~nobody-of-that-name/x: no such home directory"),
        ({"TB_HOME": None, "HOME": ""}, "no home directory is known"),
        ({"TB_HOME": "~/market", "HOME": ""}, "~/market: no such home directory"),
        ({"TB_HOME": None, "HOME": None}, "no home directory is known"),
        ({"TB_HOME": "~", "HOME": None}, "~: no such home directory"),
    ],
)
def test_name_that_stands_for_no_directory_is_usage(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None], says: str
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(pwd, "getpwuid", unknown)  # As in a container.
    for command in (DEPOSIT, ("compute", "list"), ("state", "init")):
        done = cli(*command)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error[usage]: {says}")
    assert list(cli.directory.iterdir()) == []


# Who makes it.


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("compute", "offer", "post", "--provider", "p", "--units", "0", "--price", "1"), 5),
        (("compute", "offer", "post", "offers.jsonl", "--units", "0"), 5),
        (("compute", "offer", "post", "offers.jsonl", "--units", "0", "--atomic"), 5),
        (("wallet", "deposit", "alice"), 2),
    ],
)
def test_what_is_refused_makes_no_market(cli: Cli, command: tuple[str, ...], code: int) -> None:
    line = '{"provider": "p", "units": 1, "price_per_unit": 1}\n'
    (cli.directory / "offers.jsonl").write_text(2 * line)
    before = everything(cli.directory)
    done = cli(*command)
    assert done.code == code, done
    assert "created" not in done.err
    batch = cli("batch", "-", stdin=" ".join(command) + "\ncompute list\n")
    assert "no market in " in batch.err
    assert everything(cli.directory) == before


def test_first_item_that_is_not_refused_makes_the_market(cli: Cli) -> None:
    lines = (
        '{"provider": "p", "units": 0, "price_per_unit": 1}',
        '{"provider": "p", "units": 7, "price_per_unit": 1}',
    )
    post = ("compute", "offer", "post", "-", "--chunk", "1")
    done = cli(*post, stdin="\n".join(lines))
    assert done.code == 7
    assert done.err.startswith(f"created a market in {cli.home}\n")
    assert [offer["units"] for offer in cli.document("compute", "offer", "list")] == [7]


def test_making_is_told_in_one_write(cli: Cli) -> None:
    """Lines of commands that begin at once do not run into each other."""
    reader, writer = os.pipe2(os.O_DIRECT)  # Every write is a packet of its own.
    try:
        unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = cli.start(*DEPOSIT, stderr=writer, afresh=True, env=unbuffered)
        assert process.wait(30) == 0
        assert os.read(reader, 4096) == f"created a market in {cli.home}\n".encode()
    finally:
        os.close(reader)
        os.close(writer)


# Whose it is.


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_everything_made_is_private_whatever_the_umask(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, measured: None, mask: int
) -> None:
    cli.home = cli.directory / "above" / "deeper" / "home"
    monkeypatch.setenv("TB_HOME", str(cli.home))
    with umask(mask):
        cli.active()
        cli.ok("compute", "cancel", "j1")
        cli.ok("compute", "calibrate", "--backend", "cpu")
    made = everything(cli.directory / "above")
    assert {path.name for path in made} >= {"calibration.json", "cancellations.log", "write.lock"}
    for path in made:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == expected, path


def test_home_that_everybody_may_write_is_refused(cli: Cli) -> None:
    cli.ok(*DEPOSIT)
    before = cli.files()
    for mode in (0o777, 0o1777, 0o702):
        cli.home.chmod(mode)
        for command in (DEPOSIT, ("wallet", "balance", "alice"), ("compute", "calibrate")):
            told = f"error[usage]: {cli.home} may be written by everybody\n"
            assert cli(*command).err.startswith(told)
            assert cli(*command).code == 2
    assert cli.files() == before
    cli.home.chmod(0o775)
    cli.ok(*DEPOSIT)
    empty = cli.directory / "empty"
    empty.mkdir()
    empty.chmod(0o777)
    assert cli("--home", empty, *DEPOSIT).code == 2
    assert list(empty.iterdir()) == []


def test_home_that_others_need_as_it_is_is_not_to_be_changed(cli: Cli) -> None:
    everybodys = cli.directory / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    for path, problem in (
        (everybodys, "may be written by everybody"),
        (Path("/dev/null"), "is not a directory"),
    ):
        done = cli("--home", path, "status")
        assert (done.code, done.out) == (2, "")
        assert f"error[usage]: {path} {problem}\n" in done.err
        assert "chmod" not in done.err


# What in it is never the place of results.


RESULTS = [
    ("metrics", "--textfile"),
    ("compute", "cancel", "j1", "--failed-to"),
    ("compute", "wait", "j1", "--timeout", "1", "--failed-to"),
    ("compute-market", "simulate", "steady_load", "--param", "length_secs=60", "--csv"),
    ("compute-market", "receipts", "export", "--key", "node"),
    ("net", "reputation", "export"),
]
PLACES = ("data", "log", "board", "new", "link", "another")


@pytest.mark.parametrize(
    "command",
    [each for each in RESULTS if "export" not in each],
    ids=lambda command: command[-1],
)
@pytest.mark.parametrize("name", [names.CONFIG, names.SERVE_TOKEN, f"{names.KEYS}/k"])
def test_results_are_no_part_of_a_home_without_a_market(
    cli: Cli, command: tuple[str, ...], name: str
) -> None:
    cli.ok("config", "init")
    (cli.home / names.KEYS).mkdir()
    before = cli.files()
    done = cli(*command, cli.home / name)
    # What tells a market says first that there is none.
    assert (done.code, done.out) == (3 if command[0] == "metrics" else 2, "")
    assert cli.files() == before


@pytest.mark.parametrize("place", [names.CONFIG, f"{names.STORE}/x", names.SERVE_TOKEN])
@pytest.mark.parametrize("verb", [("state", "archive", "--before", "1"), ("state", "backup")])
def test_archives_and_backups_are_no_part_of_a_home(
    cli: Cli, verb: tuple[str, ...], place: str, tmp_path: Path
) -> None:
    cli.active()
    other = shutil.copytree(cli.home, tmp_path / "another")
    before = cli.files()
    for home in (cli.home, other):
        for extra in ((), ("--dry-run",)):
            done = cli(*verb, home / place, *extra)
            assert (done.code, done.out) == (2, "")
        assert not (home / place).exists()
    assert cli.files() == before


@pytest.mark.parametrize(
    ("command", "place"),
    [
        *((command, place) for command in RESULTS for place in PLACES),
        # The others print to what is called so.
        *((command, "-") for command in RESULTS if "export" not in command),
    ],
)
def test_results_never_take_the_place_of_what_belongs_to_a_market(
    cli: Cli, command: tuple[str, ...], place: str, tmp_path: Path
) -> None:
    cli.active()
    cli.ok("key", "new", "node")
    cli.home.joinpath(names.CANCELLATIONS_LOG).touch()
    other = shutil.copytree(cli.home, tmp_path / "another")
    link = tmp_path / "link"
    link.symlink_to(names.data_file(str(cli.home / names.STORE)))
    named = {
        "data": cli.home / names.STORE / names.DATA,
        "log": cli.home / names.CANCELLATIONS_LOG,
        "board": cli.home / names.PRICE_BOARD,
        "new": cli.home / names.KEYS / "new",
        "link": link,
        "another": other / names.STORE / names.DATA,
        "-": "-",
    }[place]
    before = cli.files(), cli.states()
    done = cli(*command, named)
    assert (done.code, done.out) == (2, "")
    assert "belongs to the market itself" in done.err or place == "-"
    assert not Path("-").exists()
    assert (cli.files(), cli.states()) == before
    assert link.is_symlink()


@as_root
@pytest.mark.parametrize(
    "command",
    [("status",), ("compute", "list"), ("wallet", "balance", "alice")],
    ids=" ".join,
)
def test_a_home_of_somebody_else_is_warned_of_once(cli: Cli, command: tuple[str, ...]) -> None:
    cli.ok(*DEPOSIT)
    os.chown(cli.home, SOMEBODY, SOMEBODY)
    warning = f"warning: {cli.home} belongs to user {SOMEBODY}\n"
    assert cli(*command).err == warning
    cli.data.write_bytes(b"no data file")
    done = cli(*command)
    assert done.code != 0
    assert done.err.count(warning) == 1
    cli.audited = False


@as_root
def test_what_root_makes_in_a_home_belongs_to_whom_the_home_belongs(
    cli: Cli, measured: None
) -> None:
    cli.home.mkdir(mode=0o700)
    os.chown(cli.home, SOMEBODY, SOMEBODY + 1)
    warning = f"warning: {cli.home} belongs to user {SOMEBODY}\n"
    offer = ("compute", "offer", "post", "--provider", "p", "--units", "9", "--price", "1")
    for command in (
        offer,
        cli.job_arguments(),
        ("compute", "cancel", "j1"),
        ("wallet", "balance", "alice"),
    ):
        done = cli(*command)
        assert done.code == 0, done
        assert done.err.startswith(warning)
    cli.ok("compute", "calibrate", "--backend", "cpu")
    made = everything(cli.home)
    assert {path.name for path in made} == {
        *("home", "market", "data.mdb", "lock.mdb", "write.lock"),
        *("cancellations.log", "calibration.json", "state", "price_board.v2.bin"),
    }
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in made}
    assert owners == {(SOMEBODY, SOMEBODY + 1)}
    for name in ("lock.mdb", "write.lock"):
        (cli.home / "market" / name).unlink()
    cli(*DEPOSIT)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in everything(cli.home)}
    assert owners == {(SOMEBODY, SOMEBODY + 1)}


# What in it is never followed.


@pytest.mark.parametrize("name", ["", names.DATA, "lock.mdb"])
@pytest.mark.parametrize("lasts", [True, False], ids=["to a file", "to nothing"])
def test_link_in_the_place_of_the_store_is_refused(cli: Cli, name: str, lasts: bool) -> None:
    cli.audited = False
    cli.ok(*DEPOSIT)
    victim = cli.directory / "victim"
    link = cli.home / "market" / name
    os.rename(link, victim)
    if not lasts:
        shutil.rmtree(victim, ignore_errors=True)
        victim.unlink(missing_ok=True)
    link.symlink_to(victim)
    before = everything(cli.directory)
    for command in (DEPOSIT, ("wallet", "balance", "alice"), ("state", "init")):
        done = cli(*command)
        if done.code == 3:  # Who only looks finds none behind a link that leads to nothing.
            assert (command[:2], lasts) == (("wallet", "balance"), False)
            continue
        assert (done.code, done.out) == (2, ""), done
        assert done.err.startswith(f"error[usage]: {str(link).rstrip('/')}: {names.LINK}\n")
    assert everything(cli.directory) == before


def test_link_in_the_place_of_the_write_lock_is_refused(cli: Cli) -> None:
    cli.ok(*DEPOSIT)
    lock = cli.home / "market" / "write.lock"
    lock.unlink()
    lock.symlink_to(cli.directory / "victim")
    assert cli(*DEPOSIT).code == 2
    assert not (cli.directory / "victim").exists()
    assert cli.wallet("alice") == (1, 0)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "too long"])
def test_configuration_that_is_no_file_of_its_own_is_refused(cli: Cli, kind: str) -> None:
    cli.ok(*DEPOSIT)
    path = cli.home / "config.toml"
    if kind == "link":
        (cli.directory / "mine.toml").write_text("min_capacity = 5\n")
        path.symlink_to(cli.directory / "mine.toml")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)  # It takes no room on disk.
    says = {
        "link": names.LINK,
        "fifo": "not a regular file",
        "directory": "is a directory",
        "too long": f"more than {2**20} bytes",
    }[kind]
    for command in (DEPOSIT, ("wallet", "balance", "alice"), ("config", "show")):
        assert cli(*command) == (2, "", f"error[usage]: {path}: {says}\n")


# What becomes of it while a command waits.


@needs_proc
@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_home_that_is_another_one_after_the_wait_is_a_conflict(cli: Cli, what: str) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    market, log = cli.home / "market", cli.home / "cancellations.log"
    lock = os.open(market, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waiter = cli.start("compute", "cancel", "j1")
    waiting = Running(waiter, cli.directory / "unused")
    until(lambda: waiting.has_open(market))  # It is at the turnstile.
    cli.home.rename(cli.directory / "before")
    if what == "replaced":
        shutil.copytree(cli.directory / "before", cli.home)
    before = cli.files()
    os.close(lock)
    out, err = waiter.communicate(timeout=30)
    assert (waiter.returncode, out) == (6, b"")
    told = f"error[conflict]: the market in {market} was moved away or replaced meanwhile\n"
    assert err.decode().startswith(told)
    assert cli.files() == before
    if what == "deleted":
        assert not cli.home.exists()
    else:
        assert cli.states()["j1"] == "active"
        assert log.read_text() == "j2 client\n"


LOOKING = (
    ("compute", "list", "--watch", "0.1"),
    ("compute", "queue", "--watch", "0.1", "-q", "--limit", "1"),
    ("log", "-f"),
    ("compute", "wait", "j1", "j2", "j3"),
)


@pytest.mark.parametrize("what", ["deleted", "moved", "copied", "restored"])
@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_who_looks_again_ends_once_another_home_is_there(
    cli: Cli, command: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_SCHEDULER_SLOTS", "2")
    cli.active("j1", "j2")
    cli.submit("j3")
    cli.submit("j4")
    cli.ok("compute", "cancel", "j1")
    cli.ok("state", "backup", "kept")
    process = cli.start(*command)
    assert process.stdout is not None
    assert process.stdout.readline()  # It has looked.
    if what == "deleted":
        shutil.rmtree(cli.home)
    else:
        cli.home.rename(cli.directory / "before")
    if what == "copied":
        shutil.copytree(cli.directory / "before", cli.home)
    elif what == "restored":
        cli.ok("state", "restore", "kept")
    _, err = process.communicate(timeout=20)
    market = cli.home / "market"
    assert (process.wait(20), err.decode()) == (
        6,
        f"error[conflict]: the market in {market} was moved away or replaced meanwhile\n"
        "hint: run it again on what is there now\n",
    )
    cli.audited = what in ("copied", "restored")


def test_who_looks_again_tells_in_json_what_has_arrived(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j1")
    process = cli.start("compute", "wait", "j1", "j2", "--json")
    time.sleep(0.5)  # It has looked.
    cli.home.rename(cli.directory / "before")
    out, err = process.communicate(timeout=20)
    assert (process.wait(20), json.loads(err)["error"]) == (6, "conflict")
    assert [each["job_id"] for each in json.loads(out)] == ["j1"]
    cli.audited = False


def test_who_looks_again_goes_on_with_a_compacted_market(cli: Cli) -> None:
    cli.active("j1", "j2")
    process = cli.start("compute", "wait", "j1", "j2", "--for", "ended")
    time.sleep(0.5)
    cli.ok("state", "compact")
    cli.ok("compute", "cancel", "j1", "j2")
    out, err = process.communicate(timeout=20)
    assert (process.wait(20), out, err) == (0, b"job j1 cancelled\njob j2 cancelled\n", b"")


def test_line_of_a_batch_that_looks_is_refused_once_another_home_is_there(cli: Cli) -> None:
    cli.active("j1")
    process = cli.start("batch", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"compute list -q\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"j1\n"
    cli.home.rename(cli.directory / "before")
    _, err = process.communicate(b"compute list -q\ncompute status j1\n", timeout=20)
    assert process.wait(20) == 7
    assert err.count(b"moved away or replaced meanwhile") == 2
    cli.audited = False


@pytest.mark.timeout(30)
def test_log_that_is_locked_is_waited_for_no_longer_than_the_market(cli: Cli) -> None:
    cli.active("j1", "j2")
    log = cli.home / "cancellations.log"
    log.touch()
    told = f"warning: {log}: locked by process {os.getpid()}; the next change makes it whole\n"
    with log.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cancel = ("compute", "cancel", "j1", "--lock-timeout", "0")
        assert cli(*cancel) == (0, "cancelled job j1\n", told)
        cancel = ("--lock-timeout", "0", "compute", "cancel", "j2")
        assert cli(*cancel) == (0, "cancelled job j2\n", told)
        assert cli("wallet", "balance", "alice").code == 0
    assert log.read_text() == ""
    cli.ok("tick")
    assert log.read_text() == "j1 client\nj2 client\n"


# What it is on.


def test_network_file_system_is_warned_of_when_a_market_is_made(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = cli.directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = cli.directory / "mountinfo"
    monkeypatch.setattr(mounts, "TABLE", str(table))
    for kind, warned in (
        *(("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("9p", True)),
        *(("ext4", False), ("tmpfs", False), ("overlay", False)),
    ):
        table.write_text(
            "22 1 0:1 / / rw - nfs4 server:/ rw\n"
            f"36 35 {number} / /mnt rw,noatime shared:1 master:2 - {kind} /dev/x rw\n"
        )
        home = cli.directory / kind
        done = cli("--home", home, *DEPOSIT)
        warning = f"warning: {home} is on a file system of type {kind}"
        assert done.code == 0
        assert (warning in done.err) == warned, done
        assert "file system" not in cli("--home", home, *DEPOSIT).err
    for damaged in ("", "36\n", f"36 35 {number} / /mnt rw no end\n"):
        table.write_text(damaged)
        assert mounts.network_type(str(cli.directory)) is None
