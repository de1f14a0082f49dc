"""`compute run`."""

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.cli import HELLO, MIB, WRONG, Cli

pytest_plugins = ("tests.support.cli",)

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_run_prints_what_b3sum_prints(cli: Cli) -> None:
    cli.slice()
    cli.slice("empty", b"")
    assert cli.ok("compute", "run", "a.slice", "empty") == f"{HELLO}  a.slice\n{EMPTY}  empty\n"
    assert not cli.home.exists()


def test_run_escapes_names_as_b3sum_does(cli: Cli) -> None:
    cli.slice("a\nb\\c")
    assert cli.ok("compute", "run", "a\nb\\c") == f"\\{HELLO}  a\\nb\\\\c\n"


def test_run_reads_stdin_in_its_turn(cli: Cli) -> None:
    cli.slice()
    out = cli.ok("compute", "run", "a.slice", "-", "a.slice", stdin=b"")
    assert out == f"{HELLO}  a.slice\n{EMPTY}  -\n{HELLO}  a.slice\n"


def test_run_takes_the_slices_of_a_job_file(cli: Cli) -> None:
    cli.slice()
    path = cli.directory / "job.json"
    path.write_text(json.dumps({"job_id": "x", "slices": ["a.slice", {"path": "a.slice"}]}))
    name = cli.directory / "a.slice"
    assert cli.ok("compute", "run", path) == f"{HELLO}  {name}\n" * 2


def test_run_as_json(cli: Cli) -> None:
    cli.slice()
    one = {"path": "a.slice", "digest": HELLO, "bytes": 5}
    assert cli.document("compute", "run", "a.slice") == one
    assert cli.document("compute", "run", "a.slice", "a.slice") == [one, one]
    assert cli("compute", "run", "a.slice", "a.slice", "--jsonl").jsonl == [one, one]


def test_run_goes_on_after_a_file_that_fails(cli: Cli) -> None:
    cli.slice()
    done = cli("compute", "run", "nope", "a.slice")
    assert done == (
        7,
        f"{HELLO}  a.slice\n",
        "error[usage]: nope: no such file\n1 of 2 failed: 1 missing\n",
    )
    assert cli("compute", "run", "nope") == (2, "", "error[usage]: nope: no such file\n")


@pytest.mark.parametrize("workload", ["transcode", "inference", "gpu_hash"])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_run_hashes_alike_for_every_workload_and_any_workers(
    cli: Cli, workload: str, workers: str
) -> None:
    paths = [cli.slice(f"s{n}", bytes([n]) * n) for n in range(1, 20)]
    expected = cli.ok("compute", "run", *paths)
    options = ("--workload", workload, "--workers", workers)
    assert cli.ok("compute", "run", *paths, *options) == expected


def test_run_of_an_unknown_workload_is_usage(cli: Cli) -> None:
    cli.slice()
    done = cli("compute", "run", "a.slice", "--workload", "nope")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: unknown workload 'nope': known are ")


def test_run_prints_names_that_are_not_utf_8_as_they_are(cli: Cli) -> None:
    names = [b"a.slice", b"b\xff.slice", b"c.slice"]
    for name in names:
        with open(os.fsencode(cli.directory) + b"/" + name, "wb") as file:
            file.write(b"hello")
    command = [os.fsencode(word) for word in cli.command("compute", "run")]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    for options in ([], [b"--workers", b"1"]):
        done = subprocess.run([*command, *names, *options], capture_output=True, env=strict)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"".join(HELLO.encode() + b"  " + name + b"\n" for name in names)
    done = subprocess.run([*command, *names, b"--jsonl"], capture_output=True, env=strict)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        "a.slice",
        "b\\xff.slice",
        "c.slice",
    ]


def test_run_of_a_job_file_takes_a_slice_called_dash_for_a_file(cli: Cli) -> None:
    cli.slice("-", b"hello")
    cli.slice("job.json", json.dumps({"slices": ["-"]}).encode())
    assert cli.ok("compute", "run", "job.json", stdin=b"not this") == f"{HELLO}  ./-\n"


