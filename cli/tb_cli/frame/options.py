"""Arguments and options that several commands share."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.backends import BACKENDS
from compute_market.errors import UsageError
from compute_market.text import clipped
from tb_cli.frame.verbs import Parameter, argument, flag, group, option, parameters_of

AMOUNT_FORMS = ("integer", "string")
# They may stand before the command as well, and do not reach the function of a verb.
GLOBAL = (
    option("--home", "Home directory.", metavar="DIR"),
    option("--lock-timeout", "Seconds to wait for the write lock.", kind="number", metavar="SECS"),
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
JOB_ID = argument("job_id", "JOB", "A job id.", complete="job")
BID_ID = argument("bid_id", "BID", "A bid id.", complete="bid")
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
ATOMIC = flag("--atomic", help="All items or none, in one transaction.")
LIMIT = option("--limit", "At most this many.", kind="integer", least=0, most=2**31)
PRIORITY = option("--priority", "low, normal or high.", choices=("high", "normal", "low"))
CHUNK = option(
    "--chunk", "Items per transaction.", kind="integer", least=1, most=100_000, default=1000
)
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
        metavar="SECS",
        default=30,
    ),
)


def amount(spelling: str, help: str, *, name: str | None = None, default: Any = None) -> Parameter:
    """An option whose value is anything the market can count."""
    return option(
        spelling, help, name=name, kind="integer", least=0, most=AMOUNT_MAX, default=default
    )


def _capability(gpu: Parameter) -> tuple[Parameter, ...]:
    """What reaches the function of a verb as `capability`."""
    return group(
        "capability",
        amount("--cpu-cores", "CPU cores."),
        gpu,
        amount("--gpu-count", "Number of GPUs."),
        amount("--gpu-memory-mb", "Memory of all GPUs in MB."),
        option("--accelerator", "Accelerator model, exact."),
        amount("--accelerator-memory-mb", "Memory of the accelerator in MB."),
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
        option("--buyer", "Who pays."),
        option("--workload", "transcode, inference, gpu_hash or a registered one."),
        option("--slice", "A slice; repeatable.", name="slices", metavar="PATH", many=True),
        amount(
            "--max-price", "Highest quoted price of one unit to pay.", name="max_price_per_unit"
        ),
        amount("--bond", "CT bond of the buyer. [1]", name="consumer_bond"),
        amount("--provider-bond-min", "Least CT bond of the provider. [1]"),
        option(
            "--deadline-secs",
            "Seconds from its start to the deadline. [86400]",
            kind="integer",
            least=0,
            most=DEADLINE_MAX,
        ),
        PRIORITY,
        option("--lane", "industrial or consumer.", choices=("industrial", "consumer")),
    )


def with_whole_paths(given: dict[str, Any]) -> dict[str, Any]:
    """Options with the paths of slices made whole: they are relative to where the command runs."""
    if "slices" not in given:
        return given
    if "" in given["slices"]:
        raise UsageError("--slice is empty", hint="name a file")
    return given | {"slices": [os.path.abspath(path) for path in given["slices"]]}


def with_options(
    document: dict[str, Any], given: dict[str, Any], capability: dict[str, Any]
) -> dict[str, Any]:
    """A document in which options win, field by field, those of the capability too."""
    merged = document | given
    if capability:
        base = document.get("capability")
        merged["capability"] = (base if isinstance(base, dict) else {}) | {
            # What may be given many times and was given once is what a file would say as a text.
            name: value[0] if isinstance(value, list) and len(value) == 1 else value
            for name, value in capability.items()
        }
    return merged


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
    from compute_market.records import check_id
    from compute_market.requests import FieldError

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
            if name in asked:
                return UsageError(error.told_of(parameter.spellings[0]), field=name)
            if alone:
                return UsageError(f"{parameter.spellings[0]} is missing", field=name)
    return error


def check_choices(spelling: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise UsageError for a value that is none of the allowed ones, with the nearest of them."""
    for value in given:
        if value not in allowed:
            from difflib import get_close_matches

            near = get_close_matches(value, allowed, 1)
            raise UsageError(
                f"{spelling}: {clipped(value)!a} is none of {', '.join(allowed)}",
                hint=f"did you mean {near[0]}?" if near else None,
            )


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
