"""`compute-market audit` and `state check`."""

from pathlib import Path

import lmdb
import pytest

from compute_market.store.schema import TABLES
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def damage(cli: Cli, table: str, change: str) -> None:
    """Change the first value of a table behind the market's back."""
    cli.audited = False
    env = lmdb.open(str(cli.home / "market"), max_dbs=64, map_size=2**30)
    db = env.open_db(table.encode(), create=False)
    with env.begin(write=True, db=db) as txn, txn.cursor() as cursor:
        cursor.first()
        key, value = cursor.item()
        if change == "delete":
            txn.delete(key)
        elif change == "garbage":
            txn.put(key, b"\xc1" + value[1:])
        elif change == "flip":
            txn.put(key, value[:-1] + bytes([value[-1] ^ 1]))
        else:  # Not by chance: the checksum is right.
            (stored,) = (each for each in TABLES if each.name == table)
            payload = stored.opened(key, value)
            txn.put(key, stored.sealed(key, payload[:-1] + bytes([payload[-1] ^ 1])))
    env.close()


def test_audit_counts_receipts(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.ok("compute-market", "audit") == "receipts 0 invalid 0\n"
    cli.active("j1", "j2", "j3")
    cli.ok("compute", "execute", "j1", "j2", "j3")
    assert cli.ok("compute-market", "audit") == "receipts 3 invalid 0\n"
    assert cli.document("compute-market", "audit") == {
        "receipts": 3,
        "invalid": 0,
        "violations": [],
    }


@pytest.mark.parametrize(
    ("table", "change", "named"),
    [
        ("accounts", "flip", "accounts b'CT"),
        ("accounts", "amend", "accounts CT: conservation: balances sum to "),
        ("postings", "delete", "postings 2: no gaps: expected 1"),
        ("receipts", "garbage", "receipts "),
        ("receipt_chain", "delete", "receipts *: every receipt is on the chain: "),
        ("active", "delete", "active runs: every job is where its state says: active"),
        ("offers", "garbage", "offers b'o-1': records decode: "),
        ("cancellations", "delete", "cancellations gone: one line for each cancelled job, and "),
        ("counters", "flip", "counters "),
        ("counters", "amend", "counters "),
        ("slices", "delete", "jobs done: slices, units, proven slices "),
    ],
)
def test_audit_names_damage_and_exits_with_9(cli: Cli, table: str, change: str, named: str) -> None:
    cli.real()
    cli.post("--bond", "10")
    for name in ("done", "gone", "late", "runs"):
        cli.submit(name, "--deadline-secs", "65" if name == "late" else "500")
    cli.ok("compute", "execute", "done")
    cli.ok("compute", "cancel", "gone")
    cli.advance(66)
    cli.ok("compute-market", "sla", "sweep", due="1 IT of subsidies paid")
    assert cli.ok("compute-market", "audit") == "receipts 1 invalid 0\n"
    damage(cli, table, change)
    done = cli("compute-market", "audit")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (9, "")
    assert any(line.startswith(named) for line in lines[:-1]), lines
    receipts, invalid = lines[-1].split()[1::2]
    assert (int(receipts), int(invalid)) == (1, len(lines) - 1)
    done = cli("compute-market", "audit", "--json")
    violations = done.json["violations"]
    assert (done.code, done.json["invalid"]) == (9, len(violations))
    assert [list(found) for found in violations] == [["table", "key", "law", "detail"]] * len(
        lines[:-1]
    )
    assert [f"{v['table']} {v['key']}: {v['law']}: {v['detail']}" for v in violations] == lines[:-1]


def test_audit_warns_of_a_log_that_is_behind_and_leaves_it(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j1", "j2")
    log = cli.home / "cancellations.log"
    log.write_text("j1 cl")  # A process died while it wrote.
    told = "lacks {} bytes; the next change of the market adds them"
    done = cli("compute-market", "audit")
    assert done == (0, "receipts 0 invalid 0\n", f"warning: {log} {told.format(15)}\n")
    assert log.read_text() == "j1 cl"
    log.unlink()
    done = cli("compute-market", "audit")
    assert done == (0, "receipts 0 invalid 0\n", f"warning: {log} {told.format(20)}\n")
    assert not log.exists()
    cli.ok("tick")
    assert log.read_text() == "j1 client\nj2 client\n"
    assert cli.ok("compute-market", "audit") == "receipts 0 invalid 0\n"


def test_audit_warns_of_a_log_that_cannot_be_read(cli: Cli) -> None:
    cli.audited = False
    cli.ok("state", "init")
    log = cli.home / "cancellations.log"
    log.mkdir()
    done = cli("compute-market", "audit")
    told = f"warning: {log}: is a directory: not compared\n"
    assert done == (0, "receipts 0 invalid 0\n", told)


@pytest.mark.parametrize("text", ["j1 client\nj9 client\n", "j1 client\nj2 client\nj3 client\n"])
def test_audit_finds_a_log_that_tells_other_things(cli: Cli, text: str) -> None:
    cli.audited = False
    cli.active("j1", "j2")
    cli.ok("compute", "cancel", "j1", "j2")
    (cli.home / "cancellations.log").write_text(text)
    done = cli("compute-market", "audit")
    assert done.code == 9
    assert done.out.startswith("cancellations.log byte ")
    assert (cli.home / "cancellations.log").read_text() == text


def test_audit_of_a_copied_home(cli: Cli, tmp_path: Path) -> None:
    import shutil

    cli.active()
    cli.ok("compute", "cancel", "j1")
    shutil.copytree(cli.home, tmp_path / "copy")
    assert (
        cli.ok("--home", tmp_path / "copy", "compute-market", "audit") == "receipts 0 invalid 0\n"
    )


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
