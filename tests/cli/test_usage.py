"""What is wrong with a line is told once, in the operator's terms, by whatever verb."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_market.quantities import in_unit
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.values import bounds_of, called, metavar_of
from tb_cli.frame.verbs import Parameter, parameters_of
from tests.support.cli import Cli, Done, Prepared
from tests.support.verbs import EACH, VERBS, Path_, arguments_of

pytest_plugins = ("tests.support.cli",)

# What an operator never reads: names of libraries, types and attributes of Python, patterns.
BLOCKED = re.compile(
    r"msgspec|pydantic|typer|click|Traceback|Object |object at|Expected `|`(int|str|array|bool)`"
    r"|int range|\\\\?Z\b|\[0-9|\^\[|NoneType|UnsetType|<class|dict\b|\$\.|ValueError|TypeError"
    r"|Invalid value|Missing (option|argument)|decimal\.D|kwargs|argv"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("home"), lambda cli: cli.active("j1", "j2"))


@pytest.fixture
def market(cli: Cli, home: Prepared) -> Cli:
    home.copy_to(cli)
    return cli


def refused(cli: Cli, *words: str, stdin: str = "") -> tuple[str, str]:
    """The error and the hint of a line that is wrong: one of each at most, and nothing changed."""
    before = cli.files()
    done: Done = cli(*words, stdin=stdin)
    assert done.code == 2, done
    assert cli.files() == before
    error, *hints = done.err.splitlines()
    assert error.startswith("error[usage]: "), done.err
    assert len(hints) <= 1
    hint = hints[0] if hints else ""
    assert not hints or hint.startswith("hint: ")
    assert not BLOCKED.search(done.err), done.err
    assert len(error) < 400
    return error.removeprefix("error[usage]: "), hint.removeprefix("hint: ")


def options(path: Path_) -> Iterator[Parameter]:
    """The options of a verb; of one those that all have, too."""
    yield from (each for each in parameters_of(VERBS[path].function()) if each.spellings)
    if path == ("compute", "cancel"):
        yield from (JSON, *GLOBAL, DRY_RUN)


@EACH
def test_value_that_is_none_is_told_by_its_option(cli: Cli, path: Path_) -> None:
    for each in options(path):
        spelling = each.spellings[0]
        if each.kind == "choice":
            error, hint = refused(cli, *path, spelling, f"{each.choices[0]}x")
            assert error == f"{spelling}: '{each.choices[0]}x' is none of {', '.join(each.choices)}"
            assert hint == f"did you mean {each.choices[0]}?"
        elif each.kind in ("integer", "signed", "number"):
            for text in ("x", "1e3", "", "1_0"):
                error, hint = refused(cli, *path, f"{spelling}={text}")
                noun = "is no duration" if each.unit == "seconds" else "is no "
                assert error.startswith(f"{spelling}: {text!a} {noun}")
                assert hint
            if each.most is not None:
                error, _ = refused(cli, *path, spelling, str(each.most + 1))
                assert error.startswith(f"{spelling}: {each.most + 1} is not {each.least}…")
        elif each.kind == "flag":
            assert refused(cli, *path, f"{spelling}=1")[0] == f"{spelling} takes no value"
        if each.kind != "flag" and each.bare is None:
            error, hint = refused(cli, *path, spelling)
            assert error == f"{spelling} is given without a value"
            assert hint == f"see `tb-cli {' '.join(path)} --help`"
        if each.kind != "flag" and not each.many and each.kind != "choice":
            error, _ = refused(cli, *path, spelling, "1", spelling, "1")
            assert error in (
                f"{spelling} is given twice, and takes one value",
                f"{spelling}: 1 is not {each.least}…{each.most}",
            )


@EACH
def test_what_is_missing_is_told_as_it_is_spelled(cli: Cli, path: Path_) -> None:
    must = [each for each in parameters_of(VERBS[path].function()) if each.required]
    if must:
        error, hint = refused(cli, *path)
        assert error in [f"{called(each)} is missing" for each in must]
        assert hint == f"see `tb-cli {' '.join(path)} --help`"


@EACH
def test_slip_in_an_option_is_told_the_one_that_is_meant(cli: Cli, path: Path_) -> None:
    for each in options(path):
        if len(each.spellings[0]) < 6:
            continue
        slip = f"{each.spellings[0]}z"
        error, hint = refused(cli, *arguments_of(path), slip)
        assert error == f"`tb-cli {' '.join(path)}` has no option {slip}"
        assert hint == f"did you mean {each.spellings[0]}?"


@EACH
def test_option_before_the_command_is_told_where_it_goes(cli: Cli, path: Path_) -> None:
    if len(path) == 1 or path[-1] == "show" or path == ("serve", "run"):
        return  # At the top it may stand there, and `params --json` is `params show --json`.
    line = shlex.join(("tb-cli", *path, "--json"))
    for at in range(1, len(path)):
        error, hint = refused_json(cli, *path[:at], "--json", *path[at:])
        assert error == "--json stands before the command"
        assert hint == f"it goes after it: `{line}`"


def refused_json(cli: Cli, *words: str) -> tuple[str, str]:
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    error = done.error
    return error["message"], error["hint"]


JOB = {
    "job_id": "a",
    "buyer": "b",
    "workload": "transcode",
    "slices": ["a.slice"],
    "max_price_per_unit": 1,
}
OFFER = {"provider": "p", "units": 1, "price_per_unit": 3}
ZEROS = "0" * 64


@pytest.mark.parametrize(
    ("fields", "error", "hint"),
    [
        ({"price": 3}, "unknown field price", "did you mean max_price_per_unit?"),
        ({"max-price": 3}, "unknown field max-price", "did you mean max_price_per_unit?"),
        ({"bond": 3}, "unknown field bond", "did you mean consumer_bond?"),
        ({"slice": ["a"]}, "unknown field slice", "did you mean slices?"),
        ({"priorty": "low"}, "unknown field priorty", "did you mean priority?"),
        ({"Buyer": "x"}, "unknown field Buyer", "did you mean buyer?"),
        ({"cpu_cores": 3}, "unknown field cpu_cores", "did you mean capability.cpu_cores?"),
        ({"gpu": "A"}, "unknown field gpu", "did you mean capability.gpu?"),
        ({"zzz": 1}, "unknown field zzz", ""),
        ({"capability": {"gpus": 1}}, "capability: unknown field gpus", "did you mean gpu?"),
        ({"slices": [{"path": "a", "ref": 1}]}, "slices[0]: unknown field ref", None),
        ({"max_price_per_unit": -1}, "max_price_per_unit is below 0", ""),
        ({"max_price_per_unit": 2**70}, f"max_price_per_unit is above {2**63 - 1}", ""),
        ({"max_price_per_unit": None}, "max_price_per_unit: expected a whole number, got null", ""),
        ({"slices": []}, "slices is empty", ""),
        (
            {"slices": [{"path": "a", "reference": "zz"}]},
            "slices[0].reference: expected 64 hex digits",
            "",
        ),
        ({"priority": "urgent"}, "priority: 'urgent' is none of high, normal, low", ""),
        ({"lane": "fast"}, "lane: 'fast' is none of industrial, consumer", ""),
        ({"capability": {"gpu": "A" * 65}}, "capability.gpu has more than 64 characters", ""),
        ({"capability": {"gpu": ["A"] * 33}}, "capability.gpu has more than 32 entries", ""),
        (
            {"capability": {"gpu": "A "}},
            "capability.gpu: expected printable ASCII with no blank at either end",
            "",
        ),
    ],
)
def test_field_of_a_job_file_is_told_by_its_name(
    market: Cli, fields: dict[str, object], error: str, hint: str | None
) -> None:
    found, told = refused(market, "compute", "submit", "-", stdin=json.dumps(JOB | fields))
    assert found == f"stdin: {error}"
    assert hint is None or told == hint


@pytest.mark.parametrize(
    ("fields", "error", "hint"),
    [
        ({"price": 3}, "unknown field price", "did you mean price_per_unit?"),
        ({"bond": 3}, "unknown field bond", "did you mean provider_bond?"),
        ({"multiplier": 1}, "unknown field multiplier", "did you mean reputation_multiplier?"),
        (
            {"gpu_memory_mb": 1},
            "unknown field gpu_memory_mb",
            "did you mean capability.gpu_memory_mb?",
        ),
        ({"units": [5]}, "units: expected a whole number, got a list", ""),
        ({"units": "five"}, "units: expected a whole number, got text", ""),
        ({"units": True}, "units: expected a whole number, got true or false", ""),
    ],
)
def test_field_of_an_offer_file_is_told_by_its_name(
    market: Cli, fields: dict[str, object], error: str, hint: str
) -> None:
    stdin = json.dumps(OFFER | fields)
    assert refused(market, "compute", "offer", "post", "-", stdin=stdin) == (
        f"stdin: {error}",
        hint,
    )


@pytest.mark.parametrize("field", JOB)
def test_missing_field_of_a_file_is_told_with_the_option_for_it(market: Cli, field: str) -> None:
    text = json.dumps({name: value for name, value in JOB.items() if name != field})
    spelling = {"slices": "--slice", "max_price_per_unit": "--max-price"}.get(
        field, f"--{field.replace('_', '-')}"
    )
    assert refused(market, "compute", "submit", "-", stdin=text) == (
        f"stdin: {field} is missing",
        f"it goes into the file, or is given with {spelling}",
    )


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("submit",), "--job-id"),
        (("submit", "--job-id", "a", "--buyer", "b", "--workload", "transcode"), "--slice"),
        (("submit", "--job-id", "a", "--slice", "a.slice"), "--buyer"),
        (("offer", "post"), "--provider"),
        (("offer", "post", "--provider", "p", "--units", "1"), "--price"),
    ],
)
def test_missing_term_is_told_as_an_option_where_there_is_no_file(
    market: Cli, words: tuple[str, ...], missing: str
) -> None:
    assert refused(market, "compute", *words)[0] == f"{missing} is missing"


def test_bad_line_of_many_is_told_by_line_and_column(market: Cli) -> None:
    lines = [
        json.dumps(JOB | {"job_id": "good"}),
        '{"job_id": "b", "buyer": }',
        "",
        json.dumps(JOB | {"price": 2}),
        '{"job_id": "c"',
        "not json",
    ]
    Path("jobs.jsonl").write_text("\n".join(lines) + "\n")
    for path, stdin, name in (("jobs.jsonl", "", "jobs.jsonl"), ("-", "\n".join(lines), "stdin")):
        done = market("compute", "submit", path, "-n", stdin=stdin)
        assert done.code == 7
        assert [line.removeprefix("dry_run: ") for line in done.out.splitlines()[1:]] == [
            f"{name} line 2, column 26: expected a value",
            f"{name} line 4: unknown field price: did you mean max_price_per_unit?",
            f"{name} line 5, column 15: expected a comma or the end",
            f"{name} line 6, column 1: expected a JSON object",
        ]
        assert "hint: usage" not in done.err
        assert not BLOCKED.search(done.out + done.err)


def test_bad_object_over_several_lines_is_told_by_line_and_column(market: Cli) -> None:
    error, _ = refused(market, "compute", "submit", "-", stdin='{\n"job_id": "a",\n"buyer": }\n')
    assert error == "stdin: line 3, column 10: expected a value"


@pytest.mark.parametrize("content", [b"\xff\x00\x01", b"RIFF of a film", b"\x00" * 99])
def test_slice_in_the_place_of_a_job_file_is_told(market: Cli, content: bytes) -> None:
    market.slice("x.slice", content)
    error, hint = refused(market, "compute", "submit", "x.slice")
    assert error.startswith("x.slice: ")
    assert hint == "a file of jobs is JSON; slices are given with --slice"


def test_command_of_a_group_is_found_without_its_group(cli: Cli) -> None:
    for words, meant in (
        (("cancle", "j1"), "compute cancel"),
        (("compute", "cancle", "j1"), "compute cancel"),
        (("balanec", "a"), "wallet balance"),
        (("help", "compute", "cancle"), "compute cancel"),
    ):
        error, hint = refused(cli, *words)
        assert error.startswith("No such command ")
        assert hint == f"did you mean `tb-cli {meant}`?"


# Durations and sizes.

_OF_TIME = re.compile(r"secs|timeout|age\b|interval|duration|delay(?!-blocks)|max-time|watch")
_OF_SIZE = re.compile(r"bytes|-mb$|-gib$|memory|size")


@EACH
def test_every_time_and_size_is_written_as_people_do(path: Path_) -> None:
    for each in options(path):
        says = f"{each.spellings[0]} {each.help}"
        if each.kind in ("integer", "number") and re.search(
            r"\b(?<!unix )(second|sec|ms|MB|byte)", says
        ):
            assert each.unit is not None, each.spellings
        if _OF_TIME.search(each.spellings[0]) and each.kind != "flag":
            assert each.unit in ("seconds", "milliseconds"), each.spellings
        if _OF_SIZE.search(each.spellings[0]) and each.kind != "flag":
            assert each.unit in ("bytes", "MB", "GiB"), each.spellings
        if each.unit is not None:
            assert in_unit("1", each.unit) == 1
            assert metavar_of(each).strip("[]") in ("DURATION", "SIZE")


@pytest.mark.parametrize(
    ("words", "option", "written", "bare"),
    [
        (("compute-market", "sla", "extend"), "--by", "1h30m", "5400"),
        (("compute", "list"), "--lock-timeout", "2m", "120"),
        (("compute", "list"), "--lock-timeout", "500ms", "0.5"),
        (("compute", "wait", "j1"), "--timeout", "0s", "0"),
        (("compute", "set", "j1", "-n"), "--deadline-secs", "2d", "172800"),
        (("compute", "explain"), "--gpu-memory-mb", "24GiB", "24576"),
        (("compute", "explain"), "--deadline-secs", "3d", "259200"),
    ],
)
def test_duration_and_size_mean_what_their_number_means(
    market: Cli, words: tuple[str, ...], option: str, written: str, bare: str
) -> None:
    one, other = (market(*words, option, value, "--json") for value in (written, bare))
    market.audited = False
    assert one.code == other.code
    if words[-1] != "extend":
        assert one == other


def test_deadline_and_memory_of_a_job_are_what_was_written(market: Cli) -> None:
    done = market.submit("j9", "--deadline-secs", "2h", "--wait", "--gpu-memory-mb", "24GiB")
    assert (done["deadline"], done["capability"]["gpu_memory_mb"]) == (market.now + 7200, 24_576)


@EACH
def test_help_marks_what_must_be_given_and_says_nothing_of_python(cli: Cli, path: Path_) -> None:
    shown = cli.ok(*path, "--help")
    assert not BLOCKED.search(shown), shown
    head = shown.splitlines()[0]
    for each in parameters_of(VERBS[path].function()):
        name = each.spellings[0] if each.spellings else str(each.metavar)
        assert name in shown
        if each.required:
            assert name in head
            assert "required]" in shown
        if (bounds := bounds_of(each)) is not None:
            assert bounds in shown
    assert not [line for line in shown.splitlines()[1:] if len(line) > 100 and "tb-cli" not in line]


def test_option_behind_dashes_is_told_to_be_a_value(market: Cli) -> None:
    for line, word in (
        ("net reputation adjust p -- -5 --reason x", "--reason"),
        ("wallet history -- a --limit=5", "--limit=5"),
    ):
        error, hint = refused(market, *line.split())
        assert error == f"{word} stands behind --, where it is a value and no option"
        assert hint == "options stand before --"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "compute-market params propose min_capacity -1",
            "VALUE: min_capacity: -1 is not 1…10000 units per second",
        ),
        ("compute list --watch -1", "--watch -1 is not 0.1…86400 seconds"),
        ("compute list --watch=-0.5", "--watch -0.5 is not 0.1…86400 seconds"),
        ("compute-market capacity record -5", "N: -5 is not 0…1000000000000000"),
        ("compute prove j1 -1 aa", "INDEX: -1 is not 0…9223372036854775807"),
        ("compute cancel -1", "job id '-1' has the character '-'"),
        ("compute list -5", "unexpected argument '-5'"),
        ("compute cancel -1 -x", "`tb-cli compute cancel` has no option -x"),
        ("compute cancel -1 --foo", "`tb-cli compute cancel` has no option --foo"),
    ],
)
def test_number_below_zero_is_a_value(market: Cli, line: str, told: str) -> None:
    assert refused(market, *line.split())[0] == told
