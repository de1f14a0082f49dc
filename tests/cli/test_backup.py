"""`state backup` and `state restore`: copies that can be trusted, and what is made of them."""

import faulthandler
import fcntl
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

from compute_market import instance
from tests.cli.test_bad_input import mounted
from tests.support.cli import Cli
from tests.support.effort import effort
from tests.support.stores import contents

pytest_plugins = ("tests.support.cli",)

SOUND = "receipts 0 invalid 0\n"
HELD = "time is held since a restore: nothing falls due; see `tb-cli compute-market clock`"


def with_a_cancelled_job(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    (cli.home / "config.toml").write_text("min_capacity = 5\n")


def in_directory(cli: Cli) -> set[str]:
    return {path.name for path in cli.directory.iterdir()}


# Backups.


def test_backup_is_a_home_of_its_own(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    copy = cli.directory / "deep" / "copy"
    previous = os.umask(0)
    try:
        said = cli.ok("state", "backup", copy)
    finally:
        os.umask(previous)
    size = (copy / "market" / "data.mdb").stat().st_size
    assert said == f"wrote {size} bytes to {copy}\n"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (copy, *copy.rglob("*")))
    assert contents(copy).keys() == {"config.toml", "cancellations.log", "market/data.mdb"}
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
    (cli.home / "last_backup").write_text("{")
    assert cli.document("state", "info")["last_backup"] is None


def test_backup_never_overwrites(cli: Cli) -> None:
    cli.active()
    cli.ok("state", "backup", "copy")
    before = contents(Path("copy"))
    cli.ok("compute", "cancel", "j1")
    assert cli("state", "backup", "copy") == (2, "", "error[usage]: copy: file exists\n")
    assert contents(Path("copy")) == before
    assert not [name for name in in_directory(cli) if "copy." in name]


def test_backup_of_no_market_makes_nothing(cli: Cli) -> None:
    assert cli("state", "backup", "copy").code == 3
    assert in_directory(cli) == set()


def test_dry_backup_leaves_nothing(cli: Cli) -> None:
    cli.active()
    before = cli.files()
    said = cli.ok("state", "backup", "deep/copy", "-n")
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
    began = time.perf_counter()
    assert cli.process("state", "backup", "whole").code == 0
    takes_s = time.perf_counter() - began
    copies = 0
    for number in range(effort(5, 300)):
        target = cli.directory / f"copy{number}"
        running = cli.start("state", "backup", target)
        time.sleep(rng.uniform(0.3, 1.1) * takes_s)
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


# Restoring.


@pytest.mark.parametrize("form", ["directory", "tar"])
@pytest.mark.parametrize("home", ["missing", "empty"])
def test_restored_home_is_the_market_of_the_backup(cli: Cli, form: str, home: str) -> None:
    with_a_cancelled_job(cli)
    listed, info = cli.ok("compute", "list"), cli.document("state", "info")
    tar = tar_of(cli)
    cli.ok("state", "backup", "copy")
    shutil.rmtree(cli.home)
    if home == "empty":
        cli.home.mkdir(mode=0o750)
    before = contents(Path("copy"))
    done = cli("state", "restore", *(("copy",) if form == "directory" else ("-",)), stdin=tar)
    source = "copy" if form == "directory" else "stdin"
    assert done == (
        0,
        f"restored {cli.home} from {source}\n"
        "its time is held: `tb-cli compute-market clock accept` lets it go on\n",
        "",
    )
    assert contents(Path("copy")) == before
    assert cli.home.stat().st_mode & 0o777 == (0o750 if home == "empty" else 0o700)
    names = {"config.toml", "cancellations.log", "market"}
    assert set(os.listdir(cli.home)) == names
    assert all(path.stat().st_mode & 0o077 == 0 for path in cli.home.rglob("*"))
    assert cli.ok("compute", "list", due=HELD) == listed
    assert cli.ok("state", "check") == SOUND
    restored = cli.document("state", "info", due=HELD)
    assert restored["market_id"] == info["market_id"]
    assert restored["instance_id"] not in (info["instance_id"], info["market_id"])
    assert restored["time_held"] == "restored from a backup"
    assert cli.view(lambda txn: txn.get(instance.META, instance.TIME_HELD)) is not None
    # It lives.
    cli.ok("compute", "cancel", "j1", due=HELD)
    assert cli.log() == "j2 client\nj1 client\n"


def test_restoring_twice_gives_two_instances(cli: Cli) -> None:
    cli.active()
    cli.ok("state", "backup", "copy")
    ids = {
        cli.document("--home", home, "state", "restore", "copy")["instance_id"]
        for home in ("one", "two")
    }
    assert len(ids) == 2


@pytest.mark.parametrize("kept", ["home", "config.toml", "mine"])
def test_restore_into_a_home_that_is_not_empty_is_refused(cli: Cli, kept: str) -> None:
    with_a_cancelled_job(cli)
    cli.ok("state", "backup", "copy")
    if kept != "home":
        shutil.rmtree(cli.home)
        cli.home.mkdir()
        (cli.home / kept).write_text("min_capacity = 6\n")
    before = cli.files()
    done = cli("state", "restore", "copy")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {cli.home} is not empty: ")
    assert cli.files() == before


def test_restore_from_no_backup_makes_nothing(cli: Cli) -> None:
    (cli.directory / "empty").mkdir()
    for source in ("empty", "missing"):
        assert cli("state", "restore", source).code == 3
    assert in_directory(cli) == {"empty"}
    assert os.listdir("empty") == []


def test_dry_restore_checks_and_leaves_nothing(cli: Cli) -> None:
    cli.active()
    cli.ok("state", "backup", "copy")
    new = cli.directory / "new"
    said = cli.ok("--home", new, "state", "restore", "copy", "-n")
    assert said.startswith(f"dry_run: restored {new} from copy\n")
    assert not new.exists()
    os.truncate("copy/market/data.mdb", 20_000)
    assert cli("--home", new, "state", "restore", "copy", "-n").code == 9


def test_restore_of_a_damaged_backup_is_refused(cli: Cli) -> None:
    cli.active(*(f"j{number}" for number in range(30)))
    cli.ok("state", "backup", "copy")
    data = bytearray(Path("copy/market/data.mdb").read_bytes())
    at = data.index(b"transcode", data.index(b"j17"))
    data[at] ^= 1
    Path("copy/market/data.mdb").write_bytes(data)
    new = cli.directory / "new"
    done = cli("--home", new, "state", "restore", "copy")
    assert (done.code, done.out) == (9, "")
    assert done.err.startswith("error[integrity]: the backup is damaged: ")
    assert not new.exists()


def test_restore_of_a_tar_that_is_cut_or_junk_is_refused(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    tar = tar_of(cli)
    new = cli.directory / "new"
    rng = Random(3)
    for length in (
        0,
        1,
        511,
        512,
        700,
        2000,
        *(rng.randrange(len(tar) - 20_000) for _ in range(5)),
    ):
        done = cli("--home", new, "state", "restore", "-", stdin=tar[:length])
        assert done.code in (3, 9), (length, done)
        assert not new.exists()
    assert cli("--home", new, "state", "restore", "-", stdin=b"junk" * 1000).code == 9


@pytest.mark.parametrize("name", ["../evil", "/evil", "market/lock.mdb", "link"])
def test_restore_of_a_tar_with_other_things_is_refused(cli: Cli, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("config.toml" if name == "link" else name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry, io.BytesIO())
    done = cli("state", "restore", "-", stdin=stream.getvalue())
    assert (done.code, done.out) == (2, "")
    assert "which is no part of a backup" in done.err
    assert in_directory(cli) == set()


def test_restore_beside_another_is_busy(cli: Cli) -> None:
    cli.active()
    cli.ok("state", "backup", "copy")
    (cli.directory / "new").mkdir()
    other = os.open("new", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    done = cli("--home", "new", "state", "restore", "copy")
    os.close(other)
    assert done.code == 8
    assert os.listdir("new") == []
    cli.ok("--home", "new", "state", "restore", "copy")


def test_killed_restore_is_run_again(cli: Cli) -> None:
    """Killed at any instant there is no market in the home, or the whole one with its time held."""
    with_a_cancelled_job(cli)
    cli.ok("state", "backup", "copy")
    listed = cli.ok("--home", "copy", "compute", "list")
    rng = Random(11)
    began = time.perf_counter()
    assert cli.process("--home", "whole", "state", "restore", "copy").code == 0
    takes_s = time.perf_counter() - began
    unfinished = 0
    for number in range(effort(5, 300)):
        new = cli.directory / f"new{number}"
        running = cli.start("--home", new, "state", "restore", "copy")
        time.sleep(rng.uniform(0.3, 1.1) * takes_s)
        running.kill()
        running.communicate()
        done = cli("--home", new, "state", "check")
        if done.code == 3:
            unfinished += 1
            cli.ok("--home", new, "state", "restore", "copy")
        else:
            assert done == (0, SOUND, "")
        assert cli.document("--home", new, "state", "info", due=HELD)["time_held"]
        assert cli.ok("--home", new, "compute", "list", due=HELD) == listed
        left = set(os.listdir(new)) - {"config.toml", "cancellations.log", "market"}
        # Killed with all of it in place, but for taking away what it lay in before.
        assert len(left) <= 1
        assert all(name.startswith(".restore-") and not os.listdir(new / name) for name in left)
    assert unfinished, "none was killed before it was done"


def test_restore_stopped_between_its_renames_is_run_again(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    cli.ok("state", "backup", "copy")
    new = cli.directory / "new"
    (new / ".restore-x" / "market").mkdir(parents=True)
    shutil.copy("copy/config.toml", new)
    assert cli("--home", new, "state", "check").code == 3
    cli.ok("--home", new, "state", "restore", "copy")
    assert set(os.listdir(new)) == {"config.toml", "cancellations.log", "market"}


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

        def end(_: object, signal: Signals = signal) -> None:
            faulthandler.disable()  # It would tell of it at length.
            os.kill(os.getpid(), signal)

        monkeypatch.setattr("tb_cli.frame.examination._laws", end)
        done = cli("state", "check")
        assert (done.code, done.out) == (code, "")
        assert signal.name in done.err


def test_checks_beside_writers_find_nothing(cli: Cli) -> None:
    cli.active(*(f"j{number}" for number in range(effort(40, 2000))))
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
