"""`compute-market receipts import`, and `receipts list --imported`."""

import os
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import pytest

from compute_market.settlement import imports, receipt_files
from tb_cli.frame.guard import Terminated
from tb_cli.frame.spool import spooled
from tests.support.cli import REAL, Cli
from tests.support.effort import effort
from tests.support.importing import OTHERS, PRICE, THEIRS, file_of, links, three
from tests.support.receipt_file import KEY, OTHER_KEY, receipt

pytest_plugins = ("tests.support.cli",)

RECEIPTS = ("compute-market", "receipts")
IMPORT = (*RECEIPTS, "import")
LIST = (*RECEIPTS, "list", "--imported")
MARKET = THEIRS.hex()
FUNDS = 3 * PRICE


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """The file of three receipts, `r.jsonl`, and a home that trusts its key."""
    write(cli, "r.jsonl", file_of(three()))
    cli.home.mkdir()
    trust(cli, KEY.key_id.hex())
    return cli


def trust(cli: Cli, *key_ids: str) -> None:
    listed = ", ".join(f'"{each}"' for each in key_ids)
    (cli.home / "config.toml").write_text(f"[net]\ntrusted = [{listed}]\n")


def write(cli: Cli, name: str, lines: list[bytes]) -> Path:
    path = cli.directory / name
    path.write_bytes(b"".join(lines))
    return path


def go_real(cli: Cli) -> None:
    cli.ok("compute-market", "settle", "arm", "--delay-blocks", "0")
    cli.ok("tick", due=REAL)


def counters(cli: Cli) -> dict[str, int]:
    """What the metrics say of receipts."""
    lines = cli.ok("metrics").splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {
        "dry": int(float(told['matches_total{dry_run="true"}'])),
        "real": int(float(told['matches_total{dry_run="false"}'])),
        "applied": int(float(told["settle_applied_total"])),
        "failed": int(float(told['settle_failed_total{reason="insufficient_funds"}'])),
    }


def told(imported: int, applied: int, recorded: int, failed: int, duplicates: int) -> str:
    total = applied + recorded + failed + duplicates
    return (
        f"imported {imported} of {total} receipts of market {MARKET}: {applied} applied, "
        f"{recorded} recorded, {failed} failed, {duplicates} duplicates\n"
    )


def test_import_records_and_pays_once_the_mode_is_real(cli: Cli) -> None:
    assert cli.ok(*IMPORT, "r.jsonl") == told(3, 0, 3, 0, 0)
    cli.ok("wallet", "deposit", "buyer", "--ct", str(FUNDS))
    assert cli.ok(*IMPORT, "r.jsonl") == told(0, 0, 0, 0, 3)
    go_real(cli)
    assert cli.ok(*IMPORT, "r.jsonl") == told(0, 3, 0, 0, 0)
    assert cli.ok(*IMPORT, "r.jsonl") == told(0, 0, 0, 0, 3)
    assert (cli.wallet("buyer"), cli.wallet("prov")) == ((0, 0), (FUNDS, 0))
    assert counters(cli) == {"dry": 3, "real": 0, "applied": 3, "failed": 0}
    (posted, *_) = cli.ok("wallet", "history", "prov").splitlines()
    assert posted.split("\t")[2:] == [
        *("CT", str(PRICE), "wallet/buyer", "wallet/prov", "import:settle", "job-1")
    ]


def test_document_counts_what_became_of_each(cli: Cli) -> None:
    assert cli.document(*IMPORT, "r.jsonl") == {
        "market_id": MARKET,
        "from_seq": 1,
        "to_seq": 3,
        "imported": 3,
        "applied": 0,
        "recorded": 3,
        "failed": 0,
        "duplicates": 0,
        "changed": True,
    }
    assert cli.document(*IMPORT, "r.jsonl")["changed"] is False


