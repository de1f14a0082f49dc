"""What holds for every list: its forms, columns, order, limits, filters, and bad input."""

import csv
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from compute_market.store.schema import JOBS
from compute_market.store.txn import Txn
from tb_cli.frame import paging
from tb_cli.frame.listing.options import LISTED, OUTPUTS
from tb_cli.frame.verbs import parameters_of
from tests.support.cli import Cli, Done, Prepared
from tests.support.effort import sample
from tests.support.listed import LISTS, fill
from tests.support.verbs import VERBS, Path_

pytest_plugins = ("tests.support.cli",)

EACH_LIST = pytest.mark.parametrize("line", LISTS)
# They print what they do as they do it, or what they measured: no records of the market. A
# statement has rows between its sums, which cannot be left out.
OTHERS = {"compute run", "compute-market simulate", "wallet statement"}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("full"), fill)


@pytest.fixture
def shop(cli: Cli, full: Prepared) -> Cli:
    full.copy_to(cli)
    return cli


def verb_of(line: str) -> Path_:
    words = tuple(line.split())
    return next(words[:length] for length in range(len(words), 0, -1) if words[:length] in VERBS)


def listed(cli: Cli, line: str, *options: str) -> Done:
    done = cli(*line.split(), *options)
    assert (done.code, done.err) == (0, ""), done
    return done


def told(cli: Cli, line: str, *options: str) -> list[dict[str, Any]]:
    """The documents of a list; among settings there are numbers that are not whole."""
    found: list[dict[str, Any]] = json.loads(listed(cli, line, *options).out)
    return found


def has_options_of_lists(path: Path_) -> bool:
    return set(LISTED) <= set(parameters_of(VERBS[path].function()))


def test_every_list_is_here() -> None:
    assert {path for path in VERBS if has_options_of_lists(path)} == set(map(verb_of, LISTS))


def test_whatever_lists_has_all_options_of_lists() -> None:
    """A verb that prints records by itself would be one that lacks them."""
    for path, verb in VERBS.items():
        names = {each.name for each in parameters_of(verb.function())}
        if not verb.writes and {"limit", "jsonl"} & names and " ".join(path) not in OTHERS:
            assert has_options_of_lists(path), path
        last = path[-1]
        if last in ("list", "history", "log", "queue"):
            assert has_options_of_lists(path), path


def test_what_selects_takes_several_values() -> None:
    """Ranges and what is so or not have one."""
    for path, verb in VERBS.items():
        for each in parameters_of(verb.function()):
            is_range = each.unit is not None or each.name in ("since", "until")
            if each.group == "filters" and each.kind != "flag" and not is_range:
                assert (each.many, each.metavar) == (True, "A,B"), (path, each.name)


@EACH_LIST
def test_list_has_rows_and_the_same_ones_in_every_form(shop: Cli, line: str) -> None:
    rows = listed(shop, line).rows
    assert rows
    headed = listed(shop, line, "--header").rows
    names, ids = headed[0], listed(shop, line, "-q").out.splitlines()
    assert headed[1:] == rows
    assert listed(shop, line, "-o", "tsv").rows == rows
    assert listed(shop, line, "-o", "ids").out.splitlines() == ids
    assert len(ids) == len(rows)
    with_heads = list(csv.reader(io.StringIO(listed(shop, line, "-o", "csv").out)))
    assert with_heads[0] == names
    assert [[value or "-" for value in row] for row in with_heads[1:]] == [
        [value or "-" for value in row] for row in rows
    ]
    documents = told(shop, line, "--json")
    assert len(documents) == len(rows)
    assert told(shop, line, "-o", "json") == documents
    for form in (("--jsonl",), ("-o", "jsonl")):
        assert [*map(json.loads, listed(shop, line, *form).out.splitlines())] == documents
    table = listed(shop, line, "-o", "table").out.splitlines()
    assert len(table) == 1 + len(rows)
    assert table[0] == table[0].upper()


