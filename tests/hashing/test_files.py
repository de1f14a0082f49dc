"""Slice files: opened if they are regular files, with an error that says what they are if not."""

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_market.errors import BusyError, UsageError
from compute_market.hashing.files import fill_from, identity_of, open_slice


@pytest.fixture(autouse=True)
def _no_descriptor_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_open_slice_gives_the_status_of_the_file_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.slice"
    path.write_bytes(b"content")
    descriptor, status = open_slice(str(path))
    try:
        assert identity_of(status) == identity_of(path.stat())
        assert status.st_size == 7
        assert os.read(descriptor, 10) == b"content"
    finally:
        os.close(descriptor)


def test_open_slice_refuses_what_is_not_there(tmp_path: Path) -> None:
    for path in (str(tmp_path / "missing"), "", "with\0zero"):
        with pytest.raises(UsageError) as error:
            open_slice(path)
        assert error.value.reason == "missing"
    with pytest.raises(UsageError, match="missing/below: no such file"):
        open_slice(str(tmp_path / "missing" / "below"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/below: cannot be opened: Not a directory"):
        open_slice(str(tmp_path / "file" / "below"))


def test_open_slice_refuses_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path, "a directory"),
            (tmp_path / "fifo", "a FIFO"),
            (tmp_path / "link", "a FIFO"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a character device"),
        ):
            with pytest.raises(UsageError) as error:
                open_slice(str(path))
            assert error.value.message == f"{path}: not a regular file but {kind}"
            assert error.value.reason == "not_a_file"


def test_open_slice_names_a_path_that_would_garble_a_terminal_in_quotes(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        open_slice(f"{tmp_path}/a\x1b[2J\nb")
    assert error.value.message == f"'{tmp_path}/a\\x1b[2J\\nb': no such file"


def test_open_slice_refuses_what_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.slice"
    path.write_bytes(b"x")
    path.chmod(0)
    tmp_path.chmod(0o755)
    was_root = os.geteuid() == 0
    if was_root:
        # Root may read anything, so this asks as nobody.
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match="cannot be opened: Permission denied") as error:
            open_slice(str(path))
        assert error.value.message.startswith(str(path))
    finally:
        if was_root:
            os.seteuid(0)


def test_open_slice_says_busy_when_descriptors_run_out(tmp_path: Path) -> None:
    path = str(tmp_path / "x.slice")
    (tmp_path / "x.slice").write_bytes(b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest free number: the next file would get a higher one.
    descriptor, _ = open_slice(path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor + 1, hard))
    try:
        with pytest.raises(BusyError) as error:
            open_slice(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(descriptor)
    assert error.value.message == f"{path}: Too many open files"
    assert error.value.retryable


@pytest.mark.parametrize(
    ("offset", "length", "count"),
    [(0, 7, 7), (0, 9, 7), (3, 2, 2), (3, 9, 4), (7, 1, 0), (9, 1, 0)],
)
def test_fill_from_reads_until_the_buffer_is_full_or_the_file_ends(
    offset: int, length: int, count: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.slice"
    path.write_bytes(b"content")
    buffer = bytearray(length)
    descriptor, _ = open_slice(str(path))
    try:
        assert fill_from(descriptor, memoryview(buffer), offset) == count
    finally:
        os.close(descriptor)
    assert bytes(buffer) == b"content"[offset : offset + count].ljust(length, b"\0")
