"""NVIDIA's checkers of memory, races, what is read before it is written, and barriers."""

import shutil
import subprocess
import sys
from pathlib import Path

from gpu_parts.bench import Bench
from gpu_parts.record import Record, Skip

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
_LIMIT_S = 60


def run(bench: Bench, record: Record) -> None:
    bench.require()
    if not bench.is_cuda:
        raise Skip("NVIDIA's tools watch CUDA")
    if shutil.which("compute-sanitizer") is None:
        raise Skip("compute-sanitizer is not installed")
    ends: dict[str, str] = {}
    for tool in TOOLS:
        # Libraries probe for what a device may lack: an API call that fails is no mistake of ours.
        words = ["compute-sanitizer", "--tool", tool, "--report-api-errors", "no"]
        words += ["--error-exitcode", "9", *watched("checked", record.directory)]
        ends[tool] = ended(words, record.directory / f"{tool}.log")
        record.put("ends", ends)
    wrong = {tool: end for tool, end in ends.items() if end != "0"}
    record.row("compute-sanitizer, tools that find something", "0", f"{len(wrong)}")
    if wrong:
        raise RuntimeError(f"compute-sanitizer: {wrong}")


def watched(part: str, directory: Path) -> list[str]:
    """The command of a part that a tool is to watch."""
    script = Path(__file__).resolve().parents[1] / "gpu.py"
    return [sys.executable, str(script), "--part", part, "--out", str(directory)]


def ended(words: list[str], log: Path) -> str:
    """The exit code of a command whose output is kept."""
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                words, stdout=output, stderr=subprocess.STDOUT, timeout=_LIMIT_S, check=False
            )
    except subprocess.TimeoutExpired:
        return f"longer than {_LIMIT_S} s"
    return str(done.returncode)
