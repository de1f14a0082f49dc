"""`compute submit`: job files and options in, hashed slices, one transaction."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import MarketError, UsageError
from compute_market.jobs import drafts, jobs, lifecycle
from compute_market.records import Job, Lane, Refused, Slice
from compute_market.requests import DEADLINE_MAX, JobRequest, build, parse_many
from compute_market.store.store import Txn
from compute_market.workloads.runner import Runner
from compute_market.workloads.workloads import resolve
from tb_cli.frame import bulk, files, options
from tb_cli.frame.session import Session, now_ms


class Prepared:
    """A request on its way in: its slices measured and hashed, or why that failed."""

    def __init__(self, request: JobRequest, directory: str) -> None:
        self.request = request
        entries = request.slice_requests()
        # Slice paths are relative to the directory of the file.
        self.paths = [os.path.abspath(os.path.join(directory, entry.path)) for entry in entries]
        self.inputs: list[Slice] = []
        self.error: MarketError | None = None

    @property
    def name(self) -> str:
        return self.request.job_id


def submit(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE…|-]", help="JSON: a job, or one per line."),
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="The job's id.")] = None,
    buyer: Annotated[str | None, typer.Option(help="Who pays.")] = None,
    workload: Annotated[
        str | None, typer.Option(help="transcode, inference, gpu_hash or a registered one.")
    ] = None,
    slice_: Annotated[
        list[str] | None, typer.Option("--slice", metavar="PATH", help="A slice; repeatable.")
    ] = None,
    max_price: Annotated[
        int | None,
        typer.Option(min=0, max=AMOUNT_MAX, help="Highest quoted price of one unit to pay."),
    ] = None,
    bond: Annotated[
        int | None, typer.Option(min=0, max=AMOUNT_MAX, help="CT bond of the buyer. [1]")
    ] = None,
    deadline_secs: Annotated[
        int | None,
        typer.Option(min=0, max=DEADLINE_MAX, help="Seconds until the deadline. [86400]"),
    ] = None,
    priority: options.PriorityName = None,
    lane: Annotated[Lane | None, typer.Option(help="industrial or consumer.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Keep jobs without a match until an offer fits.")
    ] = False,
    cpu_cores: options.CpuCores = None,
    gpu: options.Gpu = None,
    gpu_count: options.GpuCount = None,
    gpu_memory_mb: options.GpuMemory = None,
    accelerator: options.Accelerator = None,
    accelerator_memory_mb: options.AcceleratorMemory = None,
    chunk: options.Chunk = 1000,
    atomic: options.Atomic = False,
    jsonl: options.Jsonl = False,
) -> int:
    """Submit jobs. Options win over the fields of a file; the same job again changes nothing.

    Slices stay where they are; those without a reference hash are hashed first.
    """
    session = Session.of(ctx)
    given = {
        "job_id": job_id,
        "buyer": buyer,
        "workload": workload,
        "slices": [os.path.abspath(path) for path in slice_] if slice_ else None,
        "max_price_per_unit": max_price,
        "consumer_bond": bond,
        "deadline_secs": deadline_secs,
        "priority": priority,
        "lane": lane,
    }
    capability = {
        "cpu_cores": cpu_cores,
        "gpu": gpu,
        "gpu_count": gpu_count,
        "gpu_memory_mb": gpu_memory_mb,
        "accelerator": accelerator,
        "accelerator_memory_mb": accelerator_memory_mb,
    }
    prepared = list(_requests(paths or [], given, capability))
    if len(prepared) > 1 and job_id is not None:
        raise UsageError(f"--job-id names one job, {len(prepared)} are given")

    def act(txn: Txn, item: Prepared) -> bulk.Outcome:
        if item.error is not None:
            raise item.error
        verdict = lifecycle.submit(txn, session.config, item.request, item.inputs, wait=wait)
        if isinstance(verdict, Refused):
            return bulk.failed(item.name, bulk.refusal(verdict), f"refused job {item.name}")
        document = jobs.document(txn, verdict.job) | {"changed": verdict.changed}
        return bulk.Outcome(item.name, _text(verdict), document)

    with Runner() as runner:

        def prepare(part: list[Prepared]) -> None:
            for item in part:
                measure(item, runner)

        return bulk.run(
            session,
            prepared,
            act,
            name=lambda item: item.name,
            prepare=prepare,
            chunk=chunk,
            atomic=atomic,
            jsonl=jsonl,
        )


def measure(item: Prepared, runner: Runner) -> None:
    """Fill in path, length and reference of every slice; the slow part, outside any transaction."""
    requests = item.request.slice_requests()
    unknown = [
        path for path, entry in zip(item.paths, requests, strict=True) if entry.reference is None
    ]
    try:
        resolve(item.request.workload)
        hashed = runner.run(item.request.workload, unknown, now_ms=now_ms())
        for path, entry in zip(item.paths, requests, strict=True):
            if entry.reference is not None:
                item.inputs.append(Slice(path, _length(path), bytes.fromhex(entry.reference)))
                continue
            result = next(hashed)
            if result.error is not None:
                raise result.error
            item.inputs.append(Slice(path, result.length, result.digest))
    except MarketError as error:
        item.error = error


def draft_of(path: str) -> Job:
    """The job a file describes, for `explain`; what the file leaves out asks for nothing."""
    given = {"job_id": "draft", "buyer": "draft", "max_price_per_unit": AMOUNT_MAX}
    data = parse_many(files.read(path), path)[0][1]
    slices = {"slices": ["-"]} if not data.get("slices") else {}
    request = build(given | data | slices, JobRequest, path)
    item = Prepared(request, os.path.dirname(path))
    if not slices:
        with Runner() as runner:
            measure(item, runner)
        if item.error is not None:
            raise item.error
    return drafts.sketch(request, item.inputs)


def _requests(
    paths: list[str], given: dict[str, Any], capability: dict[str, Any]
) -> Iterator[Prepared]:
    if not paths:
        yield _request({}, given, capability, "options", "")
    for path in paths:
        source = files.source_of(path)
        directory = "" if path == "-" else os.path.dirname(path)
        for name, document in parse_many(files.read(path), source):
            yield _request(document, given, capability, name, directory)


def _request(
    document: dict[str, Any],
    given: dict[str, Any],
    capability: dict[str, Any],
    source: str,
    directory: str,
) -> Prepared:
    chosen = {name: value for name, value in given.items() if value is not None}
    if "deadline_secs" in chosen:
        document = {name: value for name, value in document.items() if name != "deadline"}
    merged = document | chosen
    options.merge_capability(merged, capability)
    prepared = Prepared(build(merged, JobRequest, source), directory)
    for path in prepared.paths:
        files.check_text(path, f"{source}: the slice")
    return prepared


def _length(path: str) -> int:
    from compute_market.hashing.files import open_slice

    descriptor, status = open_slice(path)
    os.close(descriptor)
    return status.st_size


def _text(submitted: lifecycle.Submitted) -> str:
    job = submitted.job
    if not submitted.changed:
        return f"job {job.job_id} exists, unchanged: {job.state}"
    if job.state == "pending":
        return f"submitted job {job.job_id}: pending, no offer fits yet"
    units = "1 unit" if job.units == 1 else f"{job.units} units"
    return (
        f"submitted job {job.job_id}: {job.state}, {units} at {job.price_per_unit} "
        f"from {job.provider}"
    )
