"""Writes `commands.md`, the command reference, from the command tree itself.

Run it with `python docs/generate.py` after a command has changed; a test compares the two.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "cli")]

from compute_market.amounts import AMOUNT_MAX  # noqa: E402
from compute_market.errors import EXIT_CODES  # noqa: E402
from tb_cli.app import TREE, Group, Verb, build, root  # noqa: E402

_DRY_RUN = ("- `-n`, `--dry-run`: Run it and roll it back.",)
_NO_OPTIONS = "It has no arguments and no options of its own."
TARGET = ROOT / "docs" / "commands.md"
INTRODUCTION = """\
# Every command

This page is generated from the command line itself by `python docs/generate.py`. `tb-cli COMMAND
--help` says the same in a shell. [Scripting](scripting.md) explains the options that many commands
share.
"""


def render() -> str:
    """The whole page."""
    verbs = list(_verbs(TREE, ("tb-cli",)))
    shared = {
        str(option.name): option for option in build("x", Verb("tb_cli.chain:status", "")).params
    }
    lines = [INTRODUCTION, "## Options of every command", ""]
    lines += ["They may stand before the command as well, but for `--json`.", ""]
    lines += map(_entry, shared.values())
    lines += ["- `-h`, `--help`: Show the help of the command and exit.", ""]
    lines += ["Commands marked *changes the market* also have:", "", *_DRY_RUN, ""]
    lines += ["These stand alone, as in `tb-cli --version`:", ""]
    lines += [_entry(option) for option in root().params if option.name not in shared]
    lines += ["", "## Exit codes", "", "| code | token | meaning |", "|---|---|---|"]
    lines += [f"| {row.code} | {row.token} | {row.meaning} |" for row in EXIT_CODES]
    lines += ["", "A signal adds its number to 128: 130 for Ctrl-C, 143 for TERM.", ""]
    lines += ["## Commands", ""]
    lines += [f"- [`{path}`](#{path.replace(' ', '-')}): {verb.help}" for path, verb in verbs]
    for path, verb in verbs:
        lines += ["", *_section(path, verb, {*shared, "dry_run"})]
    return "\n".join(lines) + "\n"


def _verbs(group: Group, path: tuple[str, ...]) -> Iterator[tuple[str, Verb]]:
    for name, node in group.commands.items():
        if isinstance(node, Group):
            yield from _verbs(node, (*path, name))
        else:
            yield " ".join((*path, name)), node


def _section(path: str, verb: Verb, shared: set[str]) -> Iterator[str]:
    command = build(path.split()[-1], verb)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    chosen = [p for p in command.params if p not in arguments and p.name not in shared]
    usage = [path, "[OPTIONS]", *(str(argument.metavar) for argument in arguments)]
    yield from (f"### {path}", "", "```text", " ".join(usage), "```", "")
    yield from ("*Changes the market.*", "") if verb.writes else ()
    for paragraph in (command.help or "").split("\n\n"):
        yield from (_filled(paragraph), "")
    yield from map(_entry, arguments + chosen) if arguments + chosen else (_NO_OPTIONS,)


def _entry(parameter: Any) -> str:
    """One argument or option with its help, what it may be and its default."""
    option = parameter.param_type_name == "option"
    names = [*sorted(parameter.opts, key=len), *parameter.secondary_opts]
    value = "" if not option or parameter.is_flag else f" {_kind(parameter)}"
    head = ", ".join(f"`{name}{value}`" for name in names) if option else f"`{parameter.metavar}`"
    text = f"- {head}: {parameter.help or ''}".rstrip(": ")
    least, most = getattr(parameter.type, "min", None), getattr(parameter.type, "max", None)
    if most is not None and most != AMOUNT_MAX:
        text += f" Allowed: {least}…{most}."
    if option and parameter.default not in (None, False, ()):
        text += f" Default: `{names[0] if parameter.is_flag else parameter.default}`."
    return _filled(text, "  ")


def _kind(option: Any) -> str:
    choices = getattr(option.type, "choices", None)
    numeric = option.type.name.split()[0] in ("integer", "int", "float")
    return str(option.metavar or ("|".join(choices) if choices else "N" if numeric else "TEXT"))


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, subsequent_indent=indent, break_on_hyphens=False)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