def test_nothing_is_an_empty_value_in_csv_and_a_dash_in_lines(cli: Cli) -> None:
    cli.post("--offer-id", "plain")
    form = ("--columns", "offer_id,capability,job_id")
    assert listed(cli, "compute offer list", *form, "-o", "csv").out.splitlines()[1] == "plain,,"
    assert listed(cli, "compute offer list", *form, "-o", "tsv").rows == [["plain", "-", "-"]]


def completed(cli: Cli, words: str) -> list[str]:
    """What a shell is told that the last word of a line goes on as."""
    variables = {
        "_TB_CLI_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": f"tb-cli {words}",
    }
    with mock.patch.dict(os.environ, variables):
        done = cli()
    assert (done.code, done.err) == (0, "")
    return done.out.split()


def known_to(cli: Cli, line: str, option: str) -> list[str]:
    """The fields that an option of a list takes, as it names them where there is no such one."""
    done = cli(*line.split(), option, "none-such")
    assert done.code == 2
    return done.err.partition(" is none of ")[2].splitlines()[0].split(", ")


@pytest.mark.parametrize(
    "line",
    [*LISTS, "compute slices render-1 --references", "compute-market receipts list --imported"],
)
def test_shell_completes_the_fields_of_the_list(shop: Cli, line: str) -> None:
    fields, sortable = known_to(shop, line, "--columns"), known_to(shop, line, "--sort")
    assert completed(shop, f"{line} --columns ") == fields
    assert completed(shop, f"{line} --sort ") == sortable
    downwards = [f"-{name}" for name in sortable]
    assert completed(shop, f"{line} --sort -") == downwards
    last = downwards[-1]
    starts = [name for name in downwards if name.startswith(last[:3])]
    for between in (" ", "="):
        assert completed(shop, f"{line} --sort{between}{last[:3]}") == starts
    first, second = fields[:2]
    assert completed(shop, f"{line} --columns {first},{second}") == [
        f"{first},{name}" for name in fields if name.startswith(second)
    ]
    assert completed(shop, f"{line} --columns {first},") == [
        f"{first},{name}" for name in fields if name != first
    ]
    assert completed(shop, f"{line} -o ") == completed(shop, f"{line} --output ") == [*OUTPUTS]
    assert completed(shop, f"{line} --out")[0] == "--output"


@EACH_LIST
def test_columns_are_the_fields_of_the_documents(shop: Cli, line: str) -> None:
    """Also of those that are found without making a document."""
    known = known_to(shop, line, "--columns")
    documents = told(shop, line, "--json")
    assert {name for each in documents for name in each} <= set(known)
    chosen = told(shop, line, "--columns", ",".join(known), "--json")
    for whole, each in zip(documents, chosen, strict=True):
        assert list(each) == known
        assert {name: each[name] for name in whole} == whole
        lacking = set(known) - set(whole)
        made_up = {"held_by", "left", "what", "who", "escrow_ct", "escrow_it", "bonds_ct"}
        assert all(each[name] is None for name in lacking - made_up)
    one = known[-1]
    assert listed(shop, line, "--columns", f"{one},{one}", "--header").rows[0] == [one]
    assert [list(each) for each in told(shop, line, "--columns", one, "--json")] == [
        [one] for _ in documents
    ]


