"""Tasks that prove slices: what a worker does with what it is given."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from blake3 import blake3

from compute_market.errors import IntegrityError, MarketError, UsageError
from compute_market.hashing.cpu import hash_opened
from compute_market.hashing.files import FileIdentity, identity_of, open_slice
from compute_market.workloads.tasks import Result, SharedSlice, prove, run_sent, run_shared
from compute_market.workloads.workloads import Workload

MIB = 1_048_576


def digest(content: bytes) -> bytes:
    return blake3(content).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.slice"
    path.write_bytes(b"content")
    return path


def identity(path: Path) -> FileIdentity:
    return identity_of(path.stat())


def proved(workload: Workload, path: str) -> Result:
    descriptor, status = open_slice(path)
    try:
        return prove(workload, path, descriptor, identity_of(status))
    finally:
        os.close(descriptor)


def truncate(path: str) -> None:
    os.truncate(path, 10)


def truncate_to_nothing(path: str) -> None:
    os.truncate(path, 0)


def append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def rewrite_in_place(path: str) -> None:
    """Other bytes, the same length, and the old time of modification forged back."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [truncate, truncate_to_nothing, append, rewrite_in_place])
@pytest.mark.parametrize(
    ("length", "threads"), [(100, None), (3 * MIB, 1), (13 * MIB, None), (16 * MIB, None)]
)
def test_prove_gives_no_proof_of_a_file_that_changes_meanwhile(
    length: int, threads: int | None, change: Callable[[str], None], tmp_path: Path
) -> None:
    path = str(tmp_path / "x.slice")
    Path(path).write_bytes(b"pattern" * (length // 7 + 1))
    changes = iter([change])

    def advance(count: int) -> None:
        for change_once in changes:
            change_once(path)

    def workload(path: str, descriptor: int, length: int) -> bytes:
        return hash_opened(path, descriptor, length, threads, advance)

    result = proved(workload, path)
    assert (result.digest, result.length) == (b"", 0)
    assert isinstance(result.error, IntegrityError)
    assert result.error.message == f"{path}: changed while it was read"
    assert result.error.reason == "slice_changed"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens and fails to read")
def test_prove_reports_a_read_that_fails() -> None:
    result = proved(hash_opened, "/proc/self/mem")
    assert isinstance(result.error, IntegrityError)
    assert result.error.message == "/proc/self/mem: reading failed: Input/output error"
    assert result.error.reason == "unreadable"


def test_run_shared_proves_the_file_it_was_told_of(path: Path) -> None:
    entry = SharedSlice("a.slice", str(path), identity(path))
    assert run_shared("transcode", [entry]) == [
        (Result("a.slice", digest(b"content"), 7), identity(path))
    ]


@pytest.mark.parametrize("field", ["inode", "length", "modified_ns"])
@pytest.mark.parametrize("name", ["transcode", "zeros"])
def test_run_shared_never_proves_another_file(
    field: str, name: str, path: Path, plugin: ModuleType
) -> None:
    found = dict(
        zip(("device", "inode", "length", "modified_ns", "changed_ns"), identity(path), strict=True)
    )
    device, inode, length, modified_ns, changed_ns = (found | {field: found[field] + 1}).values()
    expected = (device, inode, length, modified_ns, changed_ns)
    assert run_shared(name, [SharedSlice("a.slice", str(path), expected)]) == [None]


def test_run_shared_does_not_compare_what_machines_see_differently(path: Path) -> None:
    device, inode, length, modified_ns, changed_ns = identity(path)
    expected = (device + 1, inode, length, modified_ns, changed_ns + 1)
    ((result, own),) = run_shared("transcode", [SharedSlice("x", str(path), expected)])  # type: ignore[misc]
    assert result.digest == digest(b"content")
    # Known by the numbers of the worker, so that nobody takes them for those of the caller.
    assert own == identity(path)


def test_run_shared_leaves_what_it_cannot_open(path: Path) -> None:
    known = identity(path)
    os.mkfifo(path.with_name("fifo"))
    paths = [
        str(path.with_name("missing")),
        str(path.parent),
        str(path.with_name("fifo")),
        "\ud800",
    ]
    assert run_shared("transcode", [SharedSlice("x", each, known) for each in paths]) == [None] * 4


def test_run_shared_gives_no_proof_of_a_file_that_changes(path: Path, plugin: ModuleType) -> None:
    entry = SharedSlice(str(path), str(path), identity(path))
    ((result, _),) = run_shared("meddle", [entry])  # type: ignore[misc]
    assert isinstance(result.error, IntegrityError)
    assert (result.digest, result.error.reason) == (b"", "slice_changed")


@pytest.mark.parametrize("content", [b"", b"x", bytes(3 << 20)])
def test_run_sent_proves_bytes(content: bytes) -> None:
    assert run_sent("gpu_hash", [("a", content), ("b", b"y")]) == [
        Result("a", digest(content), len(content)),
        Result("b", digest(b"y"), 1),
    ]


def test_run_sent_gives_workloads_of_packages_a_file(plugin: ModuleType) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    results = run_sent("count", [("/no/such/file", b"12"), ("other", b"")])
    assert results == [
        Result("/no/such/file", b"12".rjust(32), 2),
        Result("other", b"".rjust(32), 0),
    ]
    assert plugin.calls == ["/no/such/file", "other"]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_run_sent_gives_no_proof_that_a_workload_got_wrong(plugin: ModuleType) -> None:
    (result,) = run_sent("short_proof", [("a", b"x")])
    assert isinstance(result.error, IntegrityError)
    assert (result.digest, result.error.reason) == (b"", "broken_workload")


@pytest.mark.parametrize("task", [run_shared, run_sent])
@pytest.mark.parametrize("name", ["unknown", "absent"])
def test_tasks_say_that_it_is_the_worker_who_lacks_a_workload(
    task: type[object], name: str, plugin: ModuleType
) -> None:
    with pytest.raises(UsageError, match=f"^on a worker: .*'{name}'") as caught:
        task(name, [])  # type: ignore[call-arg]
    error: MarketError = caught.value
    assert error.reason in ("unknown_workload", "broken_workload")
    assert error.hint == "install the same packages on every worker"