ZEROS = "00" * 32


def job_file(cli: Cli, name: str = "job.json", **fields: Any) -> str:
    cli.slice()
    cli.slice(name, json.dumps({"slices": ["a.slice"]} | fields).encode())
    return name


@pytest.mark.parametrize(
    ("own", "options", "digest"),
    [
        ({"workload": "zeros"}, (), ZEROS),
        ({"workload": "inference"}, (), HELLO),
        ({}, (), HELLO),
        ({"workload": "zeros"}, ("--workload", "inference"), HELLO),
        ({"workload": "inference"}, ("--workload", "zeros"), ZEROS),
        ({}, ("--workload", "zeros"), ZEROS),
        ({"workload": "nope"}, ("--workload", "zeros"), ZEROS),
        ({"workload": 5}, ("--workload", "zeros"), ZEROS),
    ],
)
def test_run_of_a_job_file_runs_its_workload_unless_told_otherwise(
    cli: Cli, plugin: ModuleType, own: dict[str, Any], options: tuple[str, ...], digest: str
) -> None:
    path = job_file(cli, **own)
    assert cli.ok("compute", "run", path, *options) == f"{digest}  a.slice\n"


def test_run_of_several_workloads_keeps_the_order(cli: Cli, plugin: ModuleType) -> None:
    slices = ["a.slice", "b.slice"]
    cli.slice("b.slice", b"")
    zeros = job_file(cli, "zeros.json", slices=slices, workload="zeros")
    hashed = job_file(cli, "hashed.json", slices=slices, workload="gpu_hash")
    words = (zeros, "a.slice", zeros, "-", zeros, "nope", hashed, "b.slice")
    done = cli("compute", "run", *words, stdin=b"hello")
    both_zeros = f"{ZEROS}  a.slice\n{ZEROS}  b.slice\n"
    both = f"{HELLO}  a.slice\n{EMPTY}  b.slice\n"
    assert done == (
        7,
        f"{both_zeros}{HELLO}  a.slice\n{both_zeros}{HELLO}  -\n{both_zeros}{both}"
        f"{EMPTY}  b.slice\n",
        "error[usage]: nope: no such file\n1 of 12 failed: 1 missing\n",
    )


@pytest.mark.parametrize("others", [(), ("a.slice",), ("-",)])
def test_run_of_a_job_file_with_an_unknown_workload_runs_nothing(
    cli: Cli, others: tuple[str, ...]
) -> None:
    done = cli("compute", "run", *others, job_file(cli, workload="nope"))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: unknown workload 'nope': known are ")
    done = cli("compute", "run", *others, "job.json", "--json")
    assert (done.code, done.out, done.error["reason"]) == (2, "", "unknown_workload")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"slices": []}, "lists no slices"),
        ({"slices": None}, "lists no slices"),
        ({"slices": ""}, "lists no slices"),
        ({"slices": "a.slice"}, "slices: expected a list, got text"),
        ({"slices": {"a": "b"}}, "slices: expected a list, got an object"),
        ({"slices": [5]}, "slices[0]: expected text or an object, got a whole number"),
        ({"workload": 5}, "workload: expected text, got a whole number"),
        ({"workload": None}, "workload: expected text, got null"),
    ],
)
def test_run_of_a_job_file_that_is_wrong_runs_nothing(
    cli: Cli, fields: dict[str, Any], says: str
) -> None:
    done = cli("compute", "run", "a.slice", job_file(cli, **fields))
    assert done == (2, "", f"error[usage]: job.json: {says}\n")