@pytest.mark.parametrize("given", ["-", "/dev/stdin", "fifo"])
def test_import_takes_a_stream(cli: Cli, given: str) -> None:
    content = (cli.directory / "r.jsonl").read_bytes()
    if given == "fifo":
        os.mkfifo("fifo")
        feeding = cli.start(*IMPORT, "fifo")
        with open("fifo", "wb") as fifo:
            fifo.write(content)
        out, _ = feeding.communicate(timeout=60)
        assert out.decode() == told(3, 0, 3, 0, 0)
    else:
        done = cli.process(*IMPORT, given, stdin=content)
        assert (done.code, done.out) == (0, told(3, 0, 3, 0, 0))


def test_dry_run_tells_all_of_it_and_keeps_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 1)
    write(cli, "r.jsonl", file_of(links(receipt(1), receipt(2, buyer="poor"), receipt(3))))
    cli.ok("wallet", "deposit", "buyer", "--ct", "100")
    go_real(cli)
    before = cli.files()
    dry = cli(*IMPORT, "r.jsonl", "-n")
    assert cli.files() == before
    assert dry.out == f"dry_run: {told(3, 1, 1, 1, 0)}"
    done = cli(*IMPORT, "r.jsonl")
    assert (done.code, done.out, done.err) == (dry.code, told(3, 1, 1, 1, 0), dry.err)


def test_duplicate_whose_holder_was_not_paid_is_told(cli: Cli) -> None:
    cli.ok(*IMPORT, "r.jsonl")
    write(cli, "o.jsonl", file_of(three(), market_id=OTHERS))
    for _ in range(2):
        done = cli(*IMPORT, "o.jsonl")
        assert (done.code, done.err) == (0, f"3 duplicates are held by market {MARKET}, not paid\n")
    assert cli.document(*IMPORT, "o.jsonl")["held_unpaid"] == {MARKET: 3}
    cli.ok("wallet", "deposit", "buyer", "--ct", str(FUNDS))
    go_real(cli)
    cli.ok(*IMPORT, "r.jsonl")
    cli.ok(*IMPORT, "o.jsonl")
    assert "held_unpaid" not in cli.document(*IMPORT, "o.jsonl")


# What cannot be paid.


def test_what_cannot_be_paid_is_told_and_the_rest_recorded(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "buyer", "--ct", "100")
    go_real(cli)
    write(cli, "p.jsonl", file_of(links(receipt(1), receipt(2, buyer="poor"), receipt(3))))
    done = cli(*IMPORT, "p.jsonl")
    assert (done.code, done.out) == (7, told(3, 1, 1, 1, 0))
    assert done.err.splitlines() == [
        f"error[refused]: receipt 2 of market {MARKET} was not paid, and the mode is dry_run now: "
        "wallet of poor has 0 CT, 5 CT are needed",
        "hint: tb-cli wallet deposit poor --ct 5; then "
        "`tb-cli compute-market settle arm --delay-blocks N`, and import the file again once the "
        "mode is real",
    ]
    status = cli.document("compute-market", "settle", "status")
    assert (status["mode"], status["failed"]) == ("dry_run", 1)
    assert status["reason"] == f"receipt 2 of market {MARKET} was not paid: insufficient_funds"
    done = cli(*LIST, "--job", "job-2", "--json")
    assert [(row["status"], row["reason"]) for row in done.json] == [
        ("failed", "insufficient_funds")
    ]
    # The way out.
    cli.ok("wallet", "deposit", "poor", "--ct", "5")
    go_real(cli)
    assert cli.ok(*IMPORT, "p.jsonl") == told(0, 2, 0, 0, 1)
    assert counters(cli) == {"dry": 1, "real": 2, "applied": 3, "failed": 1}


