"""Listings on a terminal of some width, and that a pipe gets all of it."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from functools import partial
from unittest import mock

import pytest

from compute_market.simulation.comparison import FIGURES
from tb_cli.entry import call
from tb_cli.frame.listing.cells import folded, padded, width_of
from tb_cli.frame.listing.columns import Column
from tb_cli.frame.listing.table import Table
from tb_cli.frame.times import local
from tests.support.cli import MIB, Cli

pytest_plugins = ("tests.support.cli",)

JOB = "render-2026-11-27-batch-0001"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(cli: Cli, width: int, *arguments: str, **environment: str) -> list[str]:
    """The lines that a command shows on a terminal so many columns wide."""
    variables = {"COLUMNS": str(width), "TERM": "xterm", **environment}
    shown = Terminal()
    with mock.patch.dict(os.environ, variables), mock.patch.object(sys, "stdout", shown):
        assert call([*arguments]) == 0
    return shown.getvalue().splitlines()


@pytest.fixture
def shop(cli: Cli) -> Cli:
    cli.real()
    terms = (
        "--cpu-cores",
        "32",
        "--gpu",
        "RTX4090",
        "--gpu-count",
        "2",
        "--gpu-memory-mb",
        "49152",
    )
    cli.post("--offer-id", "gpu-lab-frankfurt-1", "--bond", "9", *terms)
    slices = [cli.slice("a.slice"), cli.slice("b.slice", bytes(2 * MIB))]
    cli.submit(JOB, "--gpu", "RTX4090", "--gpu", "A100", slices=slices)
    cli.ok("compute", "prove", JOB, "0", cli.ok("compute", "run", "a.slice")[:64])
    cli.submit("j2", slices=slices)
    cli.ok("compute", "cancel", "j2")
    return cli


LISTINGS = [
    *(("log",), ("compute", "history", JOB), ("compute", "slices", JOB)),
    *(("compute", "slices", JOB, "--references"), ("compute", "offer", "list")),
    *(
        ("compute", "list", "--all"),
        ("compute-market", "receipts", "list"),
        ("wallet", "history", "alice"),
    ),
    *(("compute", "queue"), ("net", "reputation", "show"), ("config", "show"), ("state", "stats")),
]


def test_comparison_of_runs_shows_what_differs_before_what_is_the_same(cli: Cli) -> None:
    sweep = ("compute-market", "simulate", "steady_load", "--param", "length_secs=60,120")
    (head,) = (line for line in on_terminal(cli, 80, *sweep, "--no-color") if "ADMITTED" in line)
    assert all(name in head for name in ("REFUSED", "UTILIZATION", "FAIRNESS", "WAIT P95 MS"))
    wide = " ".join(on_terminal(cli, 200, *sweep, "--no-color"))
    assert all(name.replace("_", " ").upper() in wide for name, _ in FIGURES)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_listing_keeps_to_the_width_of_the_terminal(shop: Cli, width: int) -> None:
    for command in LISTINGS:
        lines = on_terminal(shop, width, *command, "--no-color")
        assert all("\x1b" not in line for line in lines), command
        assert all(len(line) <= width for line in lines), (command, lines)


@pytest.mark.parametrize("width", [80, 120, 140])
def test_ids_and_numbers_are_never_broken(shop: Cli, width: int) -> None:
    jobs = on_terminal(shop, width, "compute", "list", "--all", "--no-color")
    assert [line.split()[:2] for line in jobs if line.startswith(("j2", JOB))] == [
        [JOB, "active"],
        ["j2", "cancelled"],
    ]
    text = "\n".join(on_terminal(shop, width, "log", "--no-color"))
    for whole in ("gpu-lab-frankfurt-1", JOB, "job_cancelled"):
        assert whole in text
    digest = shop.document("compute", "slices", JOB)[0]["digest"]
    slices = on_terminal(shop, width, "compute", "slices", JOB, "--no-color")
    assert any(digest in line for line in slices) == (slices[-1] != "left out: DIGEST")


def test_what_does_not_fit_is_left_out_by_rank_and_named(shop: Cli) -> None:
    wide = on_terminal(shop, 200, "compute", "offer", "list", "--no-color")
    assert not any("left out" in line for line in wide)
    assert "gpu_memory_mb=49152" in wide[-1]
    narrow = on_terminal(shop, 80, "compute", "offer", "list", "--no-color")
    assert narrow[-1] == "left out: CAPABILITY"
    assert narrow[-2].split() == [
        *("gpu-lab-frankfurt-1", "open", "-", "prov", "5", "5", "997", "1000"),
    ]
    narrowest = on_terminal(shop, 30, "compute", "offer", "list", "--no-color")
    assert narrowest[1].split() == ["gpu-lab-frankfurt-1", "open"]
    assert " ".join(narrowest[2:]).startswith("left out: PROBLEM, PROVIDER,")
    # A pipe gets everything, whatever is said of a width.
    rows = shop.process("compute", "offer", "list", env=os.environ | {"COLUMNS": "30"}).rows
    assert rows == [
        [
            *("gpu-lab-frankfurt-1", "open", "prov", "5", "5", "997", "1000"),
            *("cpu_cores=32 gpu=RTX4090 gpu_count=2 gpu_memory_mb=49152", "open", "-"),
        ]
    ]


def test_amounts_of_a_statement_are_left_out_last(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "1000")
    for width, heads in ((30, "JOB CT IT EVENT"), (20, "JOB CT IT"), (14, "JOB CT")):
        words = ("wallet", "statement", "alice", "--by", "job", "--no-color")
        assert on_terminal(cli, width, *words)[0].split() == heads.split()


def test_nothing_moved_is_a_dash_wherever_nothing_is(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "1000")
    for verb in ("statement", "history"):
        assert "" not in cli("wallet", verb, "alice").rows[0]
        lines = on_terminal(cli, 120, "wallet", verb, "alice", "--no-color")
        place = lines[0].index("REF")
        assert {line[place : place + 3].strip() for line in lines[1:]} == {"-"}
    assert cli.ok("wallet", "history", "alice", "-o", "csv").splitlines()[1].endswith(",deposit,")


def test_log_on_a_terminal_says_when_what_and_who(shop: Cli) -> None:
    lines = on_terminal(shop, 200, "log", "--job", "j2", "--no-color")
    assert lines[0].split() == ["TIME", "EVENT", "WHAT", "WHO"]
    cancelled = lines[-1]
    assert "job_cancelled" in cancelled
    assert "job=j2 owner=alice" in cancelled
    assert cancelled.rstrip().endswith("compute cancel j2")


def test_width_is_that_of_the_terminal(shop: Cli) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 60, 0, 0))
    variables = {key: text for key, text in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = shop.command("compute", "list", "--no-color")
    done = subprocess.run(command, stdout=slave, env=variables | {"TERM": "xterm"}, timeout=60)
    os.close(slave)
    shown = os.read(master, 65_536).decode().replace("\r\n", "\n").splitlines()
    os.close(master)
    assert done.returncode == 0
    assert shown == on_terminal(shop, 60, "compute", "list", "--no-color")


def test_times_are_as_people_say_them(shop: Cli) -> None:
    active = ("compute", "list", "--state", "active", "--columns", "job_id,deadline", "--no-color")
    (line,) = on_terminal(shop, 200, *active)[-1:]
    assert line.endswith(("in 23h", "in 24h"))
    (line,) = on_terminal(shop, 200, *active, "--utc")[-1:]
    assert re.fullmatch(r"\S+  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line)
    assert shop("compute", "list", "--state", "active").rows[0][-1].isdigit()


def test_no_color_is_neither_color_nor_bold(shop: Cli) -> None:
    command = ("compute", "list")
    assert any("\x1b[1m" in line for line in on_terminal(shop, 80, *command))
    for lines in (
        on_terminal(shop, 80, *command, "--no-color"),
        on_terminal(shop, 80, *command, NO_COLOR="1"),
    ):
        assert not any("\x1b" in line for line in lines)


def test_follow_on_a_terminal_prints_as_it_comes(shop: Cli) -> None:
    shop.advance(2)
    lines = on_terminal(shop, 80, "log", "-f", "--until", "1s", "--limit", "1", "--no-color")
    assert [line.split()[0] for line in lines[:1]] == ["TIME"]
    assert "job_" in lines[1]
    assert "\t" not in lines[1]


COLUMNS = (Column("a"), Column("b"), Column("c"), Column("detail", kind="long"))
ROW = ["1234", "i" * 30, "k" * 12, "word " * 7 + "word"]


def drawn(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table on a terminal so many columns wide."""
    written: list[str] = []
    table = Table(columns, written.append, now_ms=0, width=width)
    table.rows(rows)
    table.end()
    return "".join(written).splitlines()


