"""What a verb declares of itself, once and as plain data.

The parser (`tb_cli.app`) makes its options of these declarations, and the plain way (`plain`) reads
the same. Importing them costs next to nothing, which every command pays for.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# `signed` is a whole number with a sign before it, if any; it goes by its place.
Kind = Literal["text", "integer", "signed", "number", "choice", "flag"]
# Whether a home without a market is an error, is given one, or is none of the verb's business.
NeedOfMarket = Literal["needed", "created", "optional", "unused"]


# What the function of a verb gets for a mapping of options none of which was made; see `takes`.
NOT_GIVEN: Mapping[str, Any] = {}


class Parameter:
    """An argument or an option of a verb.

    A plain class: named tuples and records cost more to define than all declarations do.
    """

    __slots__ = (
        "bare",
        "choices",
        "complete",
        "default",
        "group",
        "help",
        "kind",
        "least",
        "many",
        "metavar",
        "most",
        "name",
        "opposite",
        "required",
        "spellings",
        "unit",
    )

    def __init__(
        self,
        name: str,  # what the function calls it
        help: str,
        spellings: tuple[str, ...] = (),  # --by; an argument, which goes by its place, has none
        opposite: str | None = None,  # what turns a flag off, where something does
        *,
        kind: Kind = "text",
        metavar: str | None = None,
        default: Any = None,
        required: bool = False,
        many: bool = False,  # a list: what is left of the line, or an option that may be repeated
        least: int | None = None,
        most: int | None = None,
        choices: tuple[str, ...] = (),
        # What a shell completes it with: a name in `completion`, or `field` or `order` of a list.
        complete: str | None = None,
        unit: str | None = None,  # of a number that is a duration or size: one of `quantities`
        bare: str | None = None,  # what an option stands for that no number follows
    ) -> None:
        self.name = name
        self.help = help
        self.spellings = spellings
        self.opposite = opposite
        self.kind = kind
        self.metavar = metavar
        self.default = default
        self.required = required
        self.many = many
        self.least = least
        self.most = most
        self.choices = choices
        self.complete = complete
        self.unit = unit
        self.bare = bare
        self.group: str | None = None  # the mapping it reaches the function in, if it was given

    @property
    def path(self) -> str | None:
        """What it is called that it names, where that is a file or a directory: `FILE` or `DIR`."""
        first = (self.metavar or "").strip("[]").partition("|")[0].rstrip("…")
        return first if first in ("FILE", "DIR", "PATH", "JOB.json", "SCENARIO") else None

    def in_group(self, name: str) -> "Parameter":
        """The same in a mapping; other verbs may have the parameter by itself."""
        found = object.__new__(Parameter)
        for slot in Parameter.__slots__:
            setattr(found, slot, getattr(self, slot))
        found.group = name
        return found


class Verb:
    """A command of the tree. Its function is imported when the command is called."""

    __slots__ = ("help", "market", "reads_with", "reads_without", "target", "writes")

    def __init__(
        self,
        target: str,  # module:function
        help: str,  # one line; the docstring of the function says what there is to say beyond it
        *,
        writes: bool = False,  # has --dry-run
        reads_without: str | None = None,  # the argument without which it changes nothing
        reads_with: tuple[str, ...] = (),  # options with which it only writes what it was asked for
        market: NeedOfMarket = "needed",
    ) -> None:
        self.target = target
        self.help = help
        self.writes = writes
        self.reads_with = reads_with
        self.reads_without = reads_without
        self.market = market

    def changes(self, values: dict[str, Any]) -> bool:
        """Whether it changes anything when it is called with these values."""
        needed, barring = self.reads_without, self.reads_with
        return (
            self.writes
            and (needed is None or values[needed] is not None)
            and all(values[each] in (None, False) for each in barring)
        )

    def function(self) -> Callable[..., int | None]:
        module, _, name = self.target.partition(":")
        __import__(module)
        found: Callable[..., int | None] = getattr(sys.modules[module], name)
        return found


class Group:
    """A word with commands below it. With a `default` it stands for that one by itself."""

    __slots__ = ("commands", "default", "help")

    def __init__(
        self, help: str, commands: "dict[str, Verb | Group]", default: str | None = None
    ) -> None:
        self.help = help
        self.commands = commands
        self.default = default


def takes(
    *parameters: Parameter | tuple[Parameter, ...],
    rarely: Callable[[], tuple[Parameter, ...]] | None = None,
) -> Callable[[F], F]:
    """Declare what a verb takes, in the order in which its help lists it.

    Parameters that several verbs share may come together. The function gets the session first,
    arguments by name or place, and options by name. Options that are `rarely` given, all of them in
    mappings, are not even made where a line has none of any kind: the function has defaults.
    """

    def declare(function: F) -> F:
        function.__dict__["takes"] = tuple(_each(parameters))
        if rarely is not None:
            function.__dict__["takes_rarely"] = rarely
        return function

    return declare


def examples(*lines: str) -> Callable[[F], F]:
    """Show these command lines at the end of the help of a verb, and in the command reference."""

    def declare(function: F) -> F:
        function.__dict__["examples"] = lines
        return function

    return declare


def examples_of(function: Callable[..., Any]) -> tuple[str, ...]:
    found: tuple[str, ...] = function.__dict__.get("examples", ())
    return found


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    rarely = function.__dict__.pop("takes_rarely", None)
    if rarely is not None:
        function.__dict__["takes"] += rarely()
    return made_parameters_of(function)


def made_parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The same without those that are rarely given, as long as nobody has asked for them."""
    found: tuple[Parameter, ...] = function.__dict__.get("takes", ())
    return found


