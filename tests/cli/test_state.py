"""`state init|info|stats|root`, and where the home is."""

import os
from pathlib import Path

import pytest

from compute_market.store.schema import SCHEMA_VERSION, TABLES
from tb_cli.frame.times import local
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


# What `state info` tells.


def test_info_of_an_empty_market(cli: Cli) -> None:
    cli.ok("state", "init")
    found = cli.document("state", "info")
    assert found["home"] == str(cli.home)
    assert (
        found["market_id"] == found["instance_id"] == cli.document("chain", "status")["market_id"]
    )
    assert found["schema"] == SCHEMA_VERSION
    assert found["bytes"] == cli.data.stat().st_size
    assert found["map_bytes"] == 64 * 2**30
    assert found["map_used_ppm"] == found["pages"] * 4096 * 1_000_000 // found["map_bytes"]
    nothing = ("time_held", "oldest_live", "oldest_ended", "last_command", "last_backup")
    assert [found[name] for name in nothing] == [None] * len(nothing)
    assert found["last_change_ms"] == cli.now_ms


def test_info_names_the_oldest_jobs_and_the_last_command(cli: Cli) -> None:
    began = cli.now
    # By their ids the youngest would come first.
    cli.active("j9", "j5", "j1")
    cli.advance(3)
    cli.ok("compute", "cancel", "j5")
    cli.advance(3)
    cli.ok("compute", "cancel", "j1")
    cli.submit("j0")
    cli.ok("compute", "cancel", "j0")
    found = cli.document("state", "info")
    assert found["oldest_live"] == {"job_id": "j9", "submitted_at": began}
    assert found["oldest_ended"] == {"job_id": "j5", "ended_at": began + 3}
    assert found["last_command"]["at_ms"] == cli.now_ms == found["last_change_ms"]
    assert found["last_command"]["command"] == "compute cancel j0"
    lines = cli.ok("state", "info").splitlines()
    assert f"oldest_live: job_id=j9 submitted_at={local(began * 1000)}" in lines
    assert f"oldest_ended: job_id=j5 ended_at={local((began + 3) * 1000)}" in lines
    assert f"last_change: {local(cli.now_ms)}" in lines
    assert any(line.startswith(f"last_command: at={local(cli.now_ms)} user=") for line in lines)
    assert "last_backup: -" in lines
    cli.ok("state", "backup", "copy")
    lines = cli.ok("state", "info").splitlines()
    said = f"last_backup: at={local(cli.now_ms)} path={cli.directory}/copy bytes="
    assert lines[-1].startswith(said)


def test_info_counts_pages_that_are_free(cli: Cli) -> None:
    cli.active(*(f"j{number}" for number in range(60)))
    before = cli.document("state", "info")
    assert 0 <= before["free_pages"] < before["pages"]
    # A compacted copy has only those that are used.
    cli.ok("state", "backup", "copy")
    copy = cli.document("state", "info", "--home", "copy")
    assert copy["free_pages"] < 3
    lacking = before["pages"] - before["free_pages"] - copy["pages"] + copy["free_pages"]
    assert abs(lacking) < 3


def test_root_stands_for_the_money(cli: Cli) -> None:
    cli.ok("state", "init")
    found = cli.document("state", "root")
    assert list(found) == ["root", "receipts", "height", "mode"]
    assert (found["receipts"], found["height"], found["mode"]) == (0, 0, "dry_run")
    assert cli.ok("state", "root") == (
        f"root: {found['root']}\nreceipts: 0\nheight: 0\nmode: dry_run\n"
    )
    cli.ok("chain", "advance", "5")
    later = cli.document("state", "root")
    assert (later["root"], later["height"]) == (found["root"], 5)
    cli.active()
    cli.ok("compute", "execute", "j1")
    proven = cli.document("state", "root")
    assert proven["receipts"] == 1
    cli.ok("wallet", "deposit", "alice", "--ct", "1")
    deposited = cli.document("state", "root")["root"]
    assert len({found["root"], proven["root"], deposited}) == 3
