"""The plain way in: a line means there what it means to the parser, or it is left to the parser."""

import shlex
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_market.errors import UsageError
from tb_cli import app
from tb_cli.entry import call
from tb_cli.frame import plain
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.plain import Line
from tb_cli.frame.verbs import Parameter, examples_of, parameters_of
from tb_cli.tree import TREE
from tests.support.cli import Cli
from tests.support.effort import effort
from tests.support.verbs import EACH, VERBS, Path_

pytest_plugins = ("tests.support.cli",)

Words = list[str]


def parsed(words: Words) -> Line | None:
    """What the parser makes of a line; None if that is nothing to call a verb with."""
    found: list[Line] = []

    def perform(*line: Any) -> int:
        found.append(line[:-2])
        return 0

    with pytest.MonkeyPatch.context() as patched, suppress(UsageError):
        patched.setattr(app, "perform", perform)
        app.call(words)
    return found[0] if found else None


def declared(path: Path_) -> tuple[Parameter, ...]:
    verb = VERBS[path]
    shared = (JSON, DRY_RUN, *GLOBAL) if verb.writes else (JSON, *GLOBAL)
    return (*parameters_of(verb.function()), *shared)


def spelled(parameter: Parameter) -> list[str]:
    return [*parameter.spellings, *filter(None, (parameter.opposite,))]


TEXTS = st.sampled_from(["j1", "a b", "-", "", "0", "prov.x", "é", "\udcff", "a=b"]) | st.text(
    st.characters(exclude_characters="\0"), max_size=5
)
NUMBERS = st.integers(0, 2**64).map(str) | st.sampled_from(
    ["0", "1", "007", "00000000000000000000001", "1.5", "0.25", "30", "100"]
)
ODD = st.sampled_from(
    [
        *("--", "-h", "--help", "-n", "-nn", "--jso", "--json=1", "-1", "+5", "1_000", "1e3", " 7"),
        *("nan", "inf", "-inf", ".5", "5.", "0x10", "٣", "²", "--no-json", "-", "", "--version"),
        *("--limit=3", "--by=client", "extra", "--install-completion", "--debug=", "--home="),
    ]
)


def value(parameter: Parameter) -> st.SearchStrategy[str]:
    """A value that is right, on the whole."""
    if parameter.choices and parameter.many:
        some = st.lists(st.sampled_from((*parameter.choices, "wrong")), min_size=1, max_size=3)
        return some.map(",".join)
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    return TEXTS if parameter.kind == "text" else NUMBERS


def piece(parameter: Parameter) -> st.SearchStrategy[Words]:
    """The words of one parameter."""
    if not parameter.spellings:
        return st.lists(value(parameter), min_size=1, max_size=3 if parameter.many else 1)
    if parameter.kind == "flag":
        return st.sampled_from([[text] for text in spelled(parameter)])
    return st.tuples(st.sampled_from(spelled(parameter)), value(parameter)).map(list)


def joined(pieces: list[Words]) -> Words:
    return [word for each in pieces for word in each]


@cache
def lines(path: Path_) -> st.SearchStrategy[Words]:
    """A line for a verb: what it must have, what it may have and odd ends, in any order."""
    must = [piece(each) for each in declared(path) if each.required]
    may = st.one_of(*(piece(each) for each in declared(path)))
    spare = st.lists(may, max_size=4)
    odd = st.lists(ODD.map(lambda word: [word]), max_size=2)
    before = st.lists(st.one_of(*(piece(each) for each in GLOBAL)), max_size=2)
    plain_line = st.tuples(st.tuples(*must).map(list), spare).map(lambda parts: parts[0] + parts[1])
    odd_line = st.tuples(plain_line, odd).map(lambda parts: parts[0] + parts[1])
    rest = st.one_of(plain_line, odd_line).flatmap(st.permutations)
    return st.tuples(before, rest).map(lambda parts: [*joined(parts[0]), *path, *joined(parts[1])])


@EACH
@settings(max_examples=effort(8, 300))
@given(data=st.data())
def test_line_that_is_served_means_what_the_parser_takes_it_for(
    path: Path_, data: st.DataObject
) -> None:
    words = data.draw(lines(path))
    line = plain.read(TREE, words)
    if line is not None:
        assert line == parsed(words)


def example(parameter: Parameter) -> Words:
    """One right way to give a parameter."""
    if parameter.choices:
        text = ",".join(parameter.choices[-2 if parameter.many else -1 :])
    elif parameter.kind == "text":
        text = "a text"
    else:
        text = str(parameter.least or 3)
    if not parameter.spellings:
        return [text, "-", "b"] if parameter.many else [text]
    words = spelled(parameter)[-1:] + ([] if parameter.kind == "flag" else [text])
    return words * 2 if parameter.many else words


