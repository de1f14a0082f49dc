"""Workloads as a package registers them: right ones, slow ones, and wrong ones of every kind."""

import os
import threading
import time

from blake3 import blake3

calls: list[str] = []  # the paths that `count` was given
_two = threading.Barrier(2, timeout=10)


def count(path: str, descriptor: int, length: int) -> bytes:
    """The last 32 bytes themselves, by which a test sees what was read."""
    calls.append(path)
    return os.read(descriptor, length).rjust(32)[-32:]


def zeros(path: str, descriptor: int, length: int) -> bytes:
    return bytes(32)


def slow(path: str, descriptor: int, length: int) -> bytes:
    time.sleep(1)
    return bytes(32)


def meet(path: str, descriptor: int, length: int) -> bytes:
    """Waits until another slice is at work too."""
    _two.wait()
    return bytes(32)


def short_proof(path: str, descriptor: int, length: int) -> bytes:
    return b"too short"


def wordy(path: str, descriptor: int, length: int) -> str:
    return "x" * 32


def meddle(path: str, descriptor: int, length: int) -> bytes:
    """Changes the slice that it is to prove."""
    with open(path, "ab") as file:
        file.write(b"more")
    return bytes(32)


def faulty(path: str, descriptor: int, length: int) -> bytes:
    return _unless_two(ValueError("not\n  this"), descriptor, length)


def leaving(path: str, descriptor: int, length: int) -> bytes:
    return _unless_two(SystemExit(3), descriptor, length)


def stopped(path: str, descriptor: int, length: int) -> bytes:
    return _unless_two(KeyboardInterrupt(), descriptor, length)


def _unless_two(error: BaseException, descriptor: int, length: int) -> bytes:
    """The digest, but for a slice whose content is `two`, which raises the error."""
    content = os.read(descriptor, length)
    if content == b"two":
        raise error
    return blake3(content).digest()