@pytest.mark.parametrize(
    ("width", "lines", "out"),
    [
        (None, 1, ""),
        (91, 1, ""),
        (80, 2, ""),
        (76, 2, ""),
        (75, 1, "left out: DETAIL"),
        (50, 1, "left out: DETAIL"),
        (49, 1, "left out: C, DETAIL"),
    ],
)
def test_room_is_given_by_rank(width: int | None, lines: int, out: str) -> None:
    found = drawn(COLUMNS, [ROW], width)
    assert found[1].startswith(f"1234  {'i' * 30}")
    assert "".join(found[1 + lines :]) == out
    assert all(len(line) <= (width or 1000) for line in found)


def test_id_is_whole_where_there_is_room_for_nothing() -> None:
    assert drawn(COLUMNS, [ROW], 3)[:2] == ["A", "1234"]


def test_what_was_left_out_is_told_where_there_is_room_to_read_it() -> None:
    for width in (1, 3, 19):
        assert drawn(COLUMNS, [ROW], width)[2:] == []
    assert drawn(COLUMNS, [ROW], 20)[2].startswith("left out: ")


def test_column_that_says_nothing_takes_no_room_that_another_lacked() -> None:
    columns = [Column("a"), Column("b", kind="number"), Column("c", kind="number"), Column("d")]
    rows = [["x", 123_456_789, 0, "d"], ["x", 1, None, "d"]]
    assert drawn(columns, rows, 9)[0] == "A  D"
    assert drawn(columns, rows, 14)[0].split() == ["A", "B"]
    assert drawn(columns, rows, 18)[0].split() == ["A", "B", "C", "D"]