def test_failure_of_the_only_receipt_has_its_own_code(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "buyer", "--ct", "4")
    go_real(cli)
    path = write(cli, "one.jsonl", file_of(links(receipt(1))))
    done = cli(*IMPORT, path, "--json")
    assert (done.code, done.json["failed"], done.json["changed"]) == (5, 1, True)
    assert (done.error["reason"], done.error["seq"]) == ("insufficient_funds", 1)
    assert (done.error["needed"], done.error["available"]) == (5, 4)


def test_failure_in_a_home_that_is_made_for_it_is_kept(cli: Cli) -> None:
    with (cli.home / "config.toml").open("r+") as config:
        content = config.read()
        config.seek(0)
        config.write(f'settle_mode = "real"\n{content}')
    done = cli(*IMPORT, "r.jsonl")
    assert (done.code, done.out) == (7, told(3, 0, 2, 1, 0))
    assert done.err.startswith(f"created a market in {cli.home}\nerror[refused]: receipt 1 of ")
    assert counters(cli) == {"dry": 2, "real": 1, "applied": 0, "failed": 1}


def test_receipt_that_is_not_taken_ends_the_import_in_part(cli: Cli) -> None:
    collides = receipt(3, job_id="job-1b", buyer="uyer")
    path = write(cli, "c.jsonl", file_of(links(receipt(1), receipt(2), collides, receipt(4))))
    done = cli(*IMPORT, path)
    assert done.code == 7
    assert done.out == (
        f"imported 2 of 4 receipts of market {MARKET}: 0 applied, 2 recorded, 0 failed, "
        "0 duplicates\n"
    )
    assert done.err.splitlines()[-1].startswith(
        f"error[conflict]: receipt 3 of market {MARKET}, of job job-1b, has the key of "
    )


def test_failure_and_stop_are_one_object(cli: Cli) -> None:
    go_real(cli)
    paid_itself = receipt(3, buyer="prov")
    path = write(cli, "s.jsonl", file_of(links(receipt(1), receipt(2), paid_itself, receipt(4))))
    done = cli(*IMPORT, path, "--json")
    assert (done.code, done.json["failed"], done.json["recorded"]) == (7, 1, 1)
    assert (done.error["reason"], done.error["seq"]) == ("insufficient_funds", 1)
    assert done.error["stop"]["reason"] == "self_deal"
    assert cli(*IMPORT, path).code == 7


@pytest.mark.parametrize("ends", [KeyboardInterrupt(), Terminated(signal.SIGTERM)], ids=type)
def test_interrupted_import_says_how_far_it_came(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 1)
    take = imports.take

    def interrupted(txn: Any, file: Any, entries: Any, **options: Any) -> Any:
        if entries[0].seq == 3:
            raise ends
        return take(txn, file, entries, **options)

    monkeypatch.setattr(imports, "take", interrupted)
    done = cli(*IMPORT, "r.jsonl")
    assert done.code == (130 if isinstance(ends, KeyboardInterrupt) else 143)
    assert done.err.splitlines()[-1] == "interrupted after 2 of 3 receipts; run it again"
    monkeypatch.setattr(imports, "take", take)
    assert cli.ok(*IMPORT, "r.jsonl") == told(1, 0, 1, 0, 2)


# What is refused whole.


def test_receipts_of_a_key_that_is_not_trusted_are_not_copied(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cli.home / "config.toml").unlink()
    monkeypatch.setattr("tb_cli.receipt_files.spooled", None)
    refused(cli, "r.jsonl", code=5, reason="untrusted_key")
    refused(cli, "r.jsonl", "-n", code=5, reason="untrusted_key")


def refused(cli: Cli, *arguments: str | Path, code: int, reason: str) -> dict[str, object]:
    """The error of an import that leaves no trace."""
    before = sorted(cli.directory.rglob("*"))
    done = cli(*IMPORT, *arguments, "--json")
    assert (done.code, done.out) == (code, "")
    assert done.error["reason"] == reason
    assert sorted(cli.directory.rglob("*")) == before
    return done.error


