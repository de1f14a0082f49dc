"""The options that every list has, those that select what is listed, and what its fields are."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tb_cli.frame.options import JSONL, LIMIT
from tb_cli.frame.verbs import Parameter, flag, group, option

if TYPE_CHECKING:
    from tb_cli.frame.listing.columns import Noun

F = TypeVar("F", bound=Callable[..., Any])

OUTPUTS = ("table", "tsv", "csv", "json", "jsonl", "ids")

SINCE = option(
    "--since", "From then on: 1h ago, 03:00 (today), or a date and time.", metavar="WHEN"
)
UNTIL = option("--until", "Up to then.", metavar="WHEN")
# What selects by time: of the submission of a job, of the posting of an offer, and so on.
DATED = group("filters", SINCE, UNTIL)

# How what was selected is told. It reaches the function of a verb as `listing`.
LISTED = group(
    "listing",
    option(
        "--sort",
        "By this field; -FIELD has the greatest first.",
        metavar="FIELD",
        complete="order",
    ),
    LIMIT,
    option(
        "--columns",
        "Only these fields, in this order.",
        metavar="A,B",
        many=True,
        complete="field",
    ),
    option(
        "--output",
        "table, tsv, csv, json, jsonl or ids. [a table on a terminal, else tsv]",
        short="-o",
        choices=OUTPUTS,
    ),
    JSONL,
    flag("--quiet", "-q", help="Ids alone, one per line."),
    flag("--header", help="The names of the fields above tab-separated lines."),
    flag("--utc", help="Times of a table in UTC, and those of --since and --until."),
    option(
        "--watch",
        "List again after each so long, until a signal. [2s]",
        kind="number",
        unit="seconds",
        metavar="[DURATION]",
        bare="2",
    ),
    flag("--fail-empty", help="Exit with 3 if there is nothing to list."),
)


def among(
    spelling: str,
    help: str,
    *,
    name: str | None = None,
    allowed: tuple[str, ...] = (),
    complete: str | None = None,
) -> Parameter:
    """An option that selects by a field: any of its values will do.

    They come behind one another with commas, or each in an option of its own.
    """
    return Parameter(
        name or spelling.lstrip("-").replace("-", "_"),
        help,
        (spelling,),
        metavar="A,B",
        many=True,
        choices=allowed,
        complete=complete,
    ).in_group("filters")


def columns_of(noun: "Noun | Callable[[Mapping[str, Any]], Noun]") -> Callable[[F], F]:
    """Declare of what a verb lists, or how that is found out of what else it is given.

    A shell completes the names of its fields so.
    """

    def declare(function: F) -> F:
        function.__dict__["columns_of"] = noun
        return function

    return declare


def fields(function: Callable[..., Any], kind: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of what a verb lists with these values: those that are shown, or `order`s."""
    noun = function.__dict__["columns_of"]
    found: Noun = noun(given) if callable(noun) else noun
    if kind == "field":
        return tuple(found.columns)
    return (*found.sortable, *(f"-{name}" for name in found.sortable))
