"""Processes that begin with a library imported, forked from one that has imported it.

A command takes a tenth of a second to import what it does, `distributed` a whole one, which a test
of many processes would pay for each of them. Beside that they are what a shell would start: their
own arguments, environment, directory, descriptors and signals. What reads the environment as it is
imported has read that of the server; a process for which this matters, or which writes to a
terminal, is started afresh.
"""

import array
import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MESSAGE_BYTES = 2**17
_DESCRIPTORS_MAX = 100
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Forked:
    """A process that the server has forked, as far as tests use a `subprocess.Popen`."""

    def __init__(self, status: int, given: int | None, out: int | None, err: int | None) -> None:
        self._status = status
        # Nothing is read ahead, so that `communicate` has what no other has read.
        self.stdin = None if given is None else os.fdopen(given, "wb", buffering=0)
        self.stdout = None if out is None else os.fdopen(out, "rb", buffering=0)
        self.stderr = None if err is None else os.fdopen(err, "rb", buffering=0)
        self._read = {end: b"" for end in (self.stdout, self.stderr) if end is not None}
        self.returncode: int | None = None
        self.pid = int(self._line())

    def _line(self) -> str:
        """The next line of what the server tells: the process id, then how the process ended."""
        text = b""
        while not text.endswith(b"\n"):
            read = os.read(self._status, 1)
            assert read, "the server died"
            text += read
        return text.decode()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._line())
            os.close(self._status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            select.select([self._status], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # It has just ended.
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, given: bytes = b"", timeout: float = 60) -> tuple[bytes, bytes]:
        """What the process writes until it ends; it is given what fits a pipe."""
        until = time.monotonic() + timeout
        if self.stdin is not None and not self.stdin.closed:
            with suppress(BrokenPipeError), self.stdin:
                self.stdin.write(given)
        while reading := [end for end in self._read if not end.closed]:
            ready = select.select(reading, [], [], max(0.0, until - time.monotonic()))[0]
            if not ready:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            for end in ready:
                read = end.read(2**16)
                self._read[end] += read
                if not read:
                    end.close()
        self.wait(max(0.0, until - time.monotonic()))
        out, err = (b"" if end is None else self._read[end] for end in (self.stdout, self.stderr))
        return out, err


class Server:
    """Forks processes that have imported some modules."""

    def __init__(self, *modules: str) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forked", str(other.fileno()), *modules],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"},
                pass_fds=(other.fileno(),),
                # As a shell would start it, whatever signals this process ignores.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)

    def start(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        stdin: int,
        directory: Path | None = None,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> Forked:
        """Run a module as `python -m` does, or text for `-c`.

        That is in this process's directory, unless one is given.
        """
        tells, told = os.pipe()
        read, write = os.pipe() if stdin == subprocess.PIPE else (os.dup(stdin), None)
        mine, given = [write], [read]
        for stream in (stdout, stderr):
            read, write = os.pipe() if stream == subprocess.PIPE else (None, os.dup(stream))
            mine.append(read)
            given.append(write)
        asked = {
            "module": module,
            "arguments": arguments,
            "directory": os.getcwd() if directory is None else str(directory),
            "environment": dict(environment),
            "descriptors": [0, 1, 2, *pass_fds],
        }
        sent = array.array("i", [told, *given, *pass_fds])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)]
        self._socket.sendmsg([json.dumps(asked).encode()], ancillary)
        for descriptor in (told, *given):
            os.close(descriptor)
        return Forked(tells, *mine)


@cache
def commands() -> Server:
    """The server of this run whose processes have imported every command of `tb-cli`."""
    server = Server("tests.support.every_command")
    atexit.register(server.close)
    return server


def serve(connection: socket.socket) -> None:
    """Fork a process for each message, and tell who sent it its id and how it ended."""
    told: dict[int, int] = {}  # the descriptors by which that is told, per process
    ended, at_an_end = socket.socketpair()
    for end in (ended, at_an_end):
        end.setblocking(False)
    signal.set_wakeup_fd(at_an_end.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A signal to all processes of a terminal is none of its business, and one that is sent to a
    # process waits until that has begun.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    gc.freeze()  # What is there is shared with the processes as long as nobody writes to it.
    while True:
        ready = select.select([connection, ended], [], [])[0]
        if ended in ready:
            ended.recv(4096)
            _tell_ends(told)
        if connection not in ready:
            continue
        message, given, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _DESCRIPTORS_MAX)
        if not message:
            for process in told:
                os.kill(process, signal.SIGKILL)  # What a test that failed has left.
                os.waitpid(process, 0)
            return
        process = os.fork()
        if process == 0:
            for descriptor in (given.pop(0), *told.values()):
                os.close(descriptor)
            for end in (connection, ended, at_an_end):
                end.close()
            _become(json.loads(message), given)
        told[process] = given.pop(0)
        _tell(told[process], process)
        for descriptor in given:
            os.close(descriptor)


def _tell_ends(told: dict[int, int]) -> None:
    """Tell how processes ended that have."""
    while told and (found := os.waitpid(-1, os.WNOHANG))[0]:
        if (descriptor := told.pop(found[0], None)) is not None:
            _tell(descriptor, os.waitstatus_to_exitcode(found[1]))
            os.close(descriptor)


def _tell(descriptor: int, number: int) -> None:
    with suppress(BrokenPipeError):  # Nobody wants to know.
        os.write(descriptor, f"{number}\n".encode())


def _become(asked: dict[str, object], given: list[int]) -> None:
    """Be the process, from here to its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # Out of the way of the numbers that are wanted.
    high = [os.dup2(each, 500 + place) for place, each in enumerate(given)]
    for each in given:
        os.close(each)
    for number, each in zip(asked["descriptors"], high, strict=True):  # type: ignore[call-overload]
        os.dup2(each, number, inheritable=True)
        os.close(each)
    os.chdir(str(asked["directory"]))
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    module, words = str(asked["module"]), [*asked["arguments"]]  # type: ignore[misc]
    text = words.pop(0) if module == "-c" else ""
    sys.argv = ["", *words]
    code = None
    try:
        if module == "-c":
            exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if code is None:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        _end(1 if code is None else code)


def _end(code: int) -> None:
    """What an interpreter does at its end, but for what it frees."""
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        __import__(name)
    serve(socket.socket(fileno=int(sys.argv[1])))