def test_run_of_a_job_file_with_slices_given_twice_runs_nothing(cli: Cli) -> None:
    cli.slice("job.json", b'{"slices": ["a"], "slices": ["b"]}')
    done = cli("compute", "run", "job.json")
    assert done == (2, "", "error[usage]: job.json: the key 'slices' is given twice\n")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b'{"slices": ["a.slice"]', b"{}", b"[]", b'["slices"]', b'"slices"', b"5"),
        *(b"null", b'{"slice": ["a.slice"]}', b'{"a": {"slices": []}}', b"\xff", b"\0"),
        *(b"[" * 100_000, b'{"_slices": ["a.slice"]}', b"9" * 5000),
    ],
    ids=lambda content: content.decode(errors="replace")[:30],
)
def test_run_hashes_a_json_file_that_is_no_job_as_any_other(cli: Cli, content: bytes) -> None:
    cli.slice("a.slice", content)
    cli.slice("other.json", content)
    expected = cli.ok("compute", "run", "a.slice")[:64]
    assert cli.ok("compute", "run", "other.json") == f"{expected}  other.json\n"


def test_run_hashes_a_job_file_that_is_too_long_as_any_other(cli: Cli) -> None:
    content = json.dumps({"slices": ["a.slice"]}).encode().ljust(64 * MIB + 1)
    cli.slice("long.json", content)
    expected = cli.ok("compute", "run", "-", stdin=content)[:64]
    assert cli.ok("compute", "run", "long.json") == f"{expected}  long.json\n"


def missing(path: Path) -> str:
    return "no such file"


def directory(path: Path) -> str:
    path.mkdir()
    return "not a regular file but a directory"


def fifo(path: Path) -> str:
    os.mkfifo(path)
    return "not a regular file but a FIFO"


@pytest.mark.parametrize("bad", [missing, directory, fifo])
def test_run_goes_on_after_a_json_file_that_cannot_be_read(cli: Cli, bad: Any) -> None:
    text = f"error[usage]: bad.json: {bad(cli.directory / 'bad.json')}\n"
    assert cli("compute", "run", "bad.json") == (2, "", text)
    done = cli("compute", "run", job_file(cli), "bad.json", "a.slice")
    counted = "1 of 3 failed: 1 missing\n" if bad is missing else "1 of 3 failed: 1 not_a_file\n"
    assert done == (7, f"{HELLO}  a.slice\n" * 2, f"{text}{counted}")


def test_run_of_another_workload_over_stdin_is_usage(cli: Cli, plugin: ModuleType) -> None:
    done = cli("compute", "run", "-", "--workload", "zeros", stdin=b"hello")
    text = "error[usage]: -: workload 'zeros' runs over files, not over standard input\n"
    assert done == (2, "", f"{text}hint: write it to a file first\n")


@pytest.mark.parametrize("options", ["", " --workers 1"])
def test_run_of_stdin_that_is_closed_is_usage(cli: Cli, options: str) -> None:
    cli.slice()

    def run(words: str) -> tuple[int, str, str]:
        line = f'"$0" -m tb_cli.entry compute run{options} {words} <&-'
        shell = ["bash", "-c", line, cli.command()[0]]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    text = "error[usage]: standard input is closed\n"
    assert run("-") == (2, "", text)
    assert run("- a.slice") == (7, f"{HELLO}  a.slice\n", f"{text}1 of 2 failed: 1 usage\n")
    code, out, err = run("- --json")
    assert (code, out, json.loads(err)["error"]) == (2, "", "usage")
    assert run("a.slice") == (0, f"{HELLO}  a.slice\n", "")


RUN = [
    ("a.slice",),
    ("a.slice", "b.slice", "a.slice"),
    ("-",),
    ("-", "-"),
    ("a.slice", "-", "nope", "b.slice"),
    ("nope",),
    ("nope", "nope"),
    ("nope", "a.slice", "directory"),
    ("",),
    ("a\nb\\c",),
    ("job.json",),
    ("a.slice", "job.json", "-"),
    ("empty.json",),
    ("broken.json",),
    ("nope.json",),
    ("a.slice", "--json"),
    ("--json", "a.slice", "b.slice", "nope"),
    ("nope", "--json"),
    ("job.json", "--jsonl"),
    ("a.slice", "--jsonl", "nope", "-"),
    ("nope", "--jsonl"),
    ("a.slice", "b.slice", "--json", "--jsonl"),
    ("long", "a.slice", "middling"),
    tuple(f"s{number % 10}" for number in range(1500)),
    (*(f"s{number % 10}" for number in range(1500)), "nope"),
    (*("a.slice", "long") * 3, "-", *("middling", "nope") * 3),
]


