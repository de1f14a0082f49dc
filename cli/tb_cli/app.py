"""The tree of commands. Every verb is imported only when it is called or asked for help."""

import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer._click import Context, Parameter
from typer._click.core import Command
from typer._click.exceptions import ClickException, NoArgsIsHelpError
from typer._click.formatting import HelpFormatter
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from compute_market.errors import EXIT_CODES, UsageError
from tb_cli.frame.guard import guarded


class Verb(NamedTuple):
    """A command: where its function is, and one line of help."""

    target: str  # module:function
    help: str
    writes: bool = False  # has --dry-run


class Group(NamedTuple):
    help: str
    commands: "dict[str, Verb | Group]"
    default: Verb | None = None  # what the bare group does


def _writes(target: str, help_: str) -> Verb:
    return Verb(target, help_, writes=True)


TREE = Group(
    "Operate a compute market on one machine.",
    {
        "demo": Verb("tb_cli.demo:demo", "Show the whole market on the example workloads."),
        "compute": Group(
            "Offers and jobs.",
            {
                "offer": Group(
                    "Offers of capacity.",
                    {
                        "post": _writes("tb_cli.offer:post", "Post offers from options or a file."),
                        "list": Verb("tb_cli.offer:list_", "List offers."),
                        "show": Verb("tb_cli.offer:show", "Show one offer."),
                        "withdraw": _writes("tb_cli.offer:withdraw", "Take offers off the market."),
                    },
                ),
                "submit": _writes("tb_cli.submit:submit", "Submit jobs from files or options."),
                "execute": _writes("tb_cli.execute:execute", "Run and prove active jobs."),
                "prove": _writes("tb_cli.execute:prove", "Submit one proof computed elsewhere."),
                "cancel": _writes("tb_cli.jobs:cancel", "Cancel jobs."),
                "run": Verb("tb_cli.execute:run", "Hash slice files, with no market."),
                "status": Verb("tb_cli.jobs:status", "Show one job."),
                "list": Verb("tb_cli.jobs:list_", "List jobs."),
                "queue": Verb("tb_cli.jobs:queue", "List waiting jobs in starting order."),
                "requirements": Verb(
                    "tb_cli.jobs:requirements", "Print the capability a live job asks for."
                ),
                "explain": Verb("tb_cli.jobs:explain", "Say why offers do or do not fit a job."),
                "stats": Verb("tb_cli.jobs:stats", "Print the scheduler's statistics."),
                "calibrate": _writes(
                    "tb_cli.calibrate:calibrate", "Measure how fast this machine hashes."
                ),
                "wait": Verb("tb_cli.jobs:wait", "Wait until jobs have ended."),
            },
        ),
        "compute-market": Group(
            "The market's rules, settlement and audit.",
            {
                "params": Verb("tb_cli.admission:params", "Print the admission parameters."),
                "stats": Verb(
                    "tb_cli.admission:stats", "Print backlog, utilization, units and price."
                ),
                "match": _writes("tb_cli.admission:match", "Try the pending jobs again."),
                "audit": Verb("tb_cli.admission:audit", "Check every law of the market."),
                "settle": Group(
                    "The settlement mode.",
                    {
                        "status": Verb("tb_cli.settle:status", "Show the mode and what waits."),
                        "arm": _writes("tb_cli.settle:arm", "Turn real after some blocks."),
                        "cancel-arm": _writes("tb_cli.settle:cancel_arm", "Take arming back."),
                        "dry-run": _writes("tb_cli.settle:dry_run", "Stop moving money."),
                        "tick": _writes("tb_cli.settle:tick", "Do only what is due."),
                    },
                ),
                "capacity": Group(
                    "The capacity estimate.",
                    {"record": _writes("tb_cli.admission:record", "Record a capacity sample.")},
                ),
                "sla": Group(
                    "Deadlines.",
                    {"sweep": _writes("tb_cli.admission:sweep", "Fail every overdue job.")},
                ),
                "receipts": Group(
                    "Receipts of proven work.",
                    {
                        "list": Verb("tb_cli.receipts:list_", "List receipts."),
                        "show": Verb("tb_cli.receipts:show", "Show the receipts of a job or key."),
                    },
                ),
            },
        ),
        "wallet": Group(
            "Wallets in CT and IT.",
            {
                "deposit": _writes("tb_cli.wallet:deposit", "Pay into a wallet."),
                "withdraw": _writes("tb_cli.wallet:withdraw", "Pay out of a wallet."),
                "balance": Verb("tb_cli.wallet:balance", "Show what a party has and has locked."),
                "history": Verb("tb_cli.wallet:history", "List the movements of a wallet."),
            },
        ),
        "chain": Group(
            "Block heights.",
            {
                "status": Verb("tb_cli.chain:status", "Show height, epoch and market id."),
                "advance": _writes("tb_cli.chain:advance", "Let blocks pass."),
            },
        ),
        "net": Group(
            "Views other nodes ask for.",
            {
                "compute": Group(
                    "The scheduler.",
                    {"stats": Verb("tb_cli.jobs:stats", "Print the scheduler's statistics.")},
                ),
                "reputation": Group(
                    "Scores of providers.",
                    {"show": Verb("tb_cli.reputation:show", "Show the scores of providers.")},
                ),
            },
        ),
        "metrics": Verb("tb_cli.metrics:metrics", "Print the metrics for Prometheus."),
        "batch": _writes("tb_cli.batch:batch", "Run one command per line of standard input."),
        "state": Group(
            "The files of the market.",
            {
                "init": _writes("tb_cli.state:init", "Create the home directory now."),
                "check": Verb("tb_cli.state:check", "Check the data file and every law."),
                "backup": Verb("tb_cli.state:backup", "Write a consistent copy."),
                "stats": Verb("tb_cli.state:stats", "Show the size of every table."),
            },
        ),
        "config": Group(
            "The configuration.",
            {"show": Verb("tb_cli.config:show", "Show every setting and where it comes from.")},
        ),
    },
)