def test_line_that_gives_everything_is_served() -> None:
    for path in VERBS:
        words = [*path, *joined([example(each) for each in declared(path)])]
        line = plain.read(TREE, words)
        assert line is not None, path
        assert line == parsed(words)
        _, function, values, _ = line
        assert [*values] == [each.name for each in parameters_of(function)]
        # The same options before the command, but for those of the verb itself.
        first = joined([example(each) for each in GLOBAL])
        rest = joined([example(each) for each in declared(path) if each not in GLOBAL])
        assert plain.read(TREE, [*first, *path, *rest]) == line


def test_line_with_nothing_but_what_must_be_is_served() -> None:
    for path in VERBS:
        must = [example(each) for each in declared(path) if each.required]
        words = [*path, *joined(must)]
        line = plain.read(TREE, words)
        assert line is not None, path
        assert line == parsed(words)
        if must:  # A line without it is the parser's to answer, which says what is missing.
            assert plain.read(TREE, [*path, *joined(must[:-1])]) is None, path


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("compute",),
        ("nonsense",),
        ("compute", "nonsense"),
        ("--json", "compute", "list"),
        ("compute", "--home", "h", "list"),
        ("--version",),
        ("--home",),
        ("compute", "list", "-h"),
        ("compute", "list", "--help"),
        ("compute", "list", "extra"),
        ("compute", "list", "-n"),
        ("compute", "list", "--limit"),
        ("compute", "list", "--limit", "-1"),
        ("compute", "list", "--limit=3"),
        ("compute", "list", "--lim", "3"),
        ("compute", "list", "--priority", "urgent"),
        ("compute", "cancel", "--", "j1"),
        ("compute", "cancel", "j1", "--chunk", "0"),
        ("compute", "requirements", "j1", "j2"),
        ("wallet", "deposit", "a", "--ct", str(2**63)),
        ("wallet", "deposit", "a", "--ct", "1.5"),
        ("wallet", "deposit", "a", "--ct", "1", "--ct", "2"),
        ("wallet", "deposit", "a", "--ct", "٥"),
        ("wallet", "deposit", "a", "--ct", "1_000"),
    ],
    ids=" ".join,
)
def test_line_that_is_not_plain_is_left_to_the_parser(words: Path_) -> None:
    assert plain.read(TREE, list(words)) is None


def test_shell_that_asks_for_completion_is_left_to_the_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("_TB_CLI_COMPLETE", "complete_bash")
    assert plain.run(TREE, ["compute", "list"]) is None


def test_line_that_is_not_plain_is_answered_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["compute-market", "params", "--lock-timeout=1"]) == 0
    assert call(["compute-market", "params"]) == 0
    first, second = capsys.readouterr().out.split("}\n", 1)
    assert f"{first}}}\n" == second


EXAMPLES = [(path, line) for path in VERBS for line in examples_of(VERBS[path].function())]
# What chapters on prices, admission, governance, the subsidy and simulation are about.
SHOWN = {
    *(("compute-market", "params", name) for name in ("show", "propose", "approve", "rollback")),
    ("compute-market", "params", "history"),
    *(("compute-market", "prices", name) for name in ("show", "suggest")),
    *(("compute-market", "capacity", name) for name in ("record", "show")),
    *(("compute-market", name) for name in ("subsidy", "simulate")),
    *(("mempool", name) for name in ("submit", "stats")),
    ("status",),
}


@pytest.mark.parametrize(("path", "line"), EXAMPLES)
def test_example_is_a_plain_line_of_its_verb(path: Path_, line: str) -> None:
    functions = []
    for command in line.split(" | "):
        program, *words = shlex.split(command)
        read = plain.read(TREE, words)
        assert program == "tb-cli"
        assert read is not None
        functions.append(read[1])
    # Verbs of one function have its examples.
    assert VERBS[path].function() in functions


def test_verbs_that_chapters_are_about_have_examples() -> None:
    assert {path for path, _ in EXAMPLES} >= SHOWN


def test_help_ends_with_the_examples(cli: Cli) -> None:
    shown = cli.ok("compute-market", "simulate", "--help")
    found = examples_of(VERBS["compute-market", "simulate"].function())
    assert shown.endswith("\nExamples:\n" + "".join(f"  {line}\n" for line in found))


def test_examples_of_proposals_are_within_their_bounds(cli: Cli) -> None:
    cli.ok("state", "init")
    for line in examples_of(VERBS["compute-market", "params", "propose"].function()):
        cli.ok(*shlex.split(line)[1:])
