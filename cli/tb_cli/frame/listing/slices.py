"""The slices of a job as they are listed."""

import sys
from itertools import chain, islice
from typing import Any

from compute_market.jobs import documents, jobs
from compute_market.records import Slice
from compute_market.store.txn import Txn
from compute_market.text import for_terminal, sum_line
from tb_cli.frame import guard
from tb_cli.frame.listing.columns import Column, Noun, itself
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.session import Session

_COLUMNS = (
    Column("index", "#", "number"),
    Column("path", kind="long"),
    Column("bytes", kind="number"),
    Column("units", kind="number"),
    Column("proven_at", "PROVEN", "at"),
    Column("digest"),
    Column("reference"),
)
_SHOWN = ("index", "path", "bytes", "units", "proven_at", "digest")

Numbered = tuple[int, Slice]


def noun(*, references: bool) -> Noun:
    """Slices with their indexes; what each must give is told to who asks for it alone."""

    def document(txn: Txn, numbered: Numbered) -> dict[str, Any]:
        return documents.slice_document(*numbered, reference=references)

    return Noun(
        "slices",
        "index",
        _COLUMNS if references else _COLUMNS[:-1],
        shown=(*_SHOWN, "reference") if references else _SHOWN,
        document=document,
        ranked=True,
    )


def reading(job_id: str, *, unproven: bool, proven: bool = False) -> Reading:
    """Those of a job: all of them, or such alone as are not proven, or are."""

    def page(txn: Txn, start: int, size: int) -> tuple[list[Numbered], int | None]:
        job = jobs.get(txn, job_id)
        end = min(start + size, job.slices)
        found = ((index, jobs.slice_at(txn, job, index)) for index in range(start, end))
        wanted = [
            (index, entry)
            for index, entry in found
            if not (unproven and entry.proven_ms is not None)
            and not (proven and entry.proven_ms is None)
        ]
        return wanted, end if end < job.slices else None

    return Reading(page, 0)


def write_sums(session: Session, selected: Reading, limit: int | None) -> None:
    """Print the references as `b3sum --check` takes them."""
    for _, entry in islice(chain.from_iterable(selected.pages(session, itself)), limit):
        line = sum_line(entry.path, entry.reference.hex())
        sys.stdout.write(for_terminal(line) if sys.stdout.isatty() else line)
        guard.stop_if_lost()
