"""The device under test, the forms of its kernels, and data for it."""

import os
from collections.abc import Callable
from typing import Any

KIB, MIB, GIB = 2**10, 2**20, 2**30


class Bench:
    """The device and how much of it to ask for."""

    def __init__(self, backend: str, quick: bool) -> None:
        self.backend = backend
        self.quick = quick
        self.rounds = 3 if quick else 9
        # A pretended device would take hours for a gigabyte.
        self.long = 4 * MIB if quick else GIB
        self._processors = 0

    @property
    def is_cuda(self) -> bool:
        return self.backend == "cuda"

    def require(self) -> None:
        """Raises RuntimeError if there is no such device, for then nothing can be claimed."""
        from compute_market.hashing import probe

        missing = probe.cuda_missing() if self.is_cuda else probe.opencl_missing()
        if missing is not None:
            raise RuntimeError(f"no {self.backend}: {missing.what} ({missing.hint})")

    def open(self, form: Any = None, **more: Any) -> Any:
        """A backend; the kernels have the form that suits the device, or this one."""
        self.require()
        if self.is_cuda:
            from compute_market.hashing import cuda

            return cuda.open_backend(form=form, **more)
        from compute_market.hashing import opencl
        from compute_market.hashing.forms import PORTABLE

        return opencl.open_backend(any_device=True, form=form or PORTABLE, **more)

    def chosen(self, backend: Any) -> Any:
        """The form that the kernels of an open backend have."""
        lane = backend.first_lane
        return lane._form if self.is_cuda else lane._driver.form

    def forms(self, chosen: Any) -> dict[str, Any]:
        """The forms to try, by what they are called, with the chosen one's tiles."""
        if not self.is_cuda:
            return {"plain": chosen}
        plain = chosen._replace(multiply_add=False, read_ahead=False, l2_bytes=0)
        added = plain._replace(multiply_add=True)
        small, large = plain.tiles
        forms = {
            "plain": plain,
            "plain, read ahead": plain._replace(read_ahead=True),
            "multiply-add": added,
            "multiply-add, read ahead": added._replace(read_ahead=True),
            "multiply-add, L2 64 B": added._replace(l2_bytes=64),
            "multiply-add, L2 128 B": added._replace(l2_bytes=128),
            "multiply-add, L2 256 B": added._replace(l2_bytes=256),
            "multiply-add, read ahead, L2 128 B": added._replace(read_ahead=True, l2_bytes=128),
            "multiply-add, tiles of half": added._replace(tiles=(small, large // 2)),
        }
        if self.quick:
            return {name: forms[name] for name in ("plain", "multiply-add")}
        return forms

    def on_device(self, backend: Any, size: int) -> Any:
        """An array of random bytes; with CUDA most of it is made on the device."""
        block = as_array(random_bytes(min(size, 16 * MIB)))
        if not self.is_cuda:
            return backend.driver.to_device(as_array(random_bytes(size)))
        import cupy

        array = cupy.empty(size, cupy.uint8)
        to = address(array)
        runtime = cupy.cuda.runtime
        runtime.memcpy(to, block.ctypes.data, len(block), 1)
        done = len(block)
        while done < size:
            length = min(done, size - done)
            runtime.memcpy(to + done, to, length, 3)
            done += length
        runtime.deviceSynchronize()
        return array


def address(array: Any) -> int:
    """Where an array begins on its device."""
    return int(array.__cuda_array_interface__["data"][0])


def random_bytes(size: int) -> bytes:
    """Not zeros, which draw less power; a pattern of 16 MiB is long enough."""
    block = os.urandom(min(size, 16 * MIB))
    return (block * -(-size // max(1, len(block))))[:size]


def as_array(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, np.uint8)


def repeated(act: Callable[[], object], count: int) -> Callable[[], object]:
    """The action, so many times in a row."""

    def action() -> None:
        for _ in range(count):
            act()

    return action


def size_name(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"
