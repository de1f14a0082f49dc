"""Writes `commands.md`, the command reference, from what the commands declare of themselves.

Run it with `python docs/generate.py` after a command has changed; a test compares the two.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "cli")]

# What these import is found by the path above, so they stand behind it.
from compute_market.errors import EXIT_CODES
from tb_cli.frame.help_page import ALONE, description, usage
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.values import bounds_of, default_shown, metavar_of
from tb_cli.frame.verbs import Group, Parameter, Verb, examples_of, parameters_of
from tb_cli.tree import TREE

_NO_OPTIONS = "It has no arguments and no options of its own."
TARGET = ROOT / "docs" / "commands.md"
INTRODUCTION = """\
# Every command

This page is generated from the command line itself by `python docs/generate.py`. `tb-cli COMMAND
--help` says the same in a shell. [Scripting](scripting.md) explains the options that many commands
share.
"""
HOMES = """\
## Homes without a market

Commands marked *creates a market* bring something new: where their home has no market, they make
one, and say so on stderr. Commands marked *needs no market* do not look for one. Every other
command ends with code 3 there, and makes nothing.
"""
_MARKS = {"created": "Creates a market", "optional": "Needs no market", "unused": "Needs no market"}


def render() -> str:
    """The whole page."""
    verbs = list(_verbs(TREE, ("tb-cli",)))
    lines = [INTRODUCTION, "## Options of every command", ""]
    lines += ["They may stand before the command as well, but for `--json`.", ""]
    lines += map(_entry, (JSON, *GLOBAL))
    lines += ["- `-h`, `--help`: Show the help of the command and exit.", ""]
    lines += ["Commands marked *changes the market* also have:", "", _entry(DRY_RUN), ""]
    lines += ["These stand alone, as in `tb-cli --version`:", ""]
    lines += map(_entry, ALONE)
    lines += ["", HOMES]
    lines += ["## Exit codes", "", "| code | token | meaning |", "|---|---|---|"]
    lines += [f"| {row.code} | {row.token} | {row.meaning} |" for row in EXIT_CODES]
    lines += ["", "A signal adds its number to 128: 130 for Ctrl-C, 143 for TERM.", ""]
    lines += ["## Commands", ""]
    lines += [f"- [`{path}`](#{path.replace(' ', '-')}): {verb.help}" for path, verb in verbs]
    for path, verb in verbs:
        lines += ["", *_section(path, verb)]
    return "\n".join(lines) + "\n"


def _verbs(group: Group, path: tuple[str, ...]) -> Iterator[tuple[str, Verb]]:
    for name, node in group.commands.items():
        if isinstance(node, Group):
            yield from _verbs(node, (*path, name))
        else:
            yield " ".join((*path, name)), node


def _section(path: str, verb: Verb) -> Iterator[str]:
    own = parameters_of(verb.function())
    arguments = [each for each in own if not each.spellings]
    yield from (f"### {path}", "", "```text", usage(path.split()[1:], verb), "```", "")
    marks = ["Changes the market"] if verb.writes else []
    marks += [_MARKS[verb.market]] if verb.market in _MARKS else []
    if marks:
        yield from (" ".join(f"*{mark}.*" for mark in marks), "")
    for paragraph in description(verb).split("\n\n"):
        yield from (_filled(paragraph), "")
    options = [each for each in own if each.spellings]
    yield from map(_entry, arguments + options) if own else (_NO_OPTIONS,)
    lines = examples_of(verb.function())
    if lines:
        noun = "Example" if len(lines) == 1 else "Examples"
        yield from ("", f"{noun}:", "", "```text", *lines, "```")


def _entry(parameter: Parameter) -> str:
    """One argument or option with its help, what it may be and its default."""
    names = [*sorted(parameter.spellings, key=len), *filter(None, (parameter.opposite,))]
    value = f" {metavar_of(parameter)}" if parameter.kind != "flag" else ""
    head = ", ".join(f"`{name}{value}`" for name in names) or f"`{parameter.metavar}`"
    text = f"- {head}: {parameter.help}"
    if (bounds := bounds_of(parameter)) is not None:
        text += f" Allowed: {bounds}."
    if parameter.required and names:
        text += " Required."
    if (default := default_shown(parameter)) is not None:
        text += f" Default: `{names[0] if parameter.kind == 'flag' else default}`."
    return _filled(text, "  ")


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, subsequent_indent=indent, break_on_hyphens=False)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