@EACH_LIST
def test_list_is_sorted_by_any_field_up_and_down(shop: Cli, line: str) -> None:
    done = shop(*line.split(), "--sort", "none-such")
    assert done.code == 2
    documents = told(shop, line, "--json")
    known = done.err.partition(" is none of ")[2].splitlines()[0].split(", ")
    for name in sample(known, min(len(known), 4), line):
        form = ("--columns", name, "--json")
        up = told(shop, line, "--sort", name, *form)
        down = told(shop, line, "--sort", f"-{name}", *form)
        values = [each[name] for each in up if each[name] is not None]
        assert len(up) == len(down) == len(documents)
        # What has none comes last both ways.
        assert up[: len(values)] == [{name: value} for value in values]
        assert [each[name] for each in down[: len(values)]] == values[::-1]
        if name not in ("state", "priority", "lane", "status"):
            numbers = [value for value in values if isinstance(value, int | float)]
            texts = [str(value) for value in values[len(numbers) :]]
            assert values[: len(numbers)] == sorted(numbers)
            assert texts == sorted(texts)
        # Of those that have the same the newest come first where the greatest do.
        form = ("--columns", ",".join(known), "--json")
        whole = told(shop, line, "--sort", name, *form)
        there, nothing = whole[: len(values)], whole[len(values) :]
        assert [each[name] for each in there] == values
        turned = there[::-1] + nothing[::-1]
        assert told(shop, line, "--sort", f"-{name}", *form) == turned
        for limit in (0, 2, len(whole)):
            some = (*form, "--limit", str(limit))
            assert told(shop, line, "--sort", f"-{name}", *some) == turned[:limit]
            assert told(shop, line, "--sort", name, *some) == whole[:limit]


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_newest_of_a_second_comes_first_where_the_greatest_do(
    cli: Cli, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", page)
    cli.post(units=100)
    ids = [f"k-{number}" for number in range(1, 13)]
    for job_id in ids:
        cli.submit(job_id)
    cli.ok("compute", "cancel", "k-11", "k-2", "k-10")
    for job_id in ("k-4", "k-3"):
        cli.advance(1)
        cli.ok("compute", "cancel", job_id)
    live = [job_id for job_id in ids if job_id not in ("k-11", "k-2", "k-10", "k-4", "k-3")]
    ended = ["k-2", "k-10", "k-11", "k-4", "k-3"]
    for options, told_ in (
        ("--sort submitted_at", live),
        ("--sort -submitted_at", live[::-1]),
        ("--sort -submitted_at --limit 1", ["k-12"]),
        ("--all --sort submitted_at --limit 3", ids[:3]),
        ("--all --sort -submitted_at --limit 4", ids[:-5:-1]),
        ("--all --buyer alice --sort -submitted_at", ids[::-1]),
        ("--all --priority normal --sort -priority", ids[::-1]),
        ("--all --sort ended_at", ended + live),
        ("--all --sort -ended_at", ended[::-1] + live[::-1]),
        ("--all --sort -ended_at --limit 3", ["k-3", "k-4", "k-11"]),
        ("--all --sort -ended_at --limit 6", [*ended[::-1], "k-12"]),
        ("--all --buyer alice --sort -ended_at --limit 6", [*ended[::-1], "k-12"]),
        ("--state cancelled --sort ended_at", ended),
        ("--state cancelled,active --sort ended_at --limit 6", [*ended, "k-1"]),
        ("--sort -ended_at --limit 2", ["k-12", "k-9"]),
    ):
        assert listed(cli, f"compute list {options} -q").out.split() == told_, options


@pytest.mark.parametrize("column", ["submitted_at", "ended_at"])
def test_jobs_in_an_order_of_the_store_are_not_all_read(
    cli: Cli, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.post(units=100)
    ids = [f"k{number}" for number in range(30)]
    for job_id in ids:
        cli.submit(job_id)
    for job_id in ids:
        cli.advance(1)
        cli.ok("compute", "cancel", job_id)
    read: list[Any] = []

    def noted(way: Any) -> Any:
        def act(txn: Txn, table: Any, keys: Any) -> Any:
            if table is JOBS:
                read.extend(keys if isinstance(keys, list) else [keys])
            return way(txn, table, keys)

        return act

    for name in ("read", "must_read_each"):
        monkeypatch.setattr(Txn, name, noted(getattr(Txn, name)))
    for spelled, told_ in ((column, ids[:2]), (f"-{column}", ids[:-3:-1])):
        read.clear()
        words = f"compute list --all --sort {spelled} --limit 2 -q"
        assert listed(cli, words).out.split() == told_
        assert len(read) == 2


RANKED = ("compute queue", "compute slices", "net reputation show", "key", "config", "state")


@EACH_LIST
def test_limit_leaves_the_newest_or_those_of_the_first_rank(shop: Cli, line: str) -> None:
    rows = listed(shop, line).rows
    assert listed(shop, line, "--limit", "0").rows == []
    assert listed(shop, line, "--limit", "100000").rows == rows
    two = listed(shop, line, "--limit", "2").rows
    if line.startswith(RANKED) and "--history" not in line:
        assert two == rows[:2]
    elif line == "compute offer list":  # They come by id.
        assert [row[0] for row in two] == ["cheap", "gone"]
    else:
        assert two == rows[-2:]


@EACH_LIST
@pytest.mark.parametrize("page", [1, 2])
def test_list_goes_on_over_the_page(
    shop: Cli, line: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:

    whole = [
        listed(shop, line, *more).out for more in ((), ("--limit", "2"), ("--sort=-state",)[:0])
    ]
    monkeypatch.setattr(paging, "PAGE", page)
    assert [listed(shop, line, *more).out for more in ((), ("--limit", "2"), ())] == whole


BAD_OPTIONS: tuple[tuple[Path_, str], ...] = (
    (("--columns", ""), "--columns: '' is none of "),
    (("--columns", "a,,b"), "--columns: 'a' is none of "),
    (("--sort", ""), "--sort: '' is none of "),
    (("--sort", "-"), "--sort: '' is none of "),
    (("--json", "-o", "csv"), "-o csv and --json: a list has one form"),
    (("--json", "--jsonl"), "--jsonl and --json: a list has one form"),
    (("-q", "--header"), "--header goes with tables and lines, ids has no line of names"),
    (("-o", "jsonl", "--header"), "--header goes with tables and lines, jsonl has"),
    (("--jsonl", "-q"), "--jsonl and -q: a list has one form"),
    (("--watch", "0"), "--watch 0 is not 0.1…86400 seconds"),
    (("--watch", "100000"), "--watch 100000 is not"),
    (("--watch", "--fail-empty"), "--fail-empty has one list to look at"),
    (("-o", "xml"), "--output: 'xml' is none of table, tsv"),
    (("--limit", "-1"), "--limit: -1 is not 0"),
    (("--limit", "1.5"), "--limit: '1.5' is no whole number"),
)


@EACH_LIST
def test_bad_option_is_usage(shop: Cli, line: str) -> None:
    before = shop.files()
    for options, says in BAD_OPTIONS:
        done = shop(*line.split(), *options)
        assert (done.code, done.out) == (2, ""), options
        assert says in done.err or says in done.error["message"]
    assert shop.files() == before


def test_wrong_field_is_told_with_the_nearest(shop: Cli) -> None:
    done = shop("compute", "list", "--columns", "job_id,unit")
    assert done.code == 2
    assert done.err.startswith("error[usage]: --columns: 'unit' is none of job_id, state, buyer, ")
    assert done.err.endswith("hint: did you mean units?\n")
    done = shop("compute", "list", "--sort", "-prize_per_unit")
    assert done.err.endswith("hint: did you mean price_per_unit?\n")
    done = shop("compute", "list", "--sort", "escrow")  # It has no order.
    assert done.code == 2


DATED = [
    line
    for line in LISTS
    if "since" in {each.name for each in parameters_of(VERBS[verb_of(line)].function())}
]


@pytest.mark.parametrize("line", DATED)
def test_window_takes_what_happened_in_it(shop: Cli, line: str) -> None:
    rows = listed(shop, line).rows
    assert listed(shop, line, "--since", "1d").rows == rows
    assert listed(shop, line, "--since", "1s").rows == []
    assert listed(shop, line, "--until", "1d").rows == []
    assert listed(shop, line, "--until", "0s").rows == rows
    older = listed(shop, line, "--until", "62m").rows
    newer = listed(shop, line, "--since", "3719s").rows
    assert sorted([*older, *newer]) == sorted(rows)
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(shop.now))
    assert listed(shop, line, "--until", now, "--utc").rows == rows
    assert listed(shop, line, "--since", f"{now}Z").rows == []
    for options, says in (
        (("--since", "1h", "--until", "2h"), "--until is before --since"),
        (("--since", "25:00"), "--since: '25:00' is no time"),
        (("--until", ""), "--until: '' is no time"),
    ):
        done = shop(*line.split(), *options)
        assert (done.code, done.out) == (2, "")
        assert says in done.err


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("compute list", "render-1 render-4 waits"),
        ("compute list --all", "render-1 render-2 render-3 render-4 waits"),
        ("compute list --state completed", "render-2"),
        ("compute list --state completed,cancelled --state pending", "render-2 render-3 waits"),
        ("compute list --all --buyer alice --priority high", "render-2"),
        ("compute list --all --lane consumer", "render-3"),
        ("compute list --all --lane consumer,industrial --priority high,low", "render-2"),
        ("compute list --all --buyer nobody,alice --buyer bob --priority high", "render-2"),
        ("compute list --provider other,prov --limit 1", "render-4"),
        ("compute list --workload inference,transcode --state pending", "waits"),
        ("compute list --offer cheap,gpu-lab", "render-1 render-4"),
        ("compute list --offer cheap", ""),
        ("compute list --provider prov", "render-1 render-4"),
        ("compute list --workload inference", ""),
        ("compute list --unfunded", ""),
        ("compute list --held", ""),
        ("compute list --overdue-in 1h", ""),
        ("compute list --overdue-in 2d --limit 1", "waits"),
        ("compute offer list --state open", "cheap gpu-lab"),
        ("compute offer list --state open,withdrawn --provider prov", "gone gpu-lab"),
        ("compute-market receipts list --job render-2 --columns job_id", "render-2"),
        ("compute-market receipts list --provider other --columns job_id", ""),
        ("compute-market receipts list --status applied,pending --columns job_id", "render-2"),
        ("compute-market params history --state proposed", "1 2"),
        ("compute-market params history --parameter min_capacity", "1"),
        ("wallet history alice --event deposit --token IT", "2"),
        ("bid list --state revealed,expired", ""),
        ("bid list --owner alice,bob --columns owner", "alice"),
        ("compute courier list --state pending --sender alice --columns sender", "alice"),
        ("compute courier list --sender bob", ""),
        ("key list --kind own", "k1"),
        ("key list --kind public", ""),
        ("log --event offer_withdrawn,job_cancelled --columns offer_id", "gone -"),
        ("log --job render-2,render-3 --event job_cancelled --columns job_id", "render-3"),
        ("log --offer gone,none --columns event", "offer_posted offer_withdrawn"),
        ("log --owner nobody,other --event offer_posted --columns owner", "other"),
    ],
)
def test_filter_selects(shop: Cli, line: str, ids: str) -> None:
    form = ("-o", "tsv") if "--columns" in line else ("-q",)
    assert listed(shop, line, *form).out.split() == ids.split()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("compute list --state done", "--state: 'done' is none of pending, queued, active"),
        ("compute list --state active,", "--state: '' is none of"),
        ("compute list --overdue-in soon", "--overdue-in: 'soon' is no duration"),
        ("compute list --lane fast", "--lane: 'fast' is none of industrial, consumer"),
        ("compute list --workload a/b", "--workload 'a/b' has the character '/'"),
        ("compute list --priority high,hi", "--priority: 'hi' is none of high, normal, low"),
        ("log --owner alice,b/c", "--owner 'b/c' has the character '/'"),
        ("compute offer list --provider a,b/c", "--provider 'b/c' has the character '/'"),
        ("compute-market receipts list --status paid", "--status: 'paid' is none of recorded"),
        ("bid list --state open", "--state: 'open' is none of committed"),
        ("key list --kind mine", "--kind: 'mine' is none of own, public"),
        ("wallet history alice --token ct", "--token: 'ct' is none of CT, IT"),
        ("log --event cancelled", "--event: 'cancelled' is none of "),
        ("log --follow --sort seq", "--sort is for a list that ends, not --follow"),
        ("log --follow -o json", "-o json is for a list that ends, not --follow"),
        ("log -f --json", "--json is for a list that ends, not --follow"),
        ("compute slices render-1 --b3sum -o csv", "--b3sum prints lines of text"),
    ],
)
def test_bad_filter_is_usage(shop: Cli, line: str, says: str) -> None:
    done = shop(*line.split())
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_nothing_listed_is_said_where_that_is_asked_for(shop: Cli) -> None:
    nothing = ("compute", "list", "--buyer", "nobody")
    assert shop.ok(*nothing) == ""
    assert shop.ok(*nothing, "--json") == "[]\n"
    assert shop.ok(*nothing, "-o", "csv").count("\n") == 1
    error = "error[not_found]: there are no jobs to list\n"
    assert shop(*nothing, "--fail-empty") == (3, "", error)
    done = shop(*nothing, "--fail-empty", "-o", "json")
    assert (done.code, done.out, done.error["reason"]) == (3, "[]\n", "empty")
    assert shop("compute", "list", "--fail-empty").code == 0


