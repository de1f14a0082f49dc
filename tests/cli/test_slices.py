"""`compute slices`."""

import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from tests.support.cli import MIB, Cli, without

pytest_plugins = ("tests.support.cli",)

CONTENTS = [b"one", bytes(MIB + 1), b"three"]
DIGESTS = [blake3(content).hexdigest() for content in CONTENTS]


@pytest.fixture
def paths(cli: Cli) -> list[Path]:
    """Those of an active job, of which the second slice is proven."""
    cli.post()
    found = [cli.slice(f"s{number}", content) for number, content in enumerate(CONTENTS)]
    cli.submit("j1", slices=found)
    cli.ok("compute", "prove", "j1", "1", DIGESTS[1])
    return found


def test_slices_lists_each_with_the_digest_once_it_is_proven(cli: Cli, paths: list[Path]) -> None:
    expected = [
        {"index": 0, "path": str(paths[0]), "bytes": 3, "units": 1, "proven_at": None},
        {
            "index": 1,
            "path": str(paths[1]),
            "bytes": MIB + 1,
            "units": 2,
            "proven_at": cli.now,
            "digest": DIGESTS[1],
        },
        {"index": 2, "path": str(paths[2]), "bytes": 5, "units": 1, "proven_at": None},
    ]
    assert cli.document("compute", "slices", "j1") == expected
    assert cli("compute", "slices", "j1", "--jsonl").jsonl == expected
    assert cli.ok("compute", "slices", "j1") == (
        f"0\t{paths[0]}\t3\t1\t-\t-\n"
        f"1\t{paths[1]}\t{MIB + 1}\t2\t{cli.now}\t{DIGESTS[1]}\n"
        f"2\t{paths[2]}\t5\t1\t-\t-\n"
    )


def test_slices_unproven_are_what_is_left(cli: Cli, paths: list[Path]) -> None:
    assert [row[0] for row in cli("compute", "slices", "j1", "--unproven").rows] == ["0", "2"]
    assert [
        row[0] for row in cli("compute", "slices", "j1", "--unproven", "--limit", "1").rows
    ] == ["0"]
    cli.ok("compute", "execute", "j1")
    assert cli.ok("compute", "slices", "j1", "--unproven") == ""
    assert [entry["digest"] for entry in cli.document("compute", "slices", "j1")] == DIGESTS


def test_slices_references_are_the_buyers_own_view(cli: Cli, paths: list[Path]) -> None:
    found = cli.document("compute", "slices", "j1", "--references")
    assert [entry["reference"] for entry in found] == DIGESTS
    assert [entry.get("digest") for entry in found] == [None, DIGESTS[1], None]
    rows = cli("compute", "slices", "j1", "--references", "--unproven").rows
    assert [row[-2:] for row in rows] == [["-", DIGESTS[0]], ["-", DIGESTS[2]]]


def test_slices_b3sum_is_what_b3sum_checks(cli: Cli, paths: list[Path]) -> None:
    sums = cli.ok("compute", "slices", "j1", "--b3sum")
    # Before it is proven a digest is nobody's but the buyer's.
    assert sums == f"{DIGESTS[1]}  {paths[1]}\n"
    every = cli.ok("compute", "slices", "j1", "--b3sum", "--references")
    assert every == cli.ok("compute", "run", *paths)
    left = cli.ok(
        "compute", "slices", "j1", "--b3sum", "--references", "--unproven", "--limit", "1"
    )
    assert left == f"{DIGESTS[0]}  {paths[0]}\n"
    assert cli.ok("compute", "slices", "j1", "--b3sum", "--unproven") == ""
    if missing := without("b3sum"):
        pytest.skip(missing)

    def check(text: str) -> int:
        command = ["b3sum", "--check"]
        return subprocess.run(command, input=text, text=True, capture_output=True).returncode

    assert (check(sums), check(every)) == (0, 0)
    paths[1].write_bytes(b"something else")
    assert check(sums) != 0


@pytest.mark.parametrize("name", ["a b", "back\\slash", "line\nbreak", "é"])
def test_slices_b3sum_takes_any_name(cli: Cli, name: str) -> None:
    if missing := without("b3sum"):
        pytest.skip(missing)
    cli.post()
    cli.submit("j1", slices=[cli.slice(name)])
    sums = cli.ok("compute", "slices", "j1", "--b3sum", "--references")
    done = subprocess.run(["b3sum", "--check"], input=sums, text=True, capture_output=True)
    assert done.returncode == 0, (sums, done)
    # A table of them has one line for each all the same.
    assert cli.ok("compute", "slices", "j1").count("\n") == 1


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_slices_b3sum_as_json_is_usage(cli: Cli, paths: list[Path], form: str) -> None:
    done = cli("compute", "slices", "j1", "--b3sum", form)
    assert (done.code, done.out) == (2, "")
    assert done.error["message"] == "--b3sum prints lines of text"


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_slices_go_on_over_the_page(
    cli: Cli, paths: list[Path], page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tb_cli.frame import paging

    monkeypatch.setattr(paging, "PAGE", page)
    assert [row[0] for row in cli("compute", "slices", "j1").rows] == ["0", "1", "2"]
    assert [row[0] for row in cli("compute", "slices", "j1", "--limit", "2").rows] == ["0", "1"]


def test_slices_of_what_there_is_not(cli: Cli) -> None:
    cli.ok("state", "init")
    error = "error[not_found]: job nope does not exist\nhint: see `tb-cli compute list`\n"
    for options in ((), ("--b3sum",), ("--references",)):
        assert cli("compute", "slices", "nope", *options) == (3, "", error)
    assert cli("compute", "slices", "no such").code == 2
    assert cli("compute", "slices", "j1", "--limit", "-1").code == 2
    assert cli("compute", "slices").code == 2


def test_slices_of_a_job_that_ended_are_told_all_the_same(cli: Cli, paths: list[Path]) -> None:
    cli.ok("compute", "cancel", "j1")
    assert [entry.get("digest") for entry in cli.document("compute", "slices", "j1")] == [
        *(None, DIGESTS[1], None),
    ]
