"""`state init|backup|stats`, and where the home is."""

import os
from pathlib import Path

import pytest

from compute_market.store.schema import TABLES
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def test_init_creates_a_private_home(cli: Cli) -> None:
    cli.home = cli.directory / "deep" / "home"
    os.environ["TB_HOME"] = str(cli.home)
    assert cli.ok("state", "init") == f"created {cli.home}\n"
    assert cli.home.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in cli.home.rglob("*"))
    assert cli.ok("state", "init") == f"{cli.home} exists, unchanged\n"


def test_init_json(cli: Cli) -> None:
    assert cli.document("state", "init") == {"home": str(cli.home), "changed": True}
    assert cli.document("state", "init") == {"home": str(cli.home), "changed": False}


def test_command_that_brings_something_new_creates_the_home_and_says_so(cli: Cli) -> None:
    assert not cli.home.exists()
    deposit = ("wallet", "deposit", "alice", "--ct", "1")
    done = cli(*deposit, "--json")
    assert (done.code, done.err) == (0, f"created a market in {cli.home}\n")
    assert done.json["ct"] == 1
    assert cli.home.stat().st_mode & 0o777 == 0o700
    assert cli(*deposit).err == ""


def test_wrong_home_is_told_and_nothing_is_made(cli: Cli) -> None:
    error = (
        f"error[not_found]: no market in {cli.home}\n"
        "hint: `tb-cli state init` makes one; --home or TB_HOME names another home\n"
    )
    assert cli("compute", "list") == (3, "", error)
    assert not cli.home.exists()
    cli.home.mkdir()
    (cli.home / "config.toml").write_text("min_capacity = 5\n")
    assert cli("compute", "cancel", "j1") == (3, "", error)
    assert [path.name for path in cli.home.iterdir()] == ["config.toml"]


def test_home_that_cannot_be_meant_is_usage(cli: Cli) -> None:
    for home, says in (
        ("", "--home is empty"),
        ("~nobody-of-that-name", "~nobody-of-that-name: no such home directory of a user"),
    ):
        done = cli("--home", home, "state", "init")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error[usage]: {says}\n")
    assert list(cli.directory.iterdir()) == []


def test_home_option_wins_over_the_variable(cli: Cli, tmp_path: Path) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "1")
    other = tmp_path / "other"
    deposit = ("wallet", "deposit", "alice", "--ct", "5")
    cli.ok("--home", other, *deposit)
    cli.ok(*deposit, "--home", other)
    # The option of the verb wins over that of the program.
    cli.ok("--home", tmp_path / "unused", *deposit, "--home", other)
    assert cli.wallet("alice") == (1, 0)
    assert cli.document("wallet", "balance", "alice", "--home", other)["ct"] == 15
    assert not (tmp_path / "unused").exists()


def test_default_home_is_in_the_users(cli: Cli) -> None:
    del os.environ["TB_HOME"]
    cli.home = cli.directory / ".the_block"
    assert cli.ok("state", "init") == f"created {cli.home}\n"


def test_backup_is_a_home_of_its_own(cli: Cli, tmp_path: Path) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    copy = tmp_path / "copy"
    said = cli.ok("state", "backup", copy)
    size = (copy / "market" / "data.mdb").stat().st_size
    assert said == f"wrote {size} bytes to {copy}\n"
    assert copy.stat().st_mode & 0o777 == 0o700
    assert cli.ok("--home", copy, "compute", "list") == cli.ok("compute", "list")
    done = cli("--home", copy, "compute-market", "audit")
    assert (done.code, done.out) == (0, "receipts 0 invalid 0\n")
    # The text log is made anew by what changes the copy.
    assert done.err.startswith(f"warning: {copy}/cancellations.log lacks 10 bytes; ")
    # From here on the two go their own ways.
    cli.ok("--home", copy, "compute", "cancel", "j1")
    assert (copy / "cancellations.log").read_text() == "j2 client\nj1 client\n"
    assert cli.states() == {"j1": "active", "j2": "cancelled"}


def test_backup_json(cli: Cli, tmp_path: Path) -> None:
    cli.ok("state", "init")
    document = cli.document("state", "backup", tmp_path / "copy")
    size = (tmp_path / "copy" / "market" / "data.mdb").stat().st_size
    assert document == {"path": str(tmp_path / "copy"), "bytes": size}


def test_backup_never_overwrites(cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    cli.active()
    cli.ok("state", "backup", copy)
    before = (copy / "market" / "data.mdb").read_bytes()
    cli.ok("compute", "cancel", "j1")
    assert cli("state", "backup", copy) == (2, "", f"error[usage]: {copy}: file exists\n")
    assert (copy / "market" / "data.mdb").read_bytes() == before


def test_stats_counts_every_table(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    rows = cli("state", "stats").rows
    assert [row[0] for row in rows] == [table.name for table in TABLES]
    sizes = {table: int(entries) for table, entries in rows}
    assert (sizes["jobs"], sizes["active"], sizes["cancellations"]) == (2, 1, 1)
    assert cli.document("state", "stats") == [
        {"table": table, "entries": entries} for table, entries in sizes.items()
    ]


@pytest.mark.parametrize(
    "command",
    [("compute", "list"), ("compute", "cancel", "j1"), ("wallet", "deposit", "a", "--ct", "1")],
)
def test_market_whose_data_is_gone_is_damage_and_not_a_new_one(
    cli: Cli, command: tuple[str, ...]
) -> None:
    cli.ok("state", "init")
    cli.data.unlink()
    cli.audited = False
    done = cli(*command)
    assert (done.code, done.out) == (9, "")
    assert "is gone or empty, and there was a market in it" in done.err
    assert not cli.data.exists()
