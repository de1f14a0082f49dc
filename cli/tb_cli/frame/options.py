"""Arguments and options that several commands share."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.backends import BACKENDS
from compute_market.errors import UsageError
from compute_market.text import clipped, did_you_mean
from tb_cli.frame.home import PARTIES
from tb_cli.frame.verbs import Parameter, argument, flag, group, option, parameters_of

if TYPE_CHECKING:
    from compute_market.records import Side

AMOUNT_FORMS = ("integer", "string")
# They may stand before the command as well, and do not reach the function of a verb.
GLOBAL = (
    option("--home", "Home directory.", metavar="DIR"),
    option(
        "--lock-timeout",
        "How long to wait for the write lock.",
        kind="number",
        unit="seconds",
    ),
    flag("--no-color", help="Plain text even on a terminal."),
    flag("--debug", help="Show where an error comes from."),
    option(
        "--json-amounts",
        "Amounts in JSON as numbers or as text, for readers that hold 53 bits. [integer]",
        choices=AMOUNT_FORMS,
    ),
)
JSON = flag("--json", help="Print one JSON document.")
DRY_RUN = flag("--dry-run", "-n", help="Run it and roll it back.")

JOB_IDS = argument(
    "job_ids", "JOB…", "Job ids; - reads them from stdin.", many=True, complete="job"
)
_ALL_LIVE = "All that live, but for what other options leave out."
# Of a verb that acts on a selection as well, which has the options of `job_selection`.
JOB_IDS_OR_NONE = argument(
    "job_ids",
    "[JOB…]",
    "Job ids; - reads them from stdin.",
    required=False,
    many=True,
    complete="job",
)
JOB_ID = argument("job_id", "JOB", "A job id.", complete="job")
OFFER_IDS = argument(
    "offer_ids", "OFFER…", "Offer ids; - reads them from stdin.", many=True, complete="offer"
)
BUNDLE_IDS = argument(
    "bundle_ids",
    "ID…",
    "Ids of bundle receipts; - reads them from stdin.",
    many=True,
    complete="bundle",
)
BID_ID = argument("bid_id", "BID", "A bid id.", complete="bid")
BID_IDS = argument(
    "bid_ids", "BID…", "Bid ids; - reads them from stdin.", many=True, complete="bid"
)
AT = option("--at", "As it was then: 1h ago, 03:00 (today), or a date and time.", metavar="WHEN")
KEY = option("--key", "Idempotency key: the same call again does nothing.", metavar="K")
FAILED_TO = option(
    "--failed-to",
    "Write what failed or was not tried to this file, to be handed in again.",
    metavar="FILE",
)
# What a file of the verb is like, printed in place of everything else.
PRINTED = (
    flag("--schema", help="Print the JSON Schema of a file, and do nothing else."),
    flag("--example", help="Print a complete file, and do nothing else."),
)
JSONL = flag("--jsonl", help="Print one JSON document per line.")
YES = flag("--yes", help="Do not ask on a terminal; elsewhere it never does.")
ATOMIC = flag("--atomic", help="All items or none, in one transaction.")
LIMIT = option(
    "--limit",
    "At most this many: the newest, or the first by --sort or rank.",
    kind="integer",
    least=0,
    most=2**31,
)
PRIORITY = option("--priority", "low, normal or high.", choices=("high", "normal", "low"))
CHUNK = option("--chunk", "Items per transaction. [1000]", kind="integer", least=1, most=100_000)
BACKEND = option(
    "--backend",
    f"Where to hash: {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}. [the setting `backend`]",
    choices=BACKENDS,
)
EXECUTOR = (
    option(
        "--workers",
        "Threads that run slices. [one per core]",
        kind="integer",
        least=1,
        most=1024,
    ),
    option(
        "--executor",
        "Where slices run: threads, or dask://HOST:PORT.",
        name="where",
        metavar="WHERE",
        default="threads",
    ),
    option(
        "--cluster-timeout",
        "How long to wait for a cluster to answer, or for a worker to come back.",
        kind="integer",
        least=1,
        most=86_400,
        unit="seconds",
        default=30,
    ),
)


def amount(
    spelling: str,
    help: str,
    *,
    name: str | None = None,
    default: Any = None,
    unit: str | None = None,
) -> Parameter:
    """An option whose value is anything the market can count."""
    return option(
        spelling,
        help,
        name=name,
        kind="integer",
        least=0,
        most=AMOUNT_MAX,
        default=default,
        unit=unit,
    )


def _capability(gpu: Parameter) -> tuple[Parameter, ...]:
    """What reaches the function of a verb as `capability`."""
    return group(
        "capability",
        amount("--cpu-cores", "CPU cores."),
        gpu,
        amount("--gpu-count", "Number of GPUs."),
        amount("--gpu-memory-mb", "Memory of all GPUs, in MB.", unit="MB"),
        option("--accelerator", "Accelerator model, exact."),
        amount("--accelerator-memory-mb", "Memory of the accelerator, in MB.", unit="MB"),
    )


# What an offer has, and what a job asks for.
OFFERED = _capability(option("--gpu", "GPU model, exact."))
ASKED = _capability(
    option("--gpu", "GPU model, exact; repeatable, any of them will do.", many=True)
)


def job_terms() -> tuple[Parameter, ...]:
    """What a job asks for beside a capability; it reaches the function of a verb as `given`."""
    from compute_market.records import DEADLINE_MAX

    return group(
        "given",
        option("--job-id", "The job's id."),
        option("--buyer", "Who pays. [TB_BUYER, if set]"),
        option("--workload", "transcode, inference, gpu_hash or a registered one."),
        option("--slice", "A slice; repeatable.", name="slices", metavar="PATH", many=True),
        amount(
            "--max-price", "Highest quoted price of one unit to pay.", name="max_price_per_unit"
        ),
        amount("--bond", "CT bond of the buyer. [1]", name="consumer_bond"),
        amount("--provider-bond-min", "Least CT bond of the provider. [1]"),
        option(
            "--deadline",
            "When it must be done: 03:00 (today), a date and time, or unix seconds.",
            metavar="WHEN",
        ),
        option(
            "--deadline-secs",
            "How long from its start to the deadline. [1d]",
            kind="integer",
            unit="seconds",
            least=0,
            most=DEADLINE_MAX,
        ),
        PRIORITY,
        option("--lane", "industrial or consumer.", choices=("industrial", "consumer")),
    )


def job_filters() -> tuple[Parameter, ...]:
    """What selects jobs, be it to list them or to act on them: it reaches a verb as `filters`."""
    from compute_market.records import DEADLINE_MAX, JOB_STATES, LANES, PRIORITIES
    from tb_cli.frame.listing.options import among

    return (
        among("--state", f"Only in these states: {', '.join(JOB_STATES)}.", allowed=JOB_STATES),
        among("--buyer", "Only of these buyers."),
        among("--provider", "Only on offers of these providers."),
        among("--offer", "Only on these offers.", name="offer_id", complete="offer"),
        among("--workload", "Only of these workloads."),
        among("--priority", f"Only of these: {', '.join(PRIORITIES)}.", allowed=PRIORITIES),
        among("--lane", f"Only of these lanes: {', '.join(LANES)}.", allowed=LANES),
        *group(
            "filters",
            flag("--unfunded", help="Only those that were placed while no money moved."),
            flag("--held", help="Only those that are held."),
            option(
                "--overdue-in",
                "Only live ones whose deadline is no further away.",
                kind="integer",
                unit="seconds",
                least=0,
                most=DEADLINE_MAX,
            ),
            option(
                "--since",
                "Submitted from then on: 1h ago, 03:00 (today), or a date and time.",
                metavar="WHEN",
            ),
            option("--until", "Submitted up to then.", metavar="WHEN"),
        ),
    )


def waiting_filters() -> tuple[Parameter, ...]:
    """The same of jobs that wait."""
    from compute_market.records import WAITING_STATES
    from tb_cli.frame.listing.options import among

    states = f"Only in these states: {', '.join(WAITING_STATES)}."
    _, *others = job_filters()
    return (among("--state", states, allowed=WAITING_STATES), *others)


def job_selection() -> tuple[Parameter, ...]:
    """What selects the jobs that a verb acts upon: it reaches the verb as `filters`, and how the
    selection is dealt with as `selecting`."""
    return job_filters() + selecting(_ALL_LIVE, YES)


def waited_selection() -> tuple[Parameter, ...]:
    """The same of a verb that changes nothing."""
    return job_filters() + selecting(_ALL_LIVE)


def offer_selection() -> tuple[Parameter, ...]:
    """The same of the verb that withdraws offers."""
    from tb_cli.frame.listing.offers import FILTERS

    return FILTERS + selecting("All that are not withdrawn.", YES)


def executed_selection() -> tuple[Parameter, ...]:
    """The same of the verb that runs jobs."""
    again = flag("--until-empty", help="Again until none is left that was not tried.")
    all_of_them = "All active jobs, those with the next deadline first."
    return job_filters() + selecting(all_of_them, again, YES)


def selecting(all_of_them: str, *more: Parameter) -> tuple[Parameter, ...]:
    """How a verb deals with a selection."""
    return group(
        "selecting",
        flag("--all", help=all_of_them),
        *more,
        flag("--fail-empty", help="Exit with 3 if nothing is selected."),
    )


def with_options(
    document: dict[str, Any], given: dict[str, Any], capability: dict[str, Any]
) -> dict[str, Any]:
    """A document in which options win, field by field, those of the capability too.

    A deadline of the document gives way to one that is given in either way.
    """
    if "deadline" in given or "deadline_secs" in given:
        others = ("deadline", "deadline_secs")
        document = {name: value for name, value in document.items() if name not in others}
    merged = document | given
    if capability:
        base = document.get("capability")
        merged["capability"] = (base if isinstance(base, dict) else {}) | {
            # What may be given many times and was given once is what a file would say as a text.
            name: value[0] if isinstance(value, list) and len(value) == 1 else value
            for name, value in capability.items()
        }
    return merged


def with_party(document: dict[str, Any], side: "Side") -> dict[str, Any]:
    """The document with the party that TB_BUYER or TB_PROVIDER names, if it has none.

    Raises UsageError for a variable that names nobody.
    """
    if side in document:
        return document
    variable = PARTIES[side]
    name = os.environ.get(variable)
    if name is None:
        return document
    from compute_market.records import check_id

    return document | {side: check_id(name, variable)}


def by_option(
    error: UsageError,
    given: dict[str, Any],
    capability: dict[str, Any],
    verb: Callable[..., Any],
    *,
    alone: bool,
) -> UsageError:
    """What is wrong with a document, told of the option that gave or could give the field.

    With `alone` there is no file that could have given it.
    """
    from compute_market.field_errors import FieldError
    from compute_market.records import check_id

    asked = given | capability
    for parameter in parameters_of(verb):
        value = asked.get(parameter.name)
        if parameter.name in ("job_id", "offer_id", "buyer", "provider") and value is not None:
            try:
                check_id(value, parameter.spellings[0])
            except UsageError as found:
                return found
    if isinstance(error, FieldError):
        name = error.details["field"].removeprefix("capability.")
        for parameter in parameters_of(verb):
            if parameter.name != name or not parameter.spellings:
                continue
            spelling = parameter.spellings[0]
            if name in asked:
                return UsageError(error.told_of(spelling), field=name)
            if alone:
                return UsageError(f"{spelling} is missing", field=name)
            if error.problem == "is missing":
                hint = f"it goes into the file, or is given with {spelling}"
                return UsageError(error.message, hint=hint, field=name)
    return error


def check_choices(spelling: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise UsageError for a value that is none of the allowed ones, with the nearest of them."""
    for value in given:
        if value not in allowed:
            raise UsageError(
                f"{spelling}: {clipped(value)!a} is none of {', '.join(allowed)}",
                hint=did_you_mean(value, allowed),
            )


def are_several(ids: Sequence[str]) -> bool:
    """Whether more than one id is meant: several are given, or `-`, which stands for stdin."""
    return len(ids) > 1 or ids[0] == "-"


def check_given(spelling: str, given: str | None) -> None:
    """Raise UsageError unless the option was left out or names an id."""
    if given is not None:
        from compute_market.records import check_id

        check_id(given, spelling)


def digest_of(spelling: str, text: str) -> bytes:
    """The 32 bytes behind the 64 hex digits of an option. Raises UsageError."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise UsageError(f"{spelling}: {clipped(text)!a} is not 64 hex digits")
    return digest