@pytest.mark.parametrize("words", RUN, ids=lambda words: " ".join(words)[:60])
def test_run_tells_the_same_from_threads(cli: Cli, words: tuple[str, ...]) -> None:
    """Many short files go to processes, unless a number of threads is asked for."""
    cli.slice()
    cli.slice("b.slice", b"")
    cli.slice("a\nb\\c", b"escaped")
    cli.slice("middling", bytes(100_000))
    cli.slice("long", bytes(MIB + 1))
    for number in range(10):
        cli.slice(f"s{number}", str(number).encode())
    (cli.directory / "directory").mkdir()
    slices = ["a.slice", {"path": "b.slice"}]
    (cli.directory / "job.json").write_text(json.dumps({"slices": slices}))
    (cli.directory / "empty.json").write_text("{}")
    (cli.directory / "broken.json").write_text("{")
    stdin = b"from stdin"
    done = cli("compute", "run", *words, stdin=stdin)
    assert done.out + done.err != ""
    assert cli("compute", "run", "--workers", "2", *words, stdin=stdin) == done
    assert not cli.home.exists()


OTHER = "1" * 64


def test_check_takes_what_run_prints(cli: Cli) -> None:
    names = ["a.slice", "a\nb\\c", "with  two blanks", "-"]
    for name in names:
        cli.slice(name)
    sums = cli.ok("compute", "run", *names[:3], "./-")
    expected = "a.slice: OK\n\\a\\nb\\\\c: OK\nwith  two blanks: OK\n./-: OK\n"
    assert cli.ok("compute", "run", "--check", "-", stdin=sums) == expected
    (cli.directory / "SUMS").write_text(sums.replace("\n", "\r\n"))
    assert cli.ok("compute", "run", "--check", "SUMS", "--workers", "1") == expected
    assert cli.ok("compute", "run", "--check", "--quiet", "SUMS") == ""
    assert cli.ok("compute", "run", "--check", "--status", "SUMS") == ""
    assert not cli.home.exists()


def test_check_tells_what_does_not_match_and_what_is_not_there(cli: Cli) -> None:
    cli.slice()
    sums = f"{OTHER}  a.slice\n{HELLO}  gone\n{HELLO.upper()}  a.slice\n"
    wrong = "a.slice: FAILED\ngone: FAILED (no such file)\n"
    warned = "warning: 1 of 3 sums did not match\nwarning: 1 of 3 files could not be read\n"
    check = ("compute", "run", "--check")
    assert cli(*check, "-", stdin=sums) == (9, f"{wrong}a.slice: OK\n", warned)
    assert cli(*check, "-", "--quiet", stdin=sums) == (9, wrong, warned)
    assert cli(*check, "-", "--status", stdin=sums) == (9, "", "")
    assert cli(*check, "-", stdin=f"{HELLO}  gone\n").code == 9
    found = cli(*check, "-", "--jsonl", stdin=sums).jsonl
    assert found[0] == {
        "path": "a.slice",
        "ok": False,
        "expected": OTHER,
        "digest": HELLO,
        "bytes": 5,
    }
    assert (found[1]["ok"], found[1]["error"]["reason"]) == (False, "missing")
    assert found[2]["ok"]
    assert cli(*check, "-", "--json", stdin=sums).json == found