def argument(
    name: str,
    metavar: str,
    help: str,
    *,
    required: bool = True,
    many: bool = False,
    complete: str | None = None,
    default: str | None = None,
) -> Parameter:
    """A text that goes by its place."""
    return Parameter(
        name,
        help,
        metavar=metavar,
        required=required,
        many=many,
        complete=complete,
        default=default,
    )


def number(
    name: str, metavar: str, help: str, *, least: int, most: int, complete: str | None = None
) -> Parameter:
    """A whole number that goes by its place and must be given."""
    return Parameter(
        name,
        help,
        metavar=metavar,
        kind="integer",
        required=True,
        least=least,
        most=most,
        complete=complete,
    )


def signed(name: str, metavar: str, help: str, *, least: int, most: int) -> Parameter:
    """The same with a sign before it, + or −, if any."""
    return Parameter(
        name, help, metavar=metavar, kind="signed", required=True, least=least, most=most
    )


def option(
    spelling: str,
    help: str,
    *,
    short: str | None = None,
    name: str | None = None,
    kind: Kind = "text",
    metavar: str | None = None,
    default: Any = None,
    required: bool = False,
    many: bool = False,
    least: int | None = None,
    most: int | None = None,
    choices: tuple[str, ...] = (),
    complete: str | None = None,
    unit: str | None = None,
    bare: str | None = None,
) -> Parameter:
    """An option with a value; its name is that of its spelling unless given.

    A number with a `unit` may be written as a person writes a duration or size.
    """
    return Parameter(
        name or _name_of(spelling),
        help,
        (spelling,) if short is None else (spelling, short),
        kind="choice" if choices else kind,
        metavar=metavar,
        default=default,
        required=required,
        many=many,
        least=least,
        most=most,
        choices=choices,
        complete=complete,
        unit=unit,
        bare=bare,
    )


def flag(
    *spellings: str, help: str, opposite: str | None = None, default: bool = False
) -> Parameter:
    """An option without a value."""
    return Parameter(
        _name_of(spellings[0]), help, spellings, opposite, kind="flag", default=default
    )


def group(name: str, *options: Parameter) -> tuple[Parameter, ...]:
    """Options that reach the function as one mapping of those that were given."""
    return tuple(each.in_group(name) for each in options)


def bound(parameters: Iterable[Parameter], values: dict[str, Any]) -> dict[str, Any]:
    """What the function is called with. Each parameter has a value, its default if not given."""
    found: dict[str, Any] = {}
    for parameter in parameters:
        value = values[parameter.name]
        if parameter.group is None:
            found[parameter.name] = value
        else:
            given = found.setdefault(parameter.group, {})
            if value not in (None, []) and value is not False:
                given[parameter.name] = value
    return found


def with_bare_values(parameters: Iterable[Parameter], words: list[str]) -> list[str]:
    """The words, with its value behind each option that may stand without one and does."""
    bare = {text: each.bare for each in parameters if each.bare for text in each.spellings}
    if bare.keys().isdisjoint(words):
        return words
    found = []
    for place, word in enumerate(words):
        found.append(word)
        value = bare.get(word)
        behind = words[place + 1] if place + 1 < len(words) else ""
        if value is not None and not behind.removeprefix("-")[:1].isdecimal():
            found.append(value)
    return found


def default_of(parameter: Parameter) -> Any:
    return [] if parameter.many else parameter.default


def _each(parameters: Iterable[Parameter | tuple[Parameter, ...]]) -> Iterator[Parameter]:
    for each in parameters:
        if isinstance(each, Parameter):
            yield each
        else:
            yield from each


def _name_of(spelling: str) -> str:
    return spelling.lstrip("-").replace("-", "_")
