"""Job files: the slices they list, and the jobs they ask for with those slices measured."""

import json
import os
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import MarketError, UsageError
from compute_market.hashing.files import open_slice
from compute_market.requests import DOCUMENT_BYTES_MAX, SliceList, build, documents, parse
from tb_cli.frame import files
from tb_cli.frame.lines import Lines

if TYPE_CHECKING:
    from compute_market.records import Job

# A workload, and the files to run it over.
Part = tuple[str, list[str]]


def expanded(paths: list[str], workload: str | None, usual: str) -> list[Part]:
    """The paths, with the slices of a job file in the place of its own, by what runs over them.

    That is `workload` if given, else the job's own, and the `usual` one for all other files. Raises
    UsageError for a job file whose slices or workload are wrong.
    """
    found: list[Part] = []
    for path in paths:
        part = _job(path, workload, usual) if path.endswith(".json") else None
        found.append(part or (usual if workload is None else workload, [path]))
    return [
        (name, [path for _, part in alike for path in part])
        for name, alike in groupby(found, itemgetter(0))
    ]


def _job(path: str, workload: str | None, usual: str) -> Part | None:
    """What a job file stands for; None for any other file, which stands for itself."""
    content = _with_slices(path)
    if content is None:
        return None
    document = parse(content, path)
    if not document["slices"]:
        raise UsageError(f"{path}: lists no slices")
    # What is not used may be wrong.
    used = ("slices", "workload") if workload is None else ("slices",)
    job = build({name: document[name] for name in used if name in document}, SliceList, path)
    if workload is None:
        workload = job.workload if isinstance(job.workload, str) else usual
    directory = files.directory_of(path)
    names = [entry if isinstance(entry, str) else entry.path for entry in job.slices]
    # A slice called - is a file, not stdin.
    inside = [os.path.join(directory or ("." if name == "-" else ""), name) for name in names]
    return workload, inside


def _with_slices(path: str) -> bytes | None:
    """The content of a file that is a JSON object with `slices`, be they right or wrong."""
    try:
        descriptor, status = open_slice(path)
        with open(descriptor, "rb") as file:
            if status.st_size > files.SIZE_MAX:
                return None
            content = file.read(files.SIZE_MAX)
        document = json.loads(content.decode())
    # A file that cannot be read is told by its own result, as any other is.
    except (MarketError, OSError, ValueError, RecursionError):
        return None
    return content if isinstance(document, dict) and "slices" in document else None


def draft_of(path: str, slice_root: str) -> "Job":
    """The job a file describes, for `explain`; what the file leaves out asks for nothing."""
    from compute_market.execution import known_slices
    from compute_market.jobs import drafts
    from compute_market.requests import JobRequest

    given = {"job_id": "draft", "buyer": "draft", "max_price_per_unit": AMOUNT_MAX}
    data = next(documents(Lines(path, DOCUMENT_BYTES_MAX), path), None)
    if data is None:
        raise UsageError(f"{path}: is empty")
    if data.error is not None:
        raise data.error
    slices = {"slices": ["-"]} if not data.fields.get("slices") else {}
    request = build(given | data.fields | slices, JobRequest, path)
    directory = files.directory_of(path)
    inputs = [] if slices else known_slices(request, directory, slice_root)
    return drafts.sketch(request, inputs)
