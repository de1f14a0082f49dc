"""Commands whose system calls fail on purpose, or that die at one.

`faults.c` stands between a process and libc. A server with it is started once and forks for each
command, which takes a few milliseconds instead of a hundred; beside that a child is what a shell
would start. Only calls that change files below one directory are counted, so that the same command
has the same calls every time.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import NamedTuple

import pytest

from tests.support.attacks import Attacks
from tests.support.cli import missing
from tests.support.market import shared_directory
from tests.support.memory import shared_memory
from tests.support.verbs import VERBS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "simulation" / "faults.c"
# In the order of `enum action` in the C source.
_ACTIONS = (
    *("count", "fail", "fail from there on", "write half", "fail afterwards"),
    *("kill before", "kill amidst", "kill after"),
)
_ERRORS = ("EIO", "ENOSPC", "EDQUOT")
# A call that writes less than asked, or dies amidst, has to write bytes.
_OF_WRITES = ("write half", "kill amidst")
ENDS_WITHIN_S = 60


class Call(NamedTuple):
    """One call that a command made, and how many bytes it was to write."""

    name: str
    size: int


class Fault(NamedTuple):
    """What happens at the call of a number, the first being 1."""

    at: int
    action: str
    error: str = "EIO"

    def __str__(self) -> str:
        error = f" with {self.error}" if self.action.startswith("fail") else ""
        return f"{self.action}{error} at call {self.at}"

    @property
    def kills(self) -> bool:
        return self.action.startswith("kill")


class Outcome(NamedTuple):
    """What a command left behind that met a fault, if it came that far."""

    code: int  # negative: the signal that killed it
    out: str
    err: str
    calls: list[Call]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}{self.err}"


def faults_of(calls: Sequence[Call]) -> Iterator[Fault]:
    """Everything that can happen at the calls of a command."""
    for number, call in enumerate(calls, 1):
        for action in _ACTIONS[1:]:
            if action in _OF_WRITES and call.size < 2:
                continue
            if action.startswith("fail"):
                yield from (Fault(number, action, error) for error in _ERRORS)
            else:
                yield Fault(number, action)


def attack(
    attacks: Attacks,
    calls: Sequence[Call],
    rng: Random,
    most: int,
    run: Callable[[Fault], "Outcome"],
    check: Callable[["Outcome"], None],
) -> None:
    """Let at most so many of the faults of a command happen, and check what each leaves behind.

    `calls` are those of the command undisturbed. `run` begins afresh, `check` raises
    AssertionError.
    """
    cases = list(faults_of(calls))
    chosen = rng.sample(cases, min(most, len(cases)))
    failed: dict[Fault, str] = {}
    for fault in chosen:
        outcome = run(fault)
        try:
            check(outcome)
        except AssertionError as error:
            failed[fault] = f"{fault} ({calls[fault.at - 1].name}): {error}\n{outcome}"
    for kills, name in ((True, "killed at a system call"), (False, "a system call fails")):
        tried = [fault for fault in chosen if fault.kills == kills]
        attacks(name, len(tried), sum(fault in failed for fault in tried))
    shown = "\n".join(list(failed.values())[:5])
    assert not failed, f"{len(failed)} of {len(chosen)} cases: {shown}"


def compiled(factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail. Skips where there is no compiler for it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("faults are made by a library for Linux")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(missing("cc", "no C compiler (cc) to make the library of faults"))
    made = shared_directory(factory, "faults") / "faults.so"
    if not made.exists():
        own = made.with_name(f"{os.getpid()}.so")
        options = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror")
        subprocess.run([compiler, *options, "-o", own, SOURCE], check=True)
        os.replace(own, made)
    return made


@contextmanager
def in_memory(name: str) -> Iterator[Path]:
    """A directory where a sync costs nothing; what is tried is the calls, not the disk."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=shared_memory()) as directory:
        yield Path(directory)


class Server:
    """Runs commands under faults, one at a time."""

    def __init__(self, library: Path, scratch: Path) -> None:
        scratch.mkdir(exist_ok=True)
        self._scratch = scratch
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TB_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.faults"],
            cwd=ROOT,
            env=kept | {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=ENDS_WITHIN_S)

    def run(
        self,
        arguments: Sequence[str],
        *,
        below: Path,
        stdin: str = "",
        fault: Fault | None = None,
    ) -> Outcome:
        """Run `tb-cli` with these arguments in the directory `below`, whose `home` is its home."""
        streams = [self._scratch / name for name in ("in", "out", "err", "calls")]
        streams[0].write_text(stdin)
        asked = {
            "arguments": list(arguments),
            "below": str(below),
            "streams": [str(path) for path in streams],
            "at": 0 if fault is None else fault.at,
            "action": _ACTIONS.index("count" if fault is None else fault.action),
            "error": errno.EIO if fault is None else getattr(errno, fault.error),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        out, err, calls = (path.read_text(errors="replace") for path in streams[1:])
        split = (line.split() for line in calls.splitlines())
        return Outcome(code, out, err, [Call(name, int(size)) for name, size in split])


def serve() -> None:
    """Answer each line on stdin, a command, with a line on stdout, how it ended."""
    # What a child would have to import first; it opens nothing.
    for verb in VERBS.values():
        verb.function()
    for module in ("blake3", "lmdb", "compute_market.engine", "tb_cli.frame.render"):
        __import__(module)
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            try:
                _become(json.loads(line))
            finally:
                os._exit(99)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict[str, object]) -> None:
    """Be the command, from here to the end of the process."""
    import ctypes

    from tb_cli import entry

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [str(path) for path in asked["streams"]]  # type: ignore[attr-defined]
    os.dup2(os.open(streams[0], os.O_RDONLY), 0)
    for number, path in enumerate(streams[1:3], 1):
        os.dup2(os.open(path, flags), number)
    calls = os.open(streams[3], flags)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["tb-cli", *asked["arguments"]]  # type: ignore[misc]
    below = str(asked["below"])
    os.chdir(below)
    os.environ |= {"TB_HOME": f"{below}/home", "HOME": below}
    library = ctypes.CDLL(None)
    begin = (below.encode(), asked["at"], asked["action"], asked["error"], calls)
    library.faults_begin(*begin)
    signal.alarm(ENDS_WITHIN_S)
    entry.main()


if __name__ == "__main__":
    serve()