def test_later_row_that_is_wider_makes_itself_wider_alone() -> None:
    written: list[str] = []
    table = Table(COLUMNS[:2], written.append, now_ms=0, width=80)
    table.rows([["a", "b"]] * 200)
    table.rows([["longer-than-any", "b"], ["a", "b"]])
    table.end()
    assert "".join(written).splitlines()[-2:] == ["longer-than-any  b", "a  b"]


def test_first_rows_are_drawn_when_they_have_been_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    table = Table(COLUMNS[:1], written.append, now_ms=0, width=80)
    table.rows([["a"]])
    assert written == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    table.rows([["b"]])
    assert "".join(written) == "A\na\nb\n"


def test_cells_are_those_of_the_terminal_not_characters() -> None:
    assert (width_of("値段"), width_of("a\u0301"), width_of("job")) == (4, 1, 3)
    assert padded("値段", 6, right=True) == "  値段"
    assert folded("値段 表", 4) == ["値段", "表"]
    assert folded("値段表", 4) == ["値段", "表"]
    assert folded("a" * 10, 4) == ["aaaa", "aaaa", "aa"]
    assert drawn(COLUMNS[:2], [["値段", "x"]], 80)[1] == "値段  x"


def _read_on(master: int) -> bytes:
    """What a terminal shows next, which comes in pieces; nothing once all programs are gone."""
    try:
        return os.read(master, 65_536)
    except OSError:
        return b""


