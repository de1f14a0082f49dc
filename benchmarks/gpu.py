"""Claim: a GPU hashes what it holds near the bound of its arithmetic, and what it is sent near that
of the way there; and `auto` is never far from the better of CPU and GPU.

The first thing to run on a machine with a GPU that nobody has seen yet: it needs the packages that
the library needs, CuPy and NumPy, and nothing that is installed of this repository.

    python benchmarks/gpu.py --out DIR [--only PART]... [--quick]

Each part runs in a process of its own, with a limit, and writes DIR/PART.json as it goes; a part
that fails or takes too long loses nothing that the others have measured, nor what it had measured
itself. DIR/table.md has the rows for README.md, DIR/summary.json how each part ended. Digests are
compared first: a rate of wrong digests is worth nothing. The whole takes six minutes at most.

Ends with 1 if a part failed, a claim was missed, or there is no such device. `--backend opencl`
runs what can be run on an OpenCL device; with PoCL and `--quick` that tries the script itself.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "cli")]

LIMIT_S = 360


class Part(NamedTuple):
    """A part, the module in `gpu_parts` that has its `run`, and for how long it may run."""

    name: str
    limit_s: int
    about: str


PARTS = (
    Part("machine", 40, "the processor, the driver, clocks and power"),
    Part("digests", 110, "every form and every way, compared with the CPU"),
    Part("kernels", 60, "kernel times by events, beside whole calls"),
    Part("copies", 40, "copies, empty launches, waiting, staging threads"),
    Part("resident", 60, "data on the device by its bound"),
    Part("host", 60, "pinned memory, other memory, a warm file"),
    Part("small", 40, "many short slices"),
    Part("automatic", 70, "`auto` by the better of CPU and GPU"),
    Part("start", 40, "a process that computes one digest"),
    Part("checkers", 100, "compute-sanitizer's four tools"),
    Part("profile", 60, "what ncu counts"),
)
# What the last two have a tool watch.
WATCHED = ("checked", "profiled")


def main() -> int:
    given = _arguments().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part:
        return _run_here(given)
    deadline = time.monotonic() + LIMIT_S
    ends = []
    for part in PARTS:
        if not given.only or part.name in given.only:
            print(f"== {part.name}: {part.about}", flush=True)
            limit_s = min(part.limit_s, deadline - time.monotonic())
            ends.append(_run_apart(part.name, limit_s, given))
            print(f"   {ends[-1]['status']}{_why(ends[-1])}", flush=True)
    _write(given.out / "summary.json", {"quick": given.quick, "parts": ends})
    from gpu_parts.table import table

    text = table(ends, given.quick)
    (given.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(end["status"] != "ok" or end["missed"] for end in ends))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    names = [part.name for part in PARTS]
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where JSON goes")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="PART", help=" ".join(names)
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, and few rounds")
    parser.add_argument("--backend", choices=("cuda", "opencl"), default="cuda")
    parser.add_argument("--part", choices=(*names, *WATCHED), help=argparse.SUPPRESS)
    return parser


def _run_here(given: argparse.Namespace) -> int:
    """Run one part in this process."""
    from importlib import import_module

    from gpu_parts.record import Record

    record = Record(given.out / f"{given.part}.json", given.part, given.backend, quick=given.quick)
    with record:
        from gpu_parts.bench import Bench

        import_module(f"gpu_parts.{given.part}").run(Bench(given.backend, given.quick), record)
    return int(record.status != "ok")


def _run_apart(name: str, limit_s: float, given: argparse.Namespace) -> dict[str, Any]:
    """Run one part in a process of its own; returns what it wrote, and how it ended."""
    path = given.out / f"{name}.json"
    path.unlink(missing_ok=True)
    words = [sys.executable, __file__, "--part", name, "--out", str(given.out)]
    words += ["--backend", given.backend, *(["--quick"] if given.quick else [])]
    began = time.monotonic()
    ended = "the six minutes were over before it began"
    if limit_s > 1:
        ended = _ended(words, limit_s, given.out / f"{name}.log")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {"part": name, "status": "failed", "reason": "", "missed": [], "rows": []}
    if ended or found["status"] == "unfinished":
        found |= {"status": "failed", "reason": found["reason"] or ended or "it ended too soon"}
    found["seconds"] = round(time.monotonic() - began, 1)
    _write(path, found)
    return found


def _ended(words: list[str], limit_s: float, log: Path) -> str:
    """Run a command with all that it starts; why it failed, if it did."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"it took longer than {limit_s:.0f} s"
    return f"it ended with {status}, see {log.name}" if status else ""


def _why(end: dict[str, Any]) -> str:
    told = [end["reason"]] if end["reason"] else []
    told += [f"missed: {claim}" for claim in end["missed"]]
    return f": {'; '.join(told)}" if told else f" ({end['seconds']} s)"


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
