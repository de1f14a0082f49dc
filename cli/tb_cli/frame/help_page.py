"""The help of a command or a group, made of what the tree and its verbs declare.

All of it looks alike: a usage line, what it does, what it takes, and lines to copy, which are
never broken.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from inspect import cleandoc

from compute_market.errors import EXIT_CODES
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.values import bounds_of, default_shown, metavar_of
from tb_cli.frame.verbs import Group, Parameter, Verb, examples_of, flag, parameters_of

HELP = flag("--help", "-h", help="Show this message and exit.")
# Those of the program itself.
ALONE = (
    flag(
        "--version", "-V", help="Print the version; with --json, what signs and what verifies too."
    ),
    flag("--install-completion", help="Install completion for the current shell."),
    flag("--show-completion", help="Print what `tb-cli completion SHELL` does for this shell."),
)
_WIDTH_MAX = 100
_WIDTH_MIN = 40
_COLUMN_MAX = 30  # of names; the help of a longer one goes below it
_BLANK = "\x00"  # stands for one that must not end a line

Row = tuple[str, str]


def page(
    path: Sequence[str], node: Verb | Group, *, width: int | None = None, bold: bool = False
) -> str:
    """The whole page of a command with this path, so many columns wide."""
    columns = width or _width()
    blocks = list(_group(path, node) if isinstance(node, Group) else _verb(path, node))
    lines: list[str] = []
    for head, content in blocks:
        if head:
            lines += ["", f"\x1b[1m{head}:\x1b[0m" if bold else f"{head}:"]
        elif lines:
            lines.append("")
        lines += _text(content, columns) if isinstance(content, str) else _rows(content, columns)
    return "\n".join(lines) + "\n"


def is_bold(arguments: Sequence[str]) -> bool:
    """Whether heads are to stand out."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and "--no-color" not in arguments


def description(verb: Verb) -> str:
    """What the help page of a verb says: its line, and what its docstring says beyond it."""
    return f"{verb.help} {cleandoc(verb.function().__doc__ or '')}".strip()


def usage(path: Sequence[str], node: Verb | Group) -> str:
    """The line that shows how it is called; what must be given is not in brackets."""
    if isinstance(node, Group):
        words = ["[COMMAND]" if node.default else "COMMAND"]
    else:
        own = parameters_of(node.function())
        must = [each for each in own if each.required and each.spellings]
        words = [f"{each.spellings[0]} {metavar_of(each)}" for each in must]
        words += [str(each.metavar) for each in own if not each.spellings]
    return " ".join(("tb-cli", *path, "[OPTIONS]", *words))


def help_of(parameter: Parameter) -> str:
    """What is said of an argument or option: what it is, may be, and is where it is not given."""
    notes = []
    if (bounds := bounds_of(parameter)) is not None:
        notes.append(bounds)
    if parameter.required:
        notes.append("required")
    if (default := default_shown(parameter)) is not None:
        notes.append(f"default: {default}")
    return f"{parameter.help} [{'; '.join(notes)}]" if notes else parameter.help


def _group(path: Sequence[str], group: Group) -> Iterator[tuple[str, str | list[Row]]]:
    yield "", f"Usage: {usage(path, group)}"
    yield "", group.help
    yield (
        "Commands",
        [
            (name, f"{node.help.removesuffix('.').partition('. ')[0]}.")
            for name, node in group.commands.items()
        ],
    )
    own = (HELP,) if path else (*ALONE, JSON, *GLOBAL, HELP)
    yield "Options", [_row(each) for each in own]
    if not path:
        from tb_cli.frame.topics import TOPICS

        yield "Topics", [(f"help {name}", topic.help) for name, topic in TOPICS.items()]
        codes = ", ".join(f"{row.code} {row.token}" for row in EXIT_CODES)
        yield "", f"Exit codes: {codes}."


def _verb(path: Sequence[str], verb: Verb) -> Iterator[tuple[str, str | list[Row]]]:
    function = verb.function()
    own = parameters_of(function)
    yield "", f"Usage: {usage(path, verb)}"
    for paragraph in description(verb).split("\n\n"):
        yield "", paragraph
    arguments = [each for each in own if not each.spellings]
    if arguments:
        yield "Arguments", [_row(each) for each in arguments]
    shared = (DRY_RUN, JSON, *GLOBAL, HELP) if verb.writes else (JSON, *GLOBAL, HELP)
    options = [each for each in own if each.spellings]
    # What must be given comes first.
    options.sort(key=lambda each: not each.required)
    yield "Options", [_row(each) for each in (*options, *shared)]
    if lines := examples_of(function):
        yield "Examples", [(line, "") for line in lines]


def _row(parameter: Parameter) -> Row:
    if not parameter.spellings:
        return str(parameter.metavar), help_of(parameter)
    names = ", ".join(sorted(parameter.spellings, key=len))
    if parameter.opposite is not None:
        names += f" / {parameter.opposite}"
    value = "" if parameter.kind == "flag" else f" {metavar_of(parameter)}"
    return names + value, help_of(parameter)


def _rows(rows: list[Row], width: int) -> Iterator[str]:
    column = max((len(name) for name, _ in rows if len(name) <= _COLUMN_MAX), default=0)
    for name, text in rows:
        lines = _filled(text, max(width - column - 4, 16))
        if not text:
            yield f"  {name}"
        elif len(name) > column:
            yield f"  {name}"
            yield from (f"  {'':{column}}  {line}" for line in lines)
        else:
            for number, line in enumerate(lines):
                yield f"  {'' if number else name:{column}}  {line}"


def _text(text: str, width: int) -> Iterator[str]:
    if text.startswith("Usage: "):
        yield text  # Long as it may be, it is copied.
    else:
        yield from (f"  {line}" for line in _filled(text, width - 2))


def _filled(text: str, width: int) -> list[str]:
    """The text in lines; what stands between backticks is copied, and not broken."""
    parts = " ".join(text.split()).split("`")
    parts[1::2] = [each.replace(" ", _BLANK) for each in parts[1::2]]
    lines = textwrap.wrap("`".join(parts), width, break_on_hyphens=False, break_long_words=False)
    return [line.replace(_BLANK, " ") for line in lines]


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, _WIDTH_MIN), _WIDTH_MAX)