@pytest.mark.parametrize("width", ["20", "0"])
@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}, {"PYTHONIOENCODING": "latin-1"}])
def test_odd_terminal_is_legible(shop: Cli, width: str, variables: dict[str, str]) -> None:
    """What is no width is taken for the usual one; ids are whole on the narrowest."""
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": width, "TERM": "xterm", **variables}
    command = shop.command("compute", "list", "--all", "--no-color")
    done = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    lines = b"".join(iter(partial(_read_on, master), b"")).decode("latin-1").splitlines()
    os.close(master)
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].split()[0] == "JOB"
    assert [line.split()[0] for line in lines[1:3]] == [JOB, "j2"]
    assert ("PRIO" in lines[0]) == (width != "20")


def test_text_that_the_locale_lacks_is_escaped(shop: Cli) -> None:
    slice_ = shop.slice("値段.slice")
    shop.submit("j3", slices=[slice_])
    listing = ("compute", "slices", "j3", "-o", "table")
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = shop.process(*listing, env=environment, afresh=True)
    assert done.code == 0
    assert "\\u5024\\u6bb5.slice" in done.out


def test_colours_are_for_terminals_that_have_them(shop: Cli) -> None:
    listing = ("compute", "list", "--all")
    lines = on_terminal(shop, 100, *listing)
    assert any("\x1b[32mactive" in line for line in lines)
    assert any("\x1b[31mcancelled" in line for line in lines)
    assert not any("\x1b" in line for line in on_terminal(shop, 100, *listing, TERM="dumb"))
    assert "\x1b" not in shop.ok(*listing, "-o", "table")


def test_error_is_red_on_a_terminal_alone(shop: Cli) -> None:
    for variables, begins in (
        ({"TERM": "xterm"}, "\x1b[31merror[not_found]:\x1b[0m job nope "),
        ({"TERM": "dumb"}, "error[not_found]: job nope "),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "error[not_found]: job nope "),
    ):
        master, slave = pty.openpty()
        command = shop.command("compute", "status", "nope")
        subprocess.run(command, stderr=slave, env=os.environ | variables)
        os.close(slave)
        assert os.read(master, 4096).decode().startswith(begins)
        os.close(master)


def test_nothing_is_said_of_an_empty_list_on_a_terminal_alone(shop: Cli) -> None:
    nothing = ("compute", "list", "--buyer", "nobody")
    assert on_terminal(shop, 80, *nothing) == ["no jobs"]
    assert on_terminal(shop, 80, "compute", "courier", "list") == ["no bundles"]
    assert on_terminal(shop, 80, *nothing, "-o", "tsv") == []
    assert shop.ok(*nothing, "-o", "table") == ""


def test_parties_of_the_capacity_are_a_table(shop: Cli) -> None:
    lines = on_terminal(shop, 80, "compute-market", "capacity", "show", "--no-color")
    head = lines.index("") + 1
    assert lines[head].split() == ["ROLE", "IDENTITY", "USED", "BURST", "LEFT", "SHARE", "LEFT"]
    assert {tuple(line.split()[:2]) for line in lines[head + 1 :]} == {
        *(("buyer", "alice"), ("provider", "prov")),
    }


@pytest.mark.parametrize(
    "verb",
    [
        ("compute", "status", JOB),
        ("compute", "status", JOB, "--at", "0s"),
        ("compute", "offer", "show", "gpu-lab-frankfurt-1"),
        ("wallet", "balance", "alice", "--at", "0s"),
        ("compute-market", "settle", "status"),
        ("chain", "status"),
        ("status",),
        ("state", "info"),
    ],
    ids=" ".join,
)
def test_record_on_a_terminal_has_no_instant_in_numbers(shop: Cli, verb: tuple[str, ...]) -> None:
    shown = "\n".join(on_terminal(shop, 120, *verb))
    now = shop.now_ms // 1000
    assert not re.search(rf"\b{now // 10**6}\d{{4,}}\b", shown), shown
    if verb != ("compute-market", "settle", "status"):
        assert local(shop.now_ms)[:10] in shown
