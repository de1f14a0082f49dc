"""The parser: Typer's commands, made of the tree and of what its verbs declare.

Every verb is imported only when it is called or asked for help.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_click_type, get_install_completion_arguments

from compute_market.errors import UsageError
from tb_cli.frame.command import perform
from tb_cli.frame.help_page import ALONE, HELP, is_bold, page
from tb_cli.frame.options import DRY_RUN, GLOBAL, JSON
from tb_cli.frame.session import Session
from tb_cli.frame.usage import no_such_command, no_such_option, usage_error
from tb_cli.frame.values import is_negative, value_of
from tb_cli.frame.verbs import Group, Parameter, Verb, parameters_of, with_bare_values
from tb_cli.tree import TREE

# Options that are completed by their name.
PARTIES = ("buyer", "provider", "owner", "sender", "workload")
_CONTEXT = {"help_option_names": list(HELP.spellings)}


class LazyGroup(TyperGroup):
    """A group that builds a command when it is asked for it."""

    def __init__(self, name: str, tree: Group, **extra: Any) -> None:
        super().__init__(name=name, help=tree.help, context_settings=_CONTEXT, **extra)
        self.tree = tree

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command there is nothing to do: the help is shown, and it is a mistake.

        Unless one goes without saying.
        """
        default = self.tree.default
        if default is not None and (
            not args or args[0] not in (*HELP.spellings, *self.tree.commands)
        ):
            if not args or args[0][:1] == "-":
                args = [default, *args]
        elif not args and not ctx.resilient_parsing:
            print(_page(ctx, self.tree), end="")
            ctx.exit(UsageError.exit_code)
        with _hinting(ctx):
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
            raise no_such_command(word, self.tree, ctx.command_path, TREE)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return _page(ctx, self.tree).rstrip("\n")


