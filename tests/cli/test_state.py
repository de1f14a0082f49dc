"""`state init|check|backup|stats`."""

import os
from pathlib import Path

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


def test_any_command_creates_the_home(cli: Cli) -> None:
    assert not cli.home.exists()
    assert cli.ok("compute", "list") == ""
    assert cli.home.stat().st_mode & 0o777 == 0o700
    assert cli.data.exists()


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


def test_check_is_the_audit_of_a_sound_file(cli: Cli) -> None:
    cli.active()
    cli.ok("compute", "execute", "j1")
    assert cli.ok("state", "check") == "receipts 1 invalid 0\n"
    assert cli.document("state", "check") == cli.document("compute-market", "audit")


def test_check_names_broken_pages(cli: Cli) -> None:
    cli.audited = False
    cli.active(*(f"j{number}" for number in range(40)))
    size = cli.data.stat().st_size
    with open(cli.data, "r+b") as file:
        for page in range(8, size // 4096):
            file.seek(page * 4096 + 10)
            file.write(b"\xff" * 6)
    done = cli("state", "check")
    assert (done.code, done.err.count("Traceback")) == (9, 0)
    assert done.out + done.err != ""


def test_backup_is_a_home_of_its_own(cli: Cli, tmp_path: Path) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j2")
    copy = tmp_path / "copy"
    said = cli.ok("state", "backup", copy)
    size = (copy / "market" / "data.mdb").stat().st_size
    assert said == f"wrote {size} bytes to {copy}\n"
    assert copy.stat().st_mode & 0o777 == 0o700
    assert cli.ok("--home", copy, "compute", "list") == cli.ok("compute", "list")
    assert cli.ok("--home", copy, "compute-market", "audit") == "receipts 0 invalid 0\n"
    # From here on the two go their own ways.
    cli.ok("--home", copy, "compute", "cancel", "j1")
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
    assert [row[0] for row in rows] == list(TABLES)
    sizes = {table: int(entries) for table, entries in rows}
    assert (sizes["jobs"], sizes["active"], sizes["cancellations"]) == (2, 1, 1)
    assert cli.document("state", "stats") == [
        {"table": table, "entries": entries} for table, entries in sizes.items()
    ]