@pytest.mark.parametrize(
    "line",
    [
        f"{HELLO[:63]}  a.slice",
        f"{HELLO} a.slice",
        f"{HELLO}  ",
        f"{HELLO}  a\0b",
        f"\\{HELLO}  a\\tb",
        f"\\{HELLO}  a\\",
        "g" * 64 + "  a.slice",
        "x" * 70_000,
    ],
)
def test_check_names_a_line_that_is_no_sum(cli: Cli, line: str) -> None:
    cli.slice()
    done = cli("compute", "run", "--check", "-", stdin=f"{HELLO}  a.slice\n\n{line}\n")
    assert (done.code, done.out) == (2, "a.slice: OK\n")
    assert done.err.startswith("error[usage]: stdin line 3: is no sum\n")
    assert done.err.endswith("warning: 1 of 2 lines are no sums\n")


def test_check_tells_the_first_line_of_a_list_that_is_no_sum_and_counts_them(cli: Cli) -> None:
    cli.slice()
    (cli.directory / "bad").write_text("y\n" * 5)
    (cli.directory / "worse").write_text(f"{HELLO}  a.slice\n" + "y\n" * 1000)
    done = cli("compute", "run", "--check", "bad", "worse")
    assert done == (
        2,
        "a.slice: OK\n",
        "error[usage]: bad line 1: is no sum\n"
        "hint: HEX, two blanks and PATH, as b3sum prints it\n"
        "error[usage]: worse line 2: is no sum\n"
        "warning: 1005 of 1006 lines are no sums\n",
    )


def test_check_goes_through_all_lists_that_can_be_read(cli: Cli) -> None:
    """What did not match is not lost to a list that cannot be read."""
    cli.slice()
    for name, sums in (("bad", WRONG), ("good", HELLO)):
        (cli.directory / name).write_text(f"{sums}  a.slice\n")
    (cli.directory / "empty").write_text("")
    told = "error[usage]: nope: no such file or directory\nerror[usage]: empty: has no sums\n"
    check = ("compute", "run", "--check")
    done = cli(*check, "bad", "nope", "empty", "good")
    assert done == (
        9,
        "a.slice: FAILED\na.slice: OK\n",
        f"{told}warning: 1 of 2 sums did not match\n",
    )
    assert cli(*check, "nope", "good", "empty") == (2, "a.slice: OK\n", told)
    done = cli(*check, "bad", "nope", "good", "--json")
    assert (done.code, [each["ok"] for each in done.json]) == (9, [False, True])


def test_check_of_no_sums_is_usage(cli: Cli) -> None:
    cli.slice()
    done = cli("compute", "run", "--check", "-", stdin="")
    assert done == (2, "", "error[usage]: stdin: has no sums\n")
    assert cli("compute", "run", "--check", "nope").code == 2
    done = cli("compute", "run", "--check", "nope", "--json")
    assert (done.code, done.out, done.error["error"]) == (2, "[]\n", "usage")
    done = cli("compute", "run", "a.slice", "--quiet")
    assert done == (2, "", "error[usage]: --quiet goes with --check\n")
    done = cli("compute", "run", "a.slice", "--status")
    assert (done.code, done.out) == (2, "")


def test_check_runs_the_workload_that_is_named(cli: Cli, plugin: ModuleType) -> None:
    cli.slice()
    sums = cli.ok("compute", "run", "a.slice", "--workload", "zeros")
    assert cli("compute", "run", "--check", "-", stdin=sums).code == 9
    checked = cli.ok("compute", "run", "--check", "-", "--workload", "zeros", stdin=sums)
    assert checked == "a.slice: OK\n"


def test_check_of_names_that_are_not_utf_8(cli: Cli) -> None:
    with open(os.fsencode(cli.directory) + b"/b\xff.slice", "wb") as file:
        file.write(b"hello")
    line = HELLO.encode() + b"  b\xff.slice\n"
    done = subprocess.run(
        cli.command("compute", "run", "--check", "-"), input=line, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"b\xff.slice: OK\n", b"")
