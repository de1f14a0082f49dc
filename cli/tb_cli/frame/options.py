"""Arguments and options that several commands share."""

from collections.abc import Sequence
from typing import Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.backends import BACKENDS
from compute_market.errors import UsageError
from tb_cli.frame.verbs import Parameter, argument, flag, group, option

# They may stand before the command as well, and do not reach the function of a verb.
GLOBAL = (
    option("--home", "Home directory.", metavar="DIR"),
    option("--lock-timeout", "Seconds to wait for the write lock.", kind="number", metavar="SECS"),
    flag("--no-color", help="Plain text even on a terminal."),
    flag("--debug", help="Show where an error comes from."),
)
JSON = flag("--json", help="Print one JSON document.")
DRY_RUN = flag("--dry-run", "-n", help="Run it and roll it back.")

JOB_IDS = argument(
    "job_ids", "JOB…", "Job ids; - reads them from stdin.", many=True, complete="job"
)
JOB_ID = argument("job_id", "JOB", "A job id.", complete="job")
KEY = option("--key", "Idempotency key: the same call again does nothing.", metavar="K")
JSONL = flag("--jsonl", help="Print one JSON document per line.")
ATOMIC = flag("--atomic", help="All items or none, in one transaction.")
LIMIT = option("--limit", "At most this many.", kind="integer", least=0)
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


def check_choices(spelling: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise UsageError for a value that is none of the allowed ones."""
    for value in given:
        if value not in allowed:
            raise UsageError(f"{spelling}: {value!a} is none of {', '.join(allowed)}")
