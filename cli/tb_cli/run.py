"""`compute run`: digests of slice files as b3sum prints them.

Scripts give it ten thousand files at a time. So nothing is imported before it is needed, and for
a file that is right no more is made than its line.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

from compute_market.errors import MarketError, UsageError
from compute_market.text import for_terminal, legible, sum_line
from compute_market.workloads.runner import Runner
from compute_market.workloads.tasks import Result
from compute_market.workloads.workloads import BUILT_IN, resolve
from tb_cli.frame import backend as hashing
from tb_cli.frame import guard
from tb_cli.frame.options import BACKEND, EXECUTOR, JSONL
from tb_cli.frame.progress import Progress
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, flag, option, takes
from tb_cli.network.executors import executor

if TYPE_CHECKING:
    from tb_cli.frame.bulk import Report
    from tb_cli.frame.job_files import Part

_LINES_PER_WRITE = 128
_USUAL_WORKLOAD = "transcode"


@examples(
    "tb-cli compute run a.slice b.slice",
    "tb-cli compute run --check SUMS",
)
@takes(
    argument("paths", "FILE…", "Slices, job files, or - for stdin; lists with --check.", many=True),
    option("--workload", "What to run. [a job file's own, else transcode]"),
    flag("--check", help="Each FILE is a list of sums: check the files it names."),
    flag("--quiet", help="With --check, tell only of files that are wrong."),
    flag("--status", help="With --check, tell nothing: the exit code does."),
    BACKEND,
    EXECUTOR,
    JSONL,
)
def run(
    session: Session,
    paths: list[str],
    *,
    workload: str | None,
    check: bool,
    quiet: bool,
    status: bool,
    backend: str | None,
    workers: int | None,
    where: str,
    cluster_timeout: int,
    jsonl: bool,
) -> int:
    """Prints `<hex>  <path>` as b3sum does.

    A FILE that ends in .json and holds a JSON object with `slices` stands for those slices, run
    with the `workload` it names. Any other FILE is a slice itself.

    With --check it takes what it or b3sum has printed, `-` from stdin, and prints `PATH: OK` or
    `PATH: FAILED` for each; the exit code is 9 when a file does not match or cannot be read.
    """
    if (quiet or status) and not check:
        raise UsageError(f"{'--quiet' if quiet else '--status'} goes with --check")

    def report(total: int) -> "Report":
        from tb_cli.frame.bulk import Report

        return Report(session, single=total == 1, total=total, jsonl=jsonl, aside=True)

    # An open store must not cross a fork; only a line of a batch has one here.
    with (
        executor(where, workers, cluster_timeout, backend) as pool,
        hashing.hasher(session, backend, here=pool is None) as hasher,
        Runner(workers, pool, hasher=hasher, may_fork=not session.is_open) as runner,
    ):
        if check:
            from tb_cli.frame.checked_sums import Check  # Most runs check nothing.

            found = Check(session, runner, workload or _USUAL_WORKLOAD, quiet=quiet, status=status)
            return found.run(paths, jsonl=jsonl)
        as_text = not (jsonl or session.json)
        return write(runner, workload, paths, report, as_text=as_text, color=session.color)


def write(
    runner: Runner,
    workload: str | None,
    paths: list[str],
    report: "Callable[[int], Report]",
    *,
    as_text: bool,
    color: bool,
) -> int:
    """Print what the workload makes of each file, and return the exit code.

    Without a `workload` the slices of a job file are run with the job's own. `report` begins the
    report on so many items. It is called, and all that it takes imported, only if there is
    something to say that is no line of text: a failure, or any result as JSON.
    """
    parts = [(_USUAL_WORKLOAD if workload is None else workload, paths)]
    # As with the options: one search, and most often there is nothing to look at more closely.
    if ".json\0" in "\0".join([*paths, ""]):
        from tb_cli.frame.job_files import expanded

        parts = expanded(paths, workload, _USUAL_WORKLOAD)
        paths = [path for _, part in parts for path in part]
    said = None if as_text else report(len(paths))
    lines: list[str] = []
    # Whoever watches sees every line at once. In a pipe many are written together.
    lines_max = 1 if sys.stdout.isatty() else _LINES_PER_WRITE
    # Of other workloads nothing is known but that they run in threads.
    silent = any(name not in BUILT_IN for name, _ in parts)
    name = paths[0] if len(paths) == 1 else f"{len(paths)} files"
    with Progress(lambda: _length(paths), color=color, silent=silent, name=name) as progress:
        try:
            for path, digest, length, error in _results(runner, parts, progress):
                if error is None and as_text:
                    lines.append(sum_line(path, digest.hex()))
                    if len(lines) >= lines_max:
                        _print(lines)
                        guard.stop_if_lost()
                    continue
                from tb_cli.frame.bulk import Outcome

                said = said or report(len(paths))
                document = {"path": legible(path), "digest": digest.hex(), "bytes": length}
                said.add(Outcome(path, "", document, error))
                if said.count % _LINES_PER_WRITE == 0:
                    guard.stop_if_lost()
        except guard.OutputLost:
            pass  # Nobody reads on: what failed until then still counts.
        finally:
            _print(lines)
    return 0 if said is None else said.end()


def _print(lines: list[str]) -> None:
    text = "".join(lines)
    lines.clear()
    if sys.stdout.isatty():
        text = "".join(map(for_terminal, text.splitlines(keepends=True)))
    if not text.isascii() and hasattr(sys.stdout, "reconfigure"):
        # A name that is no text in this locale goes out as it is on disk, whatever the locale says.
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout.write(text)


def _results(runner: Runner, parts: "list[Part]", progress: Progress) -> Iterator[Result]:
    """Results in the order of the paths; stdin takes its turn between the files.

    Raises UsageError for a workload that there is not, before any file is read.
    """
    if len(parts) == 1 and "-" not in parts[0][1]:
        return runner.run(*parts[0], now_ms=_now_ms(), progress=progress)
    for workload in dict.fromkeys(name for name, _ in parts):
        resolve(workload)
    return _in_turn(runner, parts, progress)


def _in_turn(runner: Runner, parts: "list[Part]", progress: Progress) -> Iterator[Result]:
    before = 0  # bytes of what is done with

    def further(count: int) -> None:
        progress(before + count)

    def advance(count: int) -> None:
        nonlocal before
        before += count
        progress(before)

    for workload, paths in parts:
        for is_stdin, stretch in groupby(paths, "-".__eq__):
            if is_stdin:
                for _ in stretch:
                    yield _of_stdin(workload, advance)
                continue
            length = 0
            for result in runner.run(workload, list(stretch), now_ms=_now_ms(), progress=further):
                length += result.length
                yield result
            before += length


def _of_stdin(workload: str, advance: Callable[[int], None]) -> Result:
    from compute_market.hashing.cpu import hash_stream
    from tb_cli.frame.lines import standard_input

    try:
        if workload not in BUILT_IN:
            raise UsageError(
                f"-: workload {workload!r} runs over files, not over standard input",
                hint="write it to a file first",
            )
        return Result("-", *hash_stream(standard_input(), advance))
    except MarketError as error:
        return Result("-", b"", 0, error)


def _length(paths: list[str]) -> int | None:
    """Bytes of all the files, as far as they can be asked; None if one of them is stdin."""
    if "-" in paths:
        return None
    total = 0
    for path in paths:
        # What cannot be asked is told by its result.
        with suppress(OSError, ValueError):
            total += os.stat(path).st_size
    return total


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
