"""Does the made-up CuPy notice when the CUDA backend is wrong? One edit at a time.

    python -m tests.support.gpu.mutants [--only WORD]

Each edit is made in a copy of the repository, where the tests of the backend must fail. Prints each
edit and whether it was caught; ends with 1 if one was not. What is edited are the mistakes that a
GPU punishes with a wrong digest, now and then, or with the end of the process: waiting too early or
not at all, the wrong stream, device, memory, length or kind of a copy.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
TESTS = ("tests/hashing/test_cuda.py", "tests/hashing/test_lanes.py")
_TIMEOUT_S = 900


class Edit(NamedTuple):
    """Text of a module of `compute_market/hashing` and what stands in its place."""

    name: str
    module: str
    right: str
    wrong: str


def _cuda(name: str, right: str, wrong: str) -> Edit:
    return Edit(name, "cuda.py", right, wrong)


EDITS = (
    _cuda("nobody waits for an event", "        event.synchronize()\n", ""),
    _cuda("the event is not recorded", "        event.record(self._stream)\n", ""),
    _cuda(
        "waited before the result is copied",
        """        self._cuda.runtime.memcpyAsync(
            self._result.ctypes.data, int(pointer), size, _DEVICE_TO_HOST, self._stream.ptr
        )
        self._wait(event)
""",
        """        self._wait(event)
        self._cuda.runtime.memcpyAsync(
            self._result.ctypes.data, int(pointer), size, _DEVICE_TO_HOST, self._stream.ptr
        )
""",
    ),
    _cuda(
        "the kinds of copies are mixed up",
        "_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2",
        "_HOST_TO_DEVICE, _DEVICE_TO_HOST = 2, 1",
    ),
    _cuda("a byte is not uploaded", "len(data), _HOST", "len(data) - 1, _HOST"),
    _cuda("the table is uploaded over the data", "memory.ptr + at, data", "memory.ptr, data"),
    _cuda(
        "two memories are mixed up",
        "(self._memory, self._values, self._out)\n        return",
        "(self._memory, self._out, self._values)\n        return",
    ),
    _cuda(
        "no memory of its own for results",
        "self._out)\n        return",
        "self._values)\n        return",
    ),
    _cuda(
        "uploads in the default stream", "_HOST_TO_DEVICE, self._stream.ptr", "_HOST_TO_DEVICE, 0"
    ),
    _cuda(
        "results in the default stream", "_DEVICE_TO_HOST, self._stream.ptr", "_DEVICE_TO_HOST, 0"
    ),
    _cuda(
        "kernels in the default stream",
        "with _guarded(), self._device, self._stream:\n            data, at",
        "with _guarded(), self._device:\n            data, at",
    ),
    _cuda(
        "kernels on the current device",
        "with _guarded(), self._device, self._stream:\n            data, at",
        "with _guarded(), self._stream:\n            data, at",
    ),
    _cuda(
        "folds in the default stream",
        "with _guarded(), self._device, self._stream:\n            # By way",
        "with _guarded(), self._device:\n            # By way",
    ),
    _cuda(
        "values from memory that is not pinned",
        "self._upload(self._values, 0, self._result[: len(values)])",
        "self._upload(self._values, 0, values)",
    ),
    _cuda(
        "the start of an array is forgotten", "source.memory - source.begin, 0", "source.memory, 0"
    ),
    _cuda(
        "tables are looked for in the data",
        "data=np.uint64(data), tables_at=at",
        "data=np.uint64(data), tables_at=0",
    ),
    _cuda(
        "no table beside pinned memory",
        "                self._upload(self._memory, at, self.staging[at:end])\n",
        "",
    ),
    _cuda("the result is not kept", "self._result[:size].copy()", "self._result[:size]"),
    _cuda(
        "closed while work is under way",
        "                self._cuda.runtime.deviceSynchronize()\n",
        "                pass\n",
    ),
    _cuda(
        "an array without a stream is not waited for",
        "is None:\n                    cupy.cuda.runtime.deviceSynchronize()\n",
        "is None:\n                    pass\n",
    ),
    _cuda(
        "the stream of an array is not waited for",
        "                    cupy.cuda.runtime.streamSynchronize(stream)\n",
        "                    pass\n",
    ),
    _cuda(
        "arrays are waited for on another device",
        "            with cupy.cuda.Device(device):\n",
        "            with suppress(ValueError):\n",
    ),
    _cuda(
        "the alignment of an array is forgotten",
        "address, address % 16, length",
        "address, 0, length",
    ),
    _cuda(
        "staging memory that is not pinned",
        "self.staging = _pinned(cupy, staging_bytes)",
        "self.staging = np.empty(staging_bytes, np.uint8)",
    ),
    _cuda(
        "results in memory that is not pinned",
        "self._result = _pinned(cupy, VALUES_BYTES)",
        "self._result = np.empty(VALUES_BYTES, np.uint8)",
    ),
    _cuda("every lane on the first device", "CudaLane(device, staging", "CudaLane(0, staging"),
    _cuda("waiting spins", "block=True", "block=False"),
    _cuda("waiting for what is there blocks", "block=False", "block=True"),
    _cuda("streams wait for the default one", "non_blocking=True", "non_blocking=False"),
    _cuda("an argument of the wrong width", "np.uint32(trips)", "np.uint64(trips)"),
    Edit(
        "the last group is left out",
        "launch.py",
        "groups = -(-plan.small // plan.tile)",
        "groups = plan.small // plan.tile",
    ),
    Edit(
        "readers are not waited for",
        "lanes.py",
        "wait([future for future in pending if not future.cancel()])",
        "[future.cancel() for future in pending]",
    ),
    Edit(
        "the next chunk is not counted on",
        "launch.py",
        "np.uint64(counter)",
        "np.uint64(0)",
    ),
)


def applied(edit: Edit, root: Path) -> tuple[Path, str]:
    """The file of an edit and what it would be. The text that is right must be there once."""
    path = root / "compute_market" / "hashing" / edit.module
    text = path.read_text()
    assert text.count(edit.right) == 1, f"{edit.name}: {text.count(edit.right)} places"
    return path, text.replace(edit.right, edit.wrong)


def is_caught(edit: Edit | None, root: Path) -> bool:
    """Whether the tests in a copy of the repository fail with an edit; with None, with none."""
    path, right = root / "pyproject.toml", (root / "pyproject.toml").read_text()
    if edit is not None:
        path, wrong = applied(edit, root)
        right = path.read_text()
        path.write_text(wrong)
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-n",
                "0",
                "-p",
                "no:cacheprovider",
                *TESTS,
            ],
            cwd=root,
            env=os.environ
            | {
                "PYTHONPATH": f"{root}:{root / 'cli'}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TB_KERNELS": str(root / "kernels"),
            },
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(right)
    assert edit is not None or done.returncode == 0, done.stdout.decode()
    return done.returncode != 0


def copied(directory: Path) -> Path:
    """A copy of what the tests need."""
    for name in ("compute_market", "cli", "tests"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    (directory / "kernels").mkdir()
    return directory


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="edits whose name has this in it")
    only: str = parser.parse_args().only
    missed = 0
    with tempfile.TemporaryDirectory(prefix="gpu-mutants-") as name:
        root = copied(Path(name))
        assert not is_caught(None, root), "the tests fail as it is"
        for edit in EDITS:
            if only in edit.name:
                caught = is_caught(edit, root)
                missed += not caught
                print(f"{'caught' if caught else 'NOT CAUGHT'}: {edit.name}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
