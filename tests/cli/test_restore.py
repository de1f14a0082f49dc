"""`state restore`: what is made of a backup, and of what is none."""

import bz2
import fcntl
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from compute_market import instance
from compute_market.courier import courier, leases
from tests.cli.test_backup import SOUND, in_directory, tar_of, with_a_cancelled_job
from tests.support.cli import Cli
from tests.support.effort import effort
from tests.support.stores import contents

pytest_plugins = ("tests.support.cli",)

HELD = "time is held since a restore: nothing falls due; see `tb-cli compute-market clock`"


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
    names = {"config.toml", "cancellations.log", "market", "state"}
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


def test_restore_leaves_the_snapshot_of_scores_and_takes_nothing_from_it(cli: Cli) -> None:
    cli.post("--reputation", "3")
    cli.ok("state", "backup", "copy")
    shutil.rmtree(cli.home)
    cli.home.mkdir()
    entry = {"score": 9, "last_update": cli.now, "epoch": cli.now}
    text = json.dumps({"other": entry})
    (cli.home / "reputation.json").write_text(text)
    assert cli("state", "restore", "copy").code == 0
    assert (cli.home / "reputation.json").read_text() == text
    assert [row["provider"] for row in cli("net", "reputation", "show", "--json").json] == ["prov"]


def test_bundles_that_a_flush_had_are_free_in_a_restored_market(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is held, so that their leases would never end."""
    monkeypatch.setattr(leases, "_PAGE", 2)
    path = cli.slice()
    cli.ok("key", "new", "node")
    for _ in range(5):
        cli.document("compute", "courier", "send", path, "alice")
    cli.update(lambda txn: courier.claim(txn, b"a flush!", None, 3))
    cli.ok("state", "backup", "copy")
    shutil.rmtree(cli.home)
    cli.ok("state", "restore", "copy")
    cli.ok("key", "new", "node", due=HELD)
    out = cli.ok("compute", "courier", "flush", due=HELD)
    assert out == "acknowledged 5 of 5 bundles\n"


def test_restore_from_no_backup_makes_nothing(cli: Cli) -> None:
    (cli.directory / "empty").mkdir()
    for source, problem in (
        ("empty", "there is no market in empty"),
        ("missing", "there is no backup missing"),
    ):
        assert cli("state", "restore", source) == (
            3,
            "",
            f"error[not_found]: {problem}\nhint: `tb-cli state backup DIR` makes one\n",
        )
    assert cli("state", "restore", "-") == (
        3,
        "",
        "error[not_found]: standard input is empty: no tar\n"
        "hint: `tb-cli state backup -` writes one\n",
    )
    assert in_directory(cli) == {"empty"}
    assert os.listdir("empty") == []


# The program that makes each form of a tar from its bytes.
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda tar: b"\x28\xb5\x2f\xfd" + tar,
}


@pytest.mark.parametrize("by", COMPRESS)
def test_tar_that_is_compressed_is_told_from_a_damaged_one(cli: Cli, by: str) -> None:
    with_a_cancelled_job(cli)
    compressed = COMPRESS[by](tar_of(cli))
    Path("a file").write_bytes(compressed)
    new = cli.directory / "new"
    assert cli("--home", new, "state", "restore", "-", stdin=compressed) == (
        2,
        "",
        f"error[usage]: the tar is compressed\nhint: {by} -dc FILE | tb-cli state restore -\n",
    )
    assert cli("--home", new, "state", "restore", "a file") == (
        2,
        "",
        "error[usage]: the backup a file is no directory\n"
        f"hint: {by} -dc 'a file' | tb-cli state restore -\n",
    )
    assert not new.exists()


def test_restore_from_a_file_says_how_a_tar_is_read(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    Path("market.tar").write_bytes(tar_of(cli))
    done = cli("--home", cli.directory / "new", "state", "restore", "market.tar")
    assert done == (
        2,
        "",
        "error[usage]: the backup market.tar is no directory\n"
        "hint: a tar comes from stdin: tb-cli state restore - < market.tar\n",
    )


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
    cli.process("--version")  # What forks the others has started.
    began = time.perf_counter()
    assert cli.process("--home", "whole", "state", "restore", "copy").code == 0
    takes_s = time.perf_counter() - began
    unfinished = 0
    for number in range(effort(5, 300)):
        new = cli.directory / f"new{number}"
        running = cli.start("--home", new, "state", "restore", "copy")
        time.sleep(rng.uniform(0, 1) * takes_s)
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
        left = set(os.listdir(new)) - {"config.toml", "cancellations.log", "market", "state"}
        # Killed with all of it in place, but for taking away what it lay in before.
        assert len(left) <= 1
        assert all(name.startswith(".restore-") for name in left)
        assert not any(path.is_file() for name in left for path in (new / name).rglob("*"))
    assert unfinished, "none was killed before it was done"


def test_restore_stopped_between_its_renames_is_run_again(cli: Cli) -> None:
    with_a_cancelled_job(cli)
    cli.ok("state", "backup", "copy")
    new = cli.directory / "new"
    (new / ".restore-x" / "market").mkdir(parents=True)
    shutil.copy("copy/config.toml", new)
    assert cli("--home", new, "state", "check").code == 3
    cli.ok("--home", new, "state", "restore", "copy")
    assert set(os.listdir(new)) == {"config.toml", "cancellations.log", "market", "state"}
