"""`state backup`: copies that can be trusted, and what is no market or damaged."""

import faulthandler
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from random import Random
from signal import SIGBUS, SIGKILL, SIGSEGV, Signals

import pytest

from tests.cli.test_bad_input import mounted
from tests.support.cli import Cli
from tests.support.effort import effort
from tests.support.stores import contents

pytest_plugins = ("tests.support.cli",)

SOUND = "receipts 0 invalid 0\n"


def with_a_cancelled_job(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    (cli.home / "config.toml").write_text("min_capacity = 5\n")


def in_directory(cli: Cli) -> set[str]:
    return {path.name for path in cli.directory.iterdir()}


# Backups.


def test_backup_is_a_home_of_its_own(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    copy = cli.directory / "copy"
    previous = os.umask(0)
    try:
        said = cli.ok("state", "backup", copy)
    finally:
        os.umask(previous)
    size = (copy / "market" / "data.mdb").stat().st_size
    assert said == (
        f"wrote {size} bytes to {copy}\n"
        f"it is not checked: `tb-cli --home {copy} state check` does that\n"
    )
    assert all(path.stat().st_mode & 0o077 == 0 for path in (copy, *copy.rglob("*")))
    board = "state/price_board.v2.bin"
    files = {"config.toml", "cancellations.log", "market/data.mdb", board}
    assert contents(copy).keys() == files
    assert (copy / board).read_bytes() == (cli.home / board).read_bytes()
    assert cli.ok("--home", copy, "compute", "list") == cli.ok("compute", "list")
    assert cli.ok("--home", copy, "state", "check") == SOUND
    # From here on the two go their own ways.
    cli.ok("--home", copy, "compute", "cancel", "j1")
    assert (copy / "cancellations.log").read_text() == "j2 client\nj1 client\n"
    assert cli.states() == {"j1": "active", "j2": "cancelled"}


def test_backup_has_the_log_of_its_moment_whatever_lies_in_the_home(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    (cli.home / "cancellations.log").write_text("j2")
    cli.ok("state", "backup", "copy")
    assert cli.ok("--home", "copy", "compute-market", "audit") == SOUND
    (cli.home / "cancellations.log").write_text("j2 client\n")


def test_backup_is_remembered(cli: Cli) -> None:
    cli.ok("state", "init")
    document = cli.document("state", "backup", "copy")
    assert document == {"path": "copy", "bytes": os.stat("copy/market/data.mdb").st_size}
    last = {"at_ms": cli.now_ms, "path": f"{cli.directory}/copy", "bytes": document["bytes"]}
    assert cli.document("state", "info")["last_backup"] == last
    assert cli.document("state", "info", "--home", "copy")["last_backup"] is None
    for junk in ("{", "[]", "{}", '{"at_ms": 1e99, "path": "", "bytes": 1}'):
        (cli.home / "last_backup").write_text(junk)
        assert cli.document("state", "info")["last_backup"] is None
        assert cli.ok("state", "info").endswith("last_backup: -\n")


def test_backup_never_overwrites(cli: Cli) -> None:
    cli.active()
    cli.ok("state", "backup", "copy")
    before = contents(Path("copy"))
    cli.ok("compute", "cancel", "j1")
    assert cli("state", "backup", "copy") == (2, "", "error[usage]: copy: file exists\n")
    assert contents(Path("copy")) == before
    assert not [name for name in in_directory(cli) if "copy." in name]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no/such/copy", "there is no directory no/such\nhint: mkdir -p no/such\n"),
        ("no such/copy", "there is no directory no such\nhint: mkdir -p 'no such'\n"),
        ("none/../copy", "there is no directory none/..\nhint: mkdir -p none/..\n"),
        ("a.slice/copy", "a.slice is not a directory\n"),
    ],
)
def test_backup_makes_no_directory_above_it(cli: Cli, target: str, problem: str) -> None:
    """Where a disk is missing, who makes backups by the clock hears of it."""
    cli.active()
    for dry in ((), ("-n",)):
        done = cli("state", "backup", target, *dry)
        assert done == (2, "", f"error[usage]: {target}: {problem}")
        assert in_directory(cli) == {"home", "a.slice"}
    assert cli.document("state", "info")["last_backup"] is None


IN_HOME = "home/copy home/market/copy home/none/copy link/copy home/../home/copy linked/../copy"


@pytest.mark.parametrize("target", [*IN_HOME.split(), "{}/copy/"])
@pytest.mark.parametrize("home", ["home", "link"])
def test_backup_into_the_home_is_refused(cli: Cli, home: str, target: str) -> None:
    cli.active()
    (cli.directory / "link").symlink_to("home")
    (cli.directory / "linked").symlink_to("home/market")
    target = target.format(cli.home)
    before = cli.files()
    for dry in ((), ("-n",)):
        done = cli("--home", home, "state", "backup", target, *dry)
        assert done == (
            2,
            "",
            f"error[usage]: {target} is in the home {cli.directory / home}, and would be lost "
            "with it\nhint: choose a directory outside of the home, on another disk\n",
        )
    assert cli.files() == before


def test_backup_beside_the_home_is_made(cli: Cli) -> None:
    """What begins as the name of the home does is not in it, and links lead where they lead."""
    cli.active()
    elsewhere = cli.directory / "disk" / "deep"
    elsewhere.mkdir(parents=True)
    (cli.home / "link").symlink_to(elsewhere)
    for target in ("home-2", "home/../third/", "home/link/copy", "home/link/../fifth"):
        cli.ok("state", "backup", target)
        assert cli.ok("--home", os.path.realpath(target), "state", "check") == SOUND
    assert in_directory(cli) == {"home", "a.slice", "home-2", "third", "disk"}
    assert {path.name for path in elsewhere.parent.iterdir()} == {"deep", "fifth"}


def test_backup_of_no_market_makes_nothing(cli: Cli) -> None:
    assert cli("state", "backup", "copy").code == 3
    assert in_directory(cli) == set()


def test_dry_backup_leaves_nothing(cli: Cli) -> None:
    cli.active()
    before = cli.files()
    said = cli.ok("state", "backup", "copy", "-n")
    assert said.startswith("dry_run: wrote ")
    assert (in_directory(cli), cli.files()) == ({"home", "a.slice"}, before)


def test_backup_tells_the_true_error_of_a_full_disk(cli: Cli) -> None:
    cli.active()
    with mounted(cli.directory / "mount", "size=64k"):
        done = cli("state", "backup", "mount/copy")
        assert os.listdir("mount") == []
    assert (done.code, done.out) == (8, "")
    assert "no space left on device" in done.err.lower()


def test_backup_of_a_read_only_home_is_made(cli: Cli) -> None:
    cli.active()
    cli.ok("state", "backup", "copy")
    with mounted(cli.directory / "mount", "size=8m"):
        shutil.copytree("copy", "mount/home")
        subprocess.run(["mount", "-o", "remount,ro", "mount"], check=True)
        done = cli("--home", "mount/home", "state", "backup", "second")
    assert done.code == 0
    assert done.err.startswith("warning: ")
    assert "`state info` will not know of this backup" in done.err
    assert cli.ok("--home", "second", "state", "check") == SOUND


def test_killed_backup_leaves_no_copy_that_passes(cli: Cli) -> None:
    """Killed at any instant there is a whole copy of that name, or none."""
    cli.active(*(f"j{number}" for number in range(40)))
    listed = cli.ok("compute", "list")
    rng = Random(7)
    cli.process("--version")  # What forks the others has started.
    began = time.perf_counter()
    assert cli.process("state", "backup", "whole").code == 0
    takes_s = time.perf_counter() - began
    copies = 0
    for number in range(effort(5, 300)):
        target = cli.directory / f"copy{number}"
        running = cli.start("state", "backup", target)
        time.sleep(rng.uniform(0, 1) * takes_s)
        running.kill()
        running.communicate()
        for copy in [*cli.directory.glob(f".copy{number}.*"), target]:
            done = cli("--home", copy, "state", "check")
            if done.code == 0:
                assert cli.ok("--home", copy, "compute", "list") == listed
                copies += copy == target
            else:
                assert done.code in (3, 9), done
                assert copy != target or not target.exists()
            shutil.rmtree(copy, ignore_errors=True)
    assert copies < number + 1, "none was killed before it was done"


# As a tar.


def tar_of(cli: Cli) -> bytes:
    done = subprocess.run(
        cli.command("state", "backup", "-"), capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    return done.stdout


def test_backup_to_stdout_is_a_tar_of_the_same(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    tar = tar_of(cli)
    cli.ok("state", "backup", "copy")
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        assert {entry.mode for entry in found} == {0o600}
        found.extractall("unpacked", filter="data")
    assert contents(Path("unpacked")) == contents(Path("copy"))


def test_backup_to_a_terminal_is_refused(cli: Cli) -> None:
    cli.ok("state", "init")
    ours, theirs = os.openpty()
    done = subprocess.run(
        cli.command("state", "backup", "-"), stdout=theirs, stderr=subprocess.PIPE, timeout=60
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error[usage]: a tar is not for a terminal\n")


def test_backup_that_nobody_takes_is_no_success(cli: Cli) -> None:
    cli.active(*(f"j{number}" for number in range(40)))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        cli.command("state", "backup", "-"), stdout=write, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write)
    assert done.returncode == 8
    assert b"the backup is not whole" in done.stderr
    assert cli.document("state", "info")["last_backup"] is None


# What is no market, and what is left of one.

CHECKS = [
    ("state", "check"),
    ("compute-market", "audit"),
    ("state", "info"),
    ("state", "stats"),
    ("state", "backup", "second"),
    ("state", "restore", "copy", "--home", "second"),
]


def placed(path: Path, content: bytes | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    (path / "market").mkdir(parents=True, mode=0o700)
    path.chmod(0o700)
    if content is not None:
        (path / "market" / "data.mdb").write_bytes(content)


def refused_everywhere(cli: Cli, codes: tuple[int, ...]) -> None:
    """Whoever looks at `copy` says so, makes nothing there and changes no byte."""
    copy = cli.directory / "copy"
    before = contents(copy)
    for command in CHECKS:
        home = () if "--home" in command else ("--home", "copy")
        done = cli(*home, *command)
        assert done.code in codes, (command, done)
        assert not done.out.startswith("receipts")
        assert contents(copy) == before
        assert not Path("second").exists()


def test_place_without_a_market_is_not_found(cli: Cli) -> None:
    for content in (None, b"", bytes(1), bytes(8192)):
        placed(cli.directory / "copy", content)
        refused_everywhere(cli, (3,))


def test_copy_that_is_cut_off_is_damage(cli: Cli) -> None:
    cli.active(*(f"j{number}" for number in range(20)))
    cli.ok("state", "backup", "whole")
    data = Path("whole/market/data.mdb").read_bytes()
    rng = Random(5)
    lengths = {20, 100, 4095, 4096, 5000, 8191, 8192, 8193, 12_288, len(data) - 4096, len(data) - 1}
    lengths |= {rng.randrange(1, len(data)) for _ in range(effort(5, 200))}
    for length in sorted(lengths):
        placed(cli.directory / "copy", data[:length])
        refused_everywhere(cli, (9,))
        # Nor does who would make a market begin one in its place.
        assert cli("--home", "copy", "wallet", "deposit", "a", "--ct", "1").code == 9, length
        assert contents(Path("copy")) == {"market/data.mdb": data[:length]}


@pytest.mark.parametrize("content", [b"junk" * 5000, bytes(20_000), b"\xff" * 8192, b"x"])
def test_junk_is_damage(cli: Cli, content: bytes) -> None:
    placed(cli.directory / "copy", content)
    refused_everywhere(cli, (9,))


def test_messages_name_a_path_once(cli: Cli) -> None:
    placed(cli.directory / "copy", b"junk" * 5000)
    done = cli("--home", "copy", "compute", "list")
    assert done.err.count(f"{cli.directory}/copy") == 1, done.err


def test_check_says_what_ended_who_looked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is gone ends the process that reads it, which is no answer."""
    cli.ok("state", "init")
    for signal, code in ((SIGBUS, 9), (SIGSEGV, 9), (SIGKILL, 8)):

        def end(_: object, signal: Signals = signal, **_more: object) -> None:
            faulthandler.disable()  # It would tell of it at length.
            os.kill(os.getpid(), signal)

        monkeypatch.setattr("tb_cli.frame.examination._laws", end)
        done = cli("state", "check")
        assert (done.code, done.out) == (code, "")
        assert signal.name in done.err


def test_checks_beside_writers_find_nothing(cli: Cli) -> None:
    cli.ok("state", "init")
    many = effort(40, 1000)
    (cli.home / "config.toml").write_text(f"[scheduler]\nslots = {many}\n")
    cli.active(*(f"j{number}" for number in range(many)))
    ids = "\n".join(cli.states())
    running = cli.start("compute", "cancel", "-", "--chunk", "1", stdin=subprocess.PIPE)
    assert running.stdin is not None
    running.stdin.write(ids.encode())
    running.stdin.close()
    rounds = 0
    while running.poll() is None or not rounds:
        for command in (("state", "check"), ("compute-market", "audit")):
            done = cli(*command)
            # A writer may be at its line of the log.
            assert (done.code, done.out) == (0, SOUND), done
        rounds += 1
    assert running.wait() == 0


def test_audit_finds_what_a_page_hides(cli: Cli) -> None:
    """One entry fewer than there are, by the header of its page: no checksum is wrong."""
    cli.active("j1", "j2", "j3")
    cli.ok("state", "backup", "copy")
    data = bytearray(Path("copy/market/data.mdb").read_bytes())
    page = data.rindex(b"j3\0" + bytes(8)) // 4096 * 4096  # that of the slices
    lower = int.from_bytes(data[page + 12 : page + 14], "little")
    data[page + 12 : page + 14] = (lower - 2).to_bytes(2, "little")
    Path("copy/market/data.mdb").write_bytes(data)
    done = cli("--home", "copy", "compute-market", "audit")
    assert done.code == 9
    assert "slices *: no entry is hidden: 2 are found, 3 expected\n" in done.out
    assert cli("--home", "copy", "state", "check").code == 9


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_tar_over_a_closed_stream_is_a_usage_error(cli: Cli, verb: str) -> None:
    cli.active()
    home = cli.home if verb == "backup" else cli.directory / "new"
    shell = f'exec "$0" -m tb_cli.entry --home "$1" state {verb} - <&- >&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, home], stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 2
    assert b"is closed" in done.stderr
    assert cli.document("state", "info")["last_backup"] is None
