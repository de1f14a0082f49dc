"""Options and arguments that several commands share, with completion of live ids."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal

import typer

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import MarketError, UsageError
from compute_market.records import Priority
from compute_market.store.store import Txn

COMPLETIONS_MAX = 200
LIVE_JOBS_MAX = 10_000  # looked at for a completion


def _completed(find: Callable[[Txn, bytes], Iterable[str]], incomplete: str) -> list[str]:
    """Ids that begin with a text, from a short read. Completion never fails and never prints."""
    from tb_cli.frame.session import Session

    prefix = incomplete.encode(errors="surrogateescape")
    try:
        with Session.begin({"home": os.environ.get("TB_HOME")}) as session:
            if not os.path.exists(os.path.join(session.store_path, "data.mdb")):
                return []
            found = session.store.view(
                lambda txn: list(islice(find(txn, prefix), COMPLETIONS_MAX)), now_ms=0
            )
            return sorted(found)
    except MarketError:
        return []


def _live_jobs(txn: Txn, prefix: bytes) -> Iterator[str]:
    from compute_market.jobs import jobs

    for job in islice(jobs.live(txn), LIVE_JOBS_MAX):
        if job.job_id.encode().startswith(prefix):
            yield job.job_id


def _keys(table: str, txn: Txn, prefix: bytes) -> Iterator[str]:
    return (key.decode() for key, _ in txn.scan(table, prefix))


def complete_job(incomplete: str) -> list[str]:
    """Live jobs: there may be millions of ended ones."""
    return _completed(_live_jobs, incomplete)


def complete_any_job(incomplete: str) -> list[str]:
    return _completed(partial(_keys, "jobs"), incomplete)


def complete_offer(incomplete: str) -> list[str]:
    return _completed(partial(_keys, "offers"), incomplete)


JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB…", help="Job ids; - reads them from stdin.", autocompletion=complete_job
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job id.", autocompletion=complete_job)]
OfferId = Annotated[
    str, typer.Argument(metavar="OFFER", help="An offer id.", autocompletion=complete_offer)
]
OfferIds = Annotated[
    list[str],
    typer.Argument(
        metavar="OFFER…", help="Offer ids; - reads them from stdin.", autocompletion=complete_offer
    ),
]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")]
Chunk = Annotated[int, typer.Option(min=1, max=100_000, help="Items per transaction.")]
Atomic = Annotated[bool, typer.Option("--atomic", help="All items or none, in one transaction.")]
Limit = Annotated[int | None, typer.Option(min=0, help="At most this many.", show_default=False)]
BackendName = Literal["auto", "cpu", "cuda", "opencl"]
Backend = Annotated[
    BackendName | None,
    typer.Option(help="Where to hash: auto, cpu, cuda or opencl. [the setting `backend`]"),
]
PriorityName = Annotated[Priority | None, typer.Option(help="low, normal or high.")]

CpuCores = Annotated[int | None, typer.Option(min=0, max=AMOUNT_MAX, help="CPU cores.")]
Gpu = Annotated[str | None, typer.Option(help="GPU model, exact.")]
GpuCount = Annotated[int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Number of GPUs.")]
GpuMemory = Annotated[
    int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Memory of all GPUs in MB.")
]
Accelerator = Annotated[str | None, typer.Option(help="Accelerator model, exact.")]
AcceleratorMemory = Annotated[
    int | None, typer.Option(min=0, max=AMOUNT_MAX, help="Memory of the accelerator in MB.")
]


def check_choices(option: str, given: list[str] | None, allowed: Sequence[str]) -> None:
    """Raise UsageError for a value that is none of the allowed ones."""
    for value in given or ():
        if value not in allowed:
            raise UsageError(f"{option}: {value!a} is none of {', '.join(allowed)}")


def merge_capability(document: dict[str, Any], given: dict[str, Any]) -> None:
    """Let capability options win over the capability of a file, field by field."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen:
        base = document.get("capability")
        document["capability"] = (base if isinstance(base, dict) else {}) | chosen
