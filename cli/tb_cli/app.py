"""The parser: Typer's commands, made of the tree and of what its verbs declare.

Every verb is imported only when it is called or asked for help.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from inspect import cleandoc
from operator import getitem
from re import ASCII, fullmatch
from typing import Any, Literal, cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_click_type, get_install_completion_arguments

from compute_market.errors import EXIT_CODES, UsageError
from compute_market.text import clipped
from tb_cli.frame.command import perform
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import (
    Group,
    Parameter,
    Verb,
    examples_of,
    parameters_of,
    with_bare_values,
)
from tb_cli.tree import TREE

_HELP = ("-h", "--help")
_CONTEXT = {"help_option_names": list(_HELP)}
_EPILOG = "Exit codes: " + ", ".join(f"{row.code} {row.token}" for row in EXIT_CODES) + "."
_PATTERNS = {
    "integer": r"-?[0-9]+",
    "signed": r"[+-]?[0-9]+",
    "number": r"-?[0-9]+(\.[0-9]+)?",
}
_TYPES = {"text": str, "integer": int, "signed": int, "number": float}


class LazyGroup(TyperGroup):
    """A group that builds a command when it is asked for it."""

    def __init__(self, name: str, tree: Group, **extra: Any) -> None:
        super().__init__(
            name=name,
            help=tree.help,
            context_settings=_CONTEXT,
            rich_markup_mode=_markup(),
            **extra,
        )
        self.tree = tree

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command there is nothing to do: that is told as a mistake, with the help.

        Unless one goes without saying.
        """
        default = self.tree.default
        if default is not None and (not args or args[0] not in (*_HELP, *self.tree.commands)):
            if not args or args[0][:1] == "-":
                args = [default, *args]
        elif not args and not ctx.resilient_parsing:
            print(ctx.get_help(), file=sys.stderr)
            ctx.exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.tree.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and cmd_name in self.tree.commands:
            node = self.tree.commands[cmd_name]
            self.commands[cmd_name] = (
                LazyGroup(cmd_name, node)
                if isinstance(node, Group)
                else VerbCommand(cmd_name, node)
            )
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a word. For one that is none the nearest is named."""
        word = args[0]
        if self.get_command(ctx, word) is None and word[:1] != "-" and not ctx.resilient_parsing:
            near = _nearest(word, self.tree, ctx.command_path)
            raise UsageError(
                f"No such command {clipped(word)!a}.",
                hint=f"did you mean {' or '.join(f'`{each}`' for each in near)}?"
                if near
                else f"see `{ctx.command_path} --help`",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands from the tree: plain help need not import what it only names."""
        # The options of a group that stands for one of its commands are for its own help.
        rows = [
            (name, f"{node.help.removesuffix('.').partition('. ')[0]}.")
            for name, node in self.tree.commands.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class VerbCommand(TyperCommand):
    """The command of a verb, with the options that every command has."""

    def __init__(self, name: str, verb: Verb) -> None:
        self.verb = verb
        self.function = verb.function()
        self.own = parameters_of(self.function)
        shared = (DRY_RUN, JSON, *GLOBAL) if verb.writes else (JSON, *GLOBAL)
        super().__init__(
            name,
            help=description(verb),
            short_help=verb.help,
            params=[_parameter(each) for each in (*self.own, *shared)],
            context_settings=_CONTEXT
            # What begins with a minus may be a number.
            | {"ignore_unknown_options": any(each.kind == "signed" for each in self.own)},
            rich_markup_mode=_markup(),
        )

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help page, with examples at its end; a line of them is never broken."""
        super().format_help(ctx, formatter)
        lines = examples_of(self.function)
        if lines:
            formatter.write("\n".join(["", "Examples:", *(f"  {line}" for line in lines), ""]))

    def make_parser(self, ctx: Any) -> Any:
        """A parser that takes an option with one value once."""
        parser: Any = super().make_parser(ctx)
        parse_args = parser.parse_args

        def parse(args: list[str]) -> Any:
            options, left, order = parse_args(with_bare_values(self.own, args))
            for param in self.params:
                valued = isinstance(param, TyperOption) and not (param.is_flag or param.multiple)
                if valued and order.count(param) > 1:
                    ctx.fail(f"Option '{param.opts[0]}' is given twice, and takes one value.")
            return options, left, order

        parser.parse_args = parse
        return parser

    def invoke(self, ctx: Any) -> int:
        values = {each.name: ctx.params.pop(each.name) for each in self.own}
        values |= {each.name: list(values[each.name] or ()) for each in self.own if each.many}
        settings = {
            name: value
            for params in (ctx.find_root().params, ctx.params)
            for name, value in params.items()
            if value is not None and value is not False
        }
        batch, arguments = ctx.obj
        return perform(self.verb, self.function, values, settings, batch, arguments)


def call(arguments: list[str], batch: Session | None = None) -> int:
    """Parse and run one command line. Returns its exit code or raises what went wrong.

    As a line of a `batch` it uses the store of that session.
    """
    try:
        result = root().main(arguments, "tb-cli", standalone_mode=False, obj=(batch, arguments))
    except typer.TyperException as error:
        ctx = getattr(error, "ctx", None)
        path = ctx.command_path if ctx is not None else "tb-cli"
        raise UsageError(error.format_message(), hint=f"see `{path} --help`") from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit as error:  # Completion is shown so; a batch goes on after it.
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return result if isinstance(result, int) else 0


def _nearest(word: str, tree: Group, path: str) -> list[str]:
    """The commands that a word may stand for: some of its name in other groups, else the one of
    this group that is spelled most like it.
    """
    from difflib import get_close_matches

    elsewhere = [" ".join(("tb-cli", *found)) for found in _paths(TREE) if found[-1] == word]
    return elsewhere[:3] or [f"{path} {each}" for each in get_close_matches(word, tree.commands, 1)]


def _paths(tree: Group) -> Iterator[tuple[str, ...]]:
    for name, node in tree.commands.items():
        yield (name,)
        if isinstance(node, Group):
            yield from ((name, *below) for below in _paths(node))


def description(verb: Verb) -> str:
    """What the help page of a verb says: its line, and what its docstring says beyond it."""
    return f"{verb.help} {cleandoc(verb.function().__doc__ or '')}".strip()


@cache
def root() -> LazyGroup:
    """The whole program."""
    version = TyperOption(
        param_decls=["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_version,
        help="Print the version; with --json, what signs and what verifies as well.",
    )
    params = [version, *map(_parameter, (JSON, *GLOBAL)), *get_install_completion_arguments()]
    return LazyGroup("tb-cli", TREE, params=params, epilog=_EPILOG)


def _parameter(declared: Parameter) -> TyperArgument | TyperOption:
    if not declared.spellings:
        return TyperArgument(
            param_decls=[declared.name],
            type=_type(declared),
            required=declared.required,
            nargs=-1 if declared.many else 1,
            default=declared.default,
            help=declared.help,
            metavar=declared.metavar,
            autocompletion=_completion(declared.complete),
        )
    is_flag = declared.kind == "flag"
    first, *others = declared.spellings
    spelled = first if declared.opposite is None else f"{first}/{declared.opposite}"
    return TyperOption(
        param_decls=[declared.name, spelled, *others],
        type=None if is_flag else _type(declared),
        is_flag=is_flag or None,
        multiple=declared.many,
        required=declared.required,
        default=declared.default,
        show_default=True,
        help=declared.help,
        metavar=declared.metavar,
        autocompletion=_completion(declared.complete),
    )


def _type(declared: Parameter) -> Any:
    if declared.kind == "choice":
        annotation = getitem(cast(Any, Literal), declared.choices)
        return get_click_type(annotation=annotation, parameter_info=typer.Option())
    limits = typer.Option(min=declared.least, max=declared.most)
    found: Any = get_click_type(annotation=_TYPES[declared.kind], parameter_info=limits)
    if declared.kind in _PATTERNS:
        found.convert = _digits_only(found.convert, _PATTERNS[declared.kind], declared.kind)
    return found


def _digits_only(convert: Callable[..., Any], pattern: str, kind: str) -> Callable[..., Any]:
    """Of what Python takes for a number, only what everybody reads as the same one."""

    def checked(value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and not fullmatch(pattern, value, ASCII):
            noun = "integer" if kind == "signed" else kind
            raise typer.BadParameter(
                f"{clipped(value)!a} is not a valid {noun}: digits 0-9 only.", ctx=ctx, param=param
            )
        return convert(value, param, ctx)

    return checked


def _completion(kind: str | None) -> Callable[..., Any] | None:
    if kind is None:
        return None

    def complete(ctx: Any, args: list[str], incomplete: str) -> list[str]:
        from tb_cli.frame.completion import completions

        return completions(kind, incomplete)

    return complete


def _version(ctx: Any, param: Any, value: bool) -> None:
    if not value:
        return
    from compute_market import __version__

    _, arguments = ctx.obj
    if "--json" in arguments:
        from tb_cli.frame.render import write_json
        from tb_cli.frame.signing import backends

        write_json({"version": __version__, **backends()})
    else:
        print(f"tb-cli {__version__}")
    raise typer.Exit


def _markup() -> Literal["rich"] | None:
    is_plain = "--no-color" in sys.argv or "NO_COLOR" in os.environ
    return "rich" if sys.stdout.isatty() and "--help" in sys.argv and not is_plain else None