class LazyGroup(TyperGroup):
    """A group that builds a command when it is asked for it."""

    def __init__(self, *args: Any, tree: Group = TREE, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.tree = tree

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.tree.commands)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in self.commands and cmd_name in self.tree.commands:
            self.commands[cmd_name] = build(cmd_name, self.tree.commands[cmd_name])
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """List the commands from the tree: plain help need not import what it only names."""
        rows = [(name, node.help) for name, node in self.tree.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class RootGroup(LazyGroup):
    """The whole program: its `main` ends in an exit code of the table, whatever happens."""

    def main(self, args: Any = None, *_: Any, **extra: Any) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)
        sys.exit(run(arguments))


class VerbCommand(TyperCommand):
    """A command with the options that every command has. They do not reach its function."""

    def __init__(self, *args: Any, params: list[Parameter], **extra: Any) -> None:
        super().__init__(*args, params=[*params, *self.shared()], **extra)

    def shared(self) -> Iterator[TyperOption]:
        yield _flag("--json", help="Print one JSON document.")
        yield from _global_options()

    def invoke(self, ctx: Context) -> Any:
        settings = dict(ctx.find_root().params)
        for option in self.shared():
            name = option.name or ""
            value = ctx.params.pop(name)
            if value not in (None, False) or name not in settings:
                settings[name] = value
        from tb_cli.frame.session import Session

        with Session.begin(settings, within=ctx.obj) as session:
            ctx.obj = session
            return super().invoke(ctx)


class WritingCommand(VerbCommand):
    def shared(self) -> Iterator[TyperOption]:
        yield _flag("--dry-run", "-n", help="Run it and roll it back.")
        yield from super().shared()


def build(name: str, node: Verb | Group) -> Command:
    """Make the command of a node of the tree, importing its module if it is a verb."""
    if isinstance(node, Group):
        return LazyGroup(name=name, tree=node, help=node.help, **_GROUP_SETTINGS)
    module, function = node.target.split(":")
    one = typer.Typer(add_completion=False, rich_markup_mode=_markup())
    one.command(
        name, cls=WritingCommand if node.writes else VerbCommand, context_settings=_CONTEXT
    )(getattr(import_module(module), function))
    command = get_command(one)
    command.short_help = node.help
    return command


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Prints; never raises."""
    return guarded(lambda: call(arguments), arguments)


def call(arguments: list[str], session: Any = None) -> int:
    """Parse and run one command line. Returns its exit code or raises what went wrong.

    A `session` that is given is used, and left open, in place of one of its own.
    """
    try:
        result = TyperGroup.main(
            root(), args=arguments, prog_name="tb-cli", standalone_mode=False, obj=session
        )
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return UsageError.exit_code
    except ClickException as error:
        ctx = getattr(error, "ctx", None)
        path = ctx.command_path if ctx is not None else "tb-cli"
        raise UsageError(error.format_message(), hint=f"see `{path} --help`") from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer would make it a failure.
            raise error.__context__ from None
        raise
    return result if isinstance(result, int) else 0


@cache
def root() -> RootGroup:
    command = get_command(app)
    assert isinstance(command, RootGroup)
    return command


def _flag(*names: str, help: str) -> TyperOption:
    return TyperOption(param_decls=list(names), is_flag=True, default=False, help=help)


def _global_options() -> Iterator[TyperOption]:
    yield TyperOption(param_decls=["--home"], help="Home directory.", metavar="DIR")
    yield TyperOption(
        param_decls=["--lock-timeout"],
        type=float,
        help="Seconds to wait for the write lock.",
        metavar="SECS",
    )
    yield _flag("--no-color", help="Plain text even on a terminal.")
    yield _flag("--debug", help="Show where an error comes from.")


def _markup() -> Any:
    return "rich" if sys.stdout.isatty() and "--help" in sys.argv else None


_CONTEXT = {"help_option_names": ["-h", "--help"]}
_GROUP_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "context_settings": _CONTEXT,
    "rich_markup_mode": _markup(),
}
_EPILOG = "Exit codes: " + ", ".join(f"{row.code} {row.token}" for row in EXIT_CODES) + "."

app = typer.Typer(cls=RootGroup, help=TREE.help, epilog=_EPILOG, **_GROUP_SETTINGS)


def _version(ctx: Context, param: Parameter, value: bool) -> None:
    if value:
        from compute_market import __version__

        print(f"tb-cli {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_version
    ),
    home: str = typer.Option(None, help="Home directory.", metavar="DIR"),
    lock_timeout: float = typer.Option(
        None, help="Seconds to wait for the write lock.", metavar="SECS"
    ),
    no_color: bool = typer.Option(False, "--no-color", help="Plain text even on a terminal."),
    debug: bool = typer.Option(False, "--debug", help="Show where an error comes from."),
) -> None:
    """Operate a compute market on one machine."""