class VerbCommand(TyperCommand):
    """The command of a verb, with the options that every command has."""

    def __init__(self, name: str, verb: Verb) -> None:
        self.verb = verb
        self.function = verb.function()
        self.own = parameters_of(self.function)
        self.takes_signs = any(each.kind == "signed" for each in self.own)
        shared = (DRY_RUN, JSON, *GLOBAL) if verb.writes else (JSON, *GLOBAL)
        super().__init__(
            name,
            short_help=verb.help,
            params=[_parameter(_to_look_at(each, verb)) for each in (*self.own, *shared)],
            context_settings=_CONTEXT
            # What begins with a minus may be a number.
            | {"ignore_unknown_options": self.takes_signs},
        )

    def get_help(self, ctx: Any) -> str:
        return _page(ctx, self.verb).rstrip("\n")

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What a word goes on as. Behind an option that takes -FIELD a minus begins no option."""
        typed = os.environ.get("_TYPER_COMPLETE_ARGS", "").removesuffix(incomplete)
        before = typed.rstrip(" =")
        for param, declared in zip(self.params, self.own, strict=False):
            if declared.complete == "order" and before.endswith(f" {declared.spellings[0]}"):
                return param.shell_complete(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _hinting(ctx):
            return super().parse_args(ctx, args)

    def make_parser(self, ctx: Any) -> Any:
        """A parser that takes an option with one value once, and a number below zero for a value.

        No option is spelled like one.
        """
        parser: Any = super().make_parser(ctx)
        parse_args, process = parser.parse_args, parser._process_opts

        def process_opts(word: str, state: Any) -> None:
            if is_negative(word):
                state.largs.append(word)
            else:
                process(word, state)

        def parse(args: list[str]) -> Any:
            may_have_signs = self.takes_signs and "--" not in args  # What it reads, it removes.
            options, left, order = parse_args(with_bare_values(self.own, args))
            for word in left if may_have_signs else ():
                if word[:2] == "--" and not ctx.resilient_parsing:
                    raise no_such_option(word, TREE, ctx.obj[1])
            for param in self.params:
                valued = isinstance(param, TyperOption) and not (param.is_flag or param.multiple)
                if valued and order.count(param) > 1 and not ctx.resilient_parsing:
                    raise UsageError(f"{param.opts[0]} is given twice, and takes one value")
            return options, left, order

        parser.parse_args, parser._process_opts = parse, process_opts
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
    if any("-completion" in word for word in arguments):
        _use_own_scripts()
    try:
        result = root().main(arguments, "tb-cli", standalone_mode=False, obj=(batch, arguments))
    except typer.TyperException as error:
        raise usage_error(error, TREE, arguments) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit as error:  # Completion is shown so; a batch goes on after it.
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return result if isinstance(result, int) else 0


@cache
def root() -> LazyGroup:
    """The whole program."""
    version = TyperOption(
        param_decls=["version", *ALONE[0].spellings],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_version,
    )
    params = [version, *map(_parameter, (JSON, *GLOBAL)), *get_install_completion_arguments()]
    return LazyGroup("tb-cli", TREE, params=params)


@contextmanager
def _hinting(ctx: Any) -> Iterator[None]:
    """Say where the help is, of a value that is wrong and has no hint of its own."""
    try:
        yield
    except UsageError as error:
        if error.hint is not None:
            raise
        raise UsageError(error.message, hint=f"see `{ctx.command_path} --help`") from None


def _page(ctx: Any, node: Verb | Group) -> str:
    _, *path = ctx.command_path.split()
    return page(path, node, bold=is_bold(sys.argv))


def _parameter(declared: Parameter) -> TyperArgument | TyperOption:
    if not declared.spellings:
        return TyperArgument(
            param_decls=[declared.name],
            type=_type(declared),
            required=declared.required,
            nargs=-1 if declared.many else 1,
            default=declared.default,
            help=declared.help,
            autocompletion=_completion(declared),
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
        help=declared.help,
        autocompletion=_completion(declared),
    )


def _to_look_at(declared: Parameter, verb: Verb) -> Parameter:
    """An argument as it is completed: what only looks at a job may look at one that has ended."""
    if verb.writes or declared.complete != "job":
        return declared
    found = copy(declared)
    found.complete = "any job"
    return found


def _type(declared: Parameter) -> Any:
    """What reads a value. One that is none already was the default."""

    def read(value: Any) -> Any:
        return value_of(declared, value) if isinstance(value, str) else value

    return get_click_type(annotation=str, parameter_info=typer.Option(parser=read))


def _completion(declared: Parameter) -> Callable[..., Any] | None:
    kind = declared.complete or (declared.name if declared.name in PARTIES else None)
    if kind is None and not declared.choices:
        return None

    def complete(ctx: Any, args: list[str], incomplete: str) -> list[str]:
        # Of values with commas between them the last one is to be completed.
        head, comma, last = incomplete.rpartition(",") if declared.many else ("", "", incomplete)
        if declared.choices:
            found = [each for each in declared.choices if each.startswith(last)]
        elif kind in ("field", "order"):
            from tb_cli.frame.listing.options import fields

            names = fields(ctx.command.function, kind, ctx.params)
            found = [name for name in names if name.startswith(last) and (last or name[0] != "-")]
        else:
            from tb_cli.frame.completion import completions

            found = completions(str(kind), last)
        given = head.split(",") if comma else ()
        return [f"{head}{comma}{each}" for each in found if each not in given]

    return complete


def _use_own_scripts() -> None:
    """Have what installs completion take the scripts of `tb-cli completion`."""
    from typer import _completion_shared

    from tb_cli.frame.completion_scripts import SCRIPTS

    own = {shell: script.replace("%", "%%") for shell, script in SCRIPTS.items()}
    _completion_shared._completion_scripts.update(own)


def _version(ctx: Any, param: Any, value: bool) -> None:
    if not value:
        return
    from compute_market import __version__

    _, arguments = ctx.obj
    if "--json" in arguments:
        from tb_cli.frame.installed import versions
        from tb_cli.frame.render import write_json
        from tb_cli.frame.signing import backends

        write_json({"version": __version__, **backends(), **versions()})
    else:
        print(f"tb-cli {__version__}")
    raise typer.Exit