def test_key_that_is_not_trusted_is_named_with_the_line_to_add(cli: Cli) -> None:
    (cli.home / "config.toml").unlink()
    error = refused(cli, "r.jsonl", code=5, reason="untrusted_key")
    assert error["key_id"] == KEY.key_id.hex()
    line = str(error["hint"]).rpartition(": ")[2]
    assert line == f'trusted = ["{KEY.key_id.hex()}"]'
    (cli.home / "config.toml").write_text(f"[net]\n{line}\n")
    cli(*IMPORT, "r.jsonl", "--json")
    assert cli.document(*IMPORT, "r.jsonl")["duplicates"] == 3


def test_variable_names_who_is_trusted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_NET_TRUSTED", OTHER_KEY.key_id.hex())
    refused(cli, "r.jsonl", code=5, reason="untrusted_key")
    both = f"{OTHER_KEY.key_id.hex()},{KEY.key_id.hex()}"
    monkeypatch.setenv("TB_NET_TRUSTED", both)
    assert cli.ok(*IMPORT, "r.jsonl") == told(3, 0, 3, 0, 0)


def test_gap_is_refused_and_from_link_lets_a_chain_begin(cli: Cli) -> None:
    entries = links(*(receipt(seq) for seq in range(1, 6)))
    write(cli, "late.jsonl", file_of(entries[2:], after=entries[1].link))
    error = refused(cli, "late.jsonl", code=5, reason="gap")
    assert "receipts 1 to 2 are missing" in str(error["message"])
    wrong = entries[0].link.hex()
    error = refused(cli, "late.jsonl", "--from-link", wrong, code=9, reason="bad_chain")
    assert error["line"] == 1
    link = entries[1].link.hex()
    assert cli.document(*IMPORT, "late.jsonl", "--from-link", link)["imported"] == 3
    write(cli, "all.jsonl", file_of(entries))
    done = cli(*IMPORT, "all.jsonl", "--json")
    assert (done.code, done.error["reason"]) == (5, "before_first")


def test_fork_is_refused(cli: Cli) -> None:
    cli.ok(*IMPORT, "r.jsonl")
    write(cli, "fork.jsonl", file_of(links(receipt(1), receipt(2, buyer="victim"), receipt(3))))
    error = refused(cli, "fork.jsonl", code=9, reason="fork")
    assert "restored backup" in str(error["hint"])


def test_own_export_comes_back_as_duplicates(cli: Cli) -> None:
    cli.active("a", "b")
    cli.ok("compute", "execute", "a", "b")
    cli.ok("key", "new", "node")
    trust(cli, cli.document("key", "show", "node")["key_id"])
    cli.ok(*RECEIPTS, "export", "own.jsonl", "--key", "node")
    found = cli.document(*IMPORT, "own.jsonl")
    assert (found["imported"], found["duplicates"], found["changed"]) == (0, 2, False)


def test_every_flipped_bit_is_refused_whole(cli: Cli) -> None:
    """No bit of a file is there for nothing: whatever it was, nothing is stored."""
    cli.ok("state", "init")
    content = b"".join(file_of(three()))
    bits = range(8 * len(content))
    before = cli.files()
    for bit in Random(1).sample(bits, effort(60, len(bits))):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        done = cli(*IMPORT, "-", "--json", stdin=bytes(changed))
        assert (done.code, done.out) == (9, ""), bit
        assert isinstance(done.error["line"], int)
    assert cli.files() == before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: lines[:-1], 5),
        (lambda lines: [*lines, lines[1]], 6),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [lines[0], lines[1], *lines[3:]], 3),
        (lambda lines: [*lines[:2], *lines[1:]], 3),
        (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], 1),
        (lambda lines: [lines[0], lines[1].replace(b"{", b'{"seq":1,', 1), *lines[2:]], 2),
        (lambda lines: [b"x" * 10**6, *lines], 1),
        (lambda lines: [], 1),
    ],
    ids=["cut", "more", "moved", "left out", "twice", "CRLF", "key twice", "long", "empty"],
)
def test_file_that_does_not_verify_is_refused_whole(cli: Cli, change: Any, line: int) -> None:
    write(cli, "bad.jsonl", change(file_of(three())))
    done = cli(*IMPORT, "bad.jsonl", "--json")
    assert (done.code, done.error["line"]) == (9, line)
    assert not cli.data.exists()


