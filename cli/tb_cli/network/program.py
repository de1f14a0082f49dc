"""Bundles forwarded by a program: the bundle on its standard input, the hash on its output."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Final

from compute_market.courier.courier import id_text
from compute_market.courier_records import BundleReceipt
from compute_market.errors import BusyError, IntegrityError, MarketError
from compute_market.text import cause_of, clipped, one_line, quoted
from tb_cli.network.destinations import Answer, Sender, failed, pieces

_PIPE_BYTES: Final = 64 * 1024
_TOLD_MAX: Final = 4096  # bytes of an output that are looked at


class Program:
    """A program, started once for each bundle, with `BUNDLE_ID`, `BUNDLE_HASH` and `BUNDLE_SENDER`
    in its environment. Exit code 0 and the hash as its output acknowledge the bundle.

    It is killed, with its process group, when it neither reads on nor ends for as long as a
    destination may take.
    """

    batch = 1

    def __init__(self, path: str, sender: Sender) -> None:
        self._path = path
        self._sender = sender
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def send(self, receipts: Sequence[BundleReceipt]) -> list[Answer]:
        (receipt,) = receipts
        wanted = receipt.bundle_hash.hex()
        with self._started(receipt) as process:
            self._running.add(process)
            if self._is_closed:  # It was not there yet to be killed with the others.
                _kill(process)
            try:
                told = _Run(process, self._sender.timeout_s).fed(pieces(receipt, self._sender.open))
            except IntegrityError as error:
                return [failed(error)]
            except TimeoutError as error:
                raise self._failed(f"killed after {self._sender.timeout_s} s without an end") from (
                    error
                )
            finally:
                _kill(process)
                self._running.discard(process)
        if process.returncode:
            raise self._failed(_ending(process.returncode))
        if told.strip() != wanted.encode():
            shown = clipped(one_line(told.decode(errors="replace")), 80)
            raise self._failed(f"it printed '{shown}', not the hash {wanted}")
        return [Answer("acknowledged")]

    def close(self) -> None:
        self._is_closed = True
        for process in list(self._running):
            _kill(process)

    def _started(self, receipt: BundleReceipt) -> "subprocess.Popen[bytes]":
        about = {
            "BUNDLE_ID": id_text(receipt.receipt_id),
            "BUNDLE_HASH": receipt.bundle_hash.hex(),
            "BUNDLE_SENDER": receipt.sender,
        }
        try:
            return subprocess.Popen(
                [self._path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | about,
                start_new_session=True,  # So that what it starts can be killed with it.
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            problem = cause_of(error) if isinstance(error, OSError) else str(error)
            raise self._failed(problem) from error

    def _failed(self, problem: str) -> MarketError:
        return BusyError(f"exec:{quoted(self._path)}: {problem}", reason="not_delivered")


class _Run:
    """One process that is fed, listened to, and waited for."""

    def __init__(self, process: "subprocess.Popen[bytes]", timeout_s: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin: IO[bytes] = process.stdin
        self._stdout: IO[bytes] = process.stdout
        self._timeout_s = timeout_s
        self._told = b""

    def fed(self, content: Iterator[bytes]) -> bytes:
        """What it prints, or the beginning of that, when it has ended.

        Raises TimeoutError when it does neither read nor end in time, and what `content` raises.
        """
        with selectors.DefaultSelector() as selector:
            for stream in (self._stdin, self._stdout):
                os.set_blocking(stream.fileno(), False)
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._stdout, selectors.EVENT_READ)
            left = memoryview(next(content, b""))
            deadline = time.monotonic() + self._timeout_s
            while selector.get_map():
                wait = deadline - time.monotonic()
                if wait <= 0:
                    raise TimeoutError
                for key, _ in selector.select(wait):
                    if key.fileobj is self._stdout:
                        if not self._listen():
                            selector.unregister(self._stdout)
                        continue
                    # What only prints gets no more time for it.
                    deadline = time.monotonic() + self._timeout_s
                    try:
                        left = self._feed(left) or memoryview(next(content, b""))
                    except BrokenPipeError:  # It reads no more, which is no failure by itself.
                        left = left[:0]
                    if not left:
                        selector.unregister(self._stdin)
                        self._stdin.close()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        return self._told

    def _feed(self, left: memoryview) -> memoryview:
        """Write what the pipe takes; what is left of it then."""
        try:
            return left[os.write(self._stdin.fileno(), left[:_PIPE_BYTES]) :]
        except BlockingIOError:
            return left

    def _listen(self) -> bool:
        try:
            found = os.read(self._stdout.fileno(), _PIPE_BYTES)
        except BlockingIOError:
            return True
        self._told += found[: _TOLD_MAX - len(self._told)]
        return bool(found)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its group, unless it has ended."""
    if process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"killed by signal {-code}"
