"""Job files: the slices they list, and the jobs they ask for with those slices measured."""

import json
import os
from collections.abc import Callable
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import MarketError, UsageError
from compute_market.hashing.files import open_slice
from compute_market.json_documents import (
    DOCUMENT_BYTES_MAX,
    NO_FILE,
    Document,
    documents,
    parse,
)
from compute_market.requests import SliceList, build
from compute_market.text import quoted
from tb_cli.frame import files
from tb_cli.frame.lines import Lines, source_of
from tb_cli.frame.options import by_option, with_options, with_party

if TYPE_CHECKING:
    from compute_market.records import Slice
    from compute_market.requests import JobRequest

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


class Draft(NamedTuple):
    """A job that is not there yet."""

    request: "JobRequest"
    inputs: list["Slice"]
    is_ours: bool  # its buyer is named
    is_whole: bool  # all that a submission needs is given


def draft_of(
    path: str | None,
    given: dict[str, Any],
    capability: dict[str, Any],
    *,
    slice_root: str,
    verb: Callable[..., Any],
) -> Draft:
    """The job that a file or the options of a verb describe; what is left out asks for nothing.

    Options win. Raises UsageError for a file with more than one job.
    """
    from compute_market.execution import known_slices
    from compute_market.requests import JobRequest

    document = NO_FILE if path is None else _only(path)
    free: dict[str, Any] = {
        "job_id": "draft",
        "buyer": "draft",
        "max_price_per_unit": AMOUNT_MAX,
    }
    if path is None:
        free["workload"] = "transcode"  # No offer is chosen by it.
    asked = with_party(with_options(document.fields, given, capability), "buyer")
    slices = {} if asked.get("slices") else {"slices": ["-"]}
    try:
        request = build(free | asked | slices, JobRequest, document.source)
    except UsageError as error:
        raise by_option(error, given, capability, verb, alone=path is None) from error
    directory = "" if path is None else files.directory_of(path)
    inputs = [] if slices else known_slices(request, directory, slice_root)
    is_whole = not slices and asked.keys() >= {*free, "workload"}
    return Draft(request, inputs, "buyer" in asked, is_whole)


def _only(path: str) -> Document:
    """The only job of a file."""
    source = source_of(path)
    found = list(islice(documents(Lines(path, DOCUMENT_BYTES_MAX), source), 2))
    if not found:
        raise UsageError(f"{source}: is empty")
    if found[0].error is not None:
        raise found[0].error
    if len(found) > 1:
        first = "sed -n 1p" if found[0].columns is None else "jq '.[0]'"
        raise UsageError(
            f"{source}: holds more than one job",
            hint=f"one at a time: `{first} {quoted(path)}` gives the first, and - reads stdin",
        )
    return found[0]