def test_file_that_is_replaced_while_it_is_read_is_not_believed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between verifying and taking, somebody puts a chain of his own in the place of the file."""
    cli.ok("state", "init")
    verify = receipt_files.verify

    def and_replace(lines: Any, **options: Any) -> Any:
        found = verify(lines, **options)
        write(cli, "r.jsonl", file_of(links(*(receipt(s, buyer="victim") for s in (1, 2, 3)))))
        return found

    monkeypatch.setattr(receipt_files, "verify", and_replace)
    cli.ok(*IMPORT, "r.jsonl")
    assert {row[3] for row in cli(*LIST).rows} == {"prov"}
    assert {row["buyer"] for row in cli.document(*LIST)} == {"buyer"}


@pytest.mark.parametrize("given", ["", "ab", "zz" * 32, "a" * 65])
def test_from_link_is_64_hex_digits(cli: Cli, given: str) -> None:
    done = cli(*IMPORT, "r.jsonl", "--from-link", given)
    assert done.code == 2
    assert "--from-link" in done.err


def test_missing_file_is_usage(cli: Cli) -> None:
    done = cli(*IMPORT, "nope.jsonl")
    assert (done.code, done.err) == (2, "error[usage]: nope.jsonl: no such file or directory\n")
    assert not cli.data.exists()


@pytest.mark.parametrize("buffered", [True, False])
def test_full_directory_for_temporary_files_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, buffered: bool
) -> None:
    def full() -> BinaryIO:
        return open("/dev/full", "r+b", buffering=-1 if buffered else 0)

    monkeypatch.setattr("tb_cli.frame.spool.TemporaryFile", full)
    monkeypatch.setattr("tb_cli.frame.spool.gettempdir", lambda: "/some/tmp")
    done = cli(*IMPORT, "r.jsonl")
    assert (done.code, done.out) == (8, "")
    assert done.err.startswith("error[busy]: a copy in /some/tmp: no space left on device\n")


# Listing.


def test_list_imported_says_where_each_is_from(cli: Cli) -> None:
    assert cli.ok(*IMPORT, "r.jsonl") == told(3, 0, 3, 0, 0)
    rows = cli(*LIST).rows
    assert [row[:7] for row in rows] == [
        [MARKET, str(seq), f"job-{seq}", "prov", "1", str(PRICE), "recorded"] for seq in (1, 2, 3)
    ]
    assert len(cli(*LIST, "--limit", "2").rows) == 2
    assert [row["job_id"] for row in cli(*LIST, "--job", "job-2", "--jsonl").jsonl] == ["job-2"]
    assert cli.ok(*RECEIPTS, "list") == ""


def test_log_tells_of_an_import(cli: Cli) -> None:
    cli.ok(*IMPORT, "r.jsonl")
    (told,) = cli("log", "--event", "receipts_imported", "--jsonl").jsonl
    assert told["detail"] == {
        "market_id": MARKET,
        "from_seq": 1,
        "to_seq": 3,
        "imported": 3,
        "applied": 0,
    }


# Long files.


def test_long_file_is_never_held_in_memory() -> None:
    length, count = 1000, effort(20_000, 2_000_000)

    def lines() -> Iterator[bytes]:
        for number in range(count):
            yield f"{number:0{length}}\n".encode()

    tracemalloc.start()
    with spooled(lines()) as spool:
        first = sum(len(line) for line in spool)
        assert first == sum(len(line) for line in spool) == count * (length + 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