def test_error_of_a_list_in_json_is_json(shop: Cli) -> None:
    for form in (("-o", "json"), ("-ojsonl",), ("--output=json",), ("--output", "jsonl")):
        assert shop("compute", "list", "--state", "done", *form).error["error"] == "usage"
    assert shop("compute", "list", "--state", "done", "-o", "csv").err.startswith("error[usage]")


def test_value_that_does_not_print_is_escaped_in_every_form(shop: Cli) -> None:
    reason = "one\ntwo\t\x1b[31mred"
    assert shop("compute-market", "settle", "dry-run", "--reason", reason, "--yes").code == 0
    for output in OUTPUTS:
        out = shop.ok("log", "--event", "mode_changed", "-o", output)
        assert "\x1b" not in out
        assert "\ttwo" not in out
    assert len(shop("log", "--limit", "1").rows[0]) == 9


def watching(cli: Cli, *arguments: str) -> "subprocess.Popen[bytes]":
    return cli.start("compute", "list", "--watch", "0.1", *arguments)


def test_watch_in_a_pipe_lists_again_until_a_signal(cli: Cli) -> None:
    cli.active("j1")
    process = watching(cli, "-q")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"j1\n", b"j1\n"]
    cli.submit("j2")  # Each look is at what there is by then.
    lines = iter(process.stdout.readline, b"")
    assert b"j2\n" in lines
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_watch_ends_when_nobody_reads(cli: Cli) -> None:
    cli.active("j1")
    process = watching(cli, "-q")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 0


class Stopped(Exception):
    pass


@pytest.fixture
def three_looks() -> Iterator[None]:
    looks = iter([None, None])

    def sleep(seconds: float) -> None:
        if next(looks, "over") == "over":
            raise Stopped

    with mock.patch("tb_cli.frame.looks.time.sleep", sleep):
        yield


def test_watch_on_a_terminal_draws_over_what_was_there(
    shop: Cli, three_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_terminal(shop, monkeypatch, "compute", "list", "--all", "--watch", "5", lines=24)
    first, *looks = shown.split("\x1b[H")
    assert first == ""
    assert len(looks) == 3
    for look in looks:
        assert look.startswith("every 5s, ")
        assert look.endswith("\x1b[J")
        assert look.count("\n") == 1 + 1 + 5 + look.count("left out")
        assert all(line.endswith("\x1b[K") for line in look.split("\n")[:-1])


def test_watch_draws_what_fits_the_lines_of_a_terminal(
    shop: Cli, three_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_terminal(shop, monkeypatch, "compute", "list", "--all", "--watch", "5", lines=6)
    for look in shown.split("\x1b[H")[1:]:
        assert look.count("\n") <= 6
        assert "and more" in look


def test_watch_on_a_dumb_terminal_lists_again_below(
    shop: Cli, three_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = on_terminal(shop, monkeypatch, "compute", "list", "--watch", lines=24)
    assert "\x1b" not in shown
    assert shown.count("render-1 ") == 3


def on_terminal(
    cli: Cli, patch: pytest.MonkeyPatch, *arguments: str, lines: int, width: int = 100
) -> str:
    """What a terminal is sent until the looks are over."""
    import sys

    from tb_cli.entry import call
    from tests.cli.test_tables import Terminal

    patch.setenv("COLUMNS", str(width))
    patch.setenv("LINES", str(lines))
    if os.environ.get("TERM") != "dumb":
        patch.setenv("TERM", "xterm")
    shown = Terminal()
    with mock.patch.object(sys, "stdout", shown), pytest.raises(Stopped):
        call([*arguments])
    return shown.getvalue()
