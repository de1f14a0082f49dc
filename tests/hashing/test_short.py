"""The fast way for very short slices: the same digests, or a refusal to say."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from compute_market.hashing.short import SHORT_BYTES, can_fork, hash_short

LATER_NS = 4_000_000_000_000_000_000


@pytest.mark.parametrize("length", [0, 1, 1024, 4096, SHORT_BYTES])
def test_hash_short_gives_digest_and_length(tmp_path: Path, length: int) -> None:
    data = os.urandom(length)
    path = tmp_path / "a.slice"
    path.write_bytes(data)
    assert hash_short(str(path), LATER_NS) == (blake3(data).digest(), length)


def test_hash_short_leaves_longer_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(bytes(SHORT_BYTES + 1))
    assert hash_short(str(path), LATER_NS) is None


def test_hash_short_leaves_a_file_changed_since_then_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(b"x")
    changed_ns = path.stat().st_ctime_ns
    assert hash_short(str(path), changed_ns) is not None
    assert hash_short(str(path), changed_ns - 1) is None
    # A forged time of modification hides no change: the time of the forgery remains.
    os.utime(path, ns=(0, 0))
    assert hash_short(str(path), changed_ns - 1) is None
    os.utime(path, ns=(0, LATER_NS + 1_000_000_000))
    assert hash_short(str(path), LATER_NS) is None


def test_hash_short_takes_nothing_out_of_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    both_ends = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        os.write(both_ends, b"for somebody else")
        assert hash_short(str(tmp_path / "fifo"), LATER_NS) is None
        assert os.read(both_ends, 100) == b"for somebody else"
    finally:
        os.close(both_ends)


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/null", "/proc/self/status", "/", "missing", "", "a\0b", "\ud800"]
)
def test_hash_short_leaves_everything_else_alone(path: str) -> None:
    assert hash_short(path, LATER_NS) is None


# Forking is for processes of one thread, which a test runner may not be.
SCRIPT = """
import os, sys, threading
from blake3 import blake3
from compute_market.hashing import short

directory, count, kill = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
paths = [f"{directory}/{i}" for i in range(count)]
paths[count // 2] = "with\\0zero"
paths[count // 3] = "\\ud800"
paths[5] = ""
assert short.can_fork()
read_ahead = 0
def lazily():
    global read_ahead
    for read_ahead, path in enumerate(paths):
        yield path

done_here = 0
collect = short._Helper.collect
def counted(self, count):
    global done_here
    answer = collect(self, count)
    done_here += answer is None
    return answer
short._Helper.collect = counted

with short.Helpers(2, 4 * 10**18) as helpers:
    if kill:
        os.kill(helpers._helpers[0]._process, kill)
    index = 0
    for group, digests, lengths in helpers.hash(lazily()):
        assert len(group) == len(digests) == len(lengths)
        assert read_ahead - index <= 1000
        for path, digest, length in zip(group, digests, lengths):
            assert path == paths[index], path
            proof = None if length == short.NO_LENGTH else (digest, length)
            assert proof == short.hash_short(path, 4 * 10**18), path
            if proof is not None:
                assert proof == (blake3(str(index).encode()).digest(), len(str(index)))
            index += 1
    assert index == count
# Of twelve groups a killed helper leaves six; two others have a path that no helper can be told.
print("here", done_here)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("done", len(os.listdir("/proc/self/fd")))
threading.Thread(target=threading.Event().wait, daemon=True).start()
assert not short.can_fork()
"""


@pytest.mark.parametrize(
    ("count", "kill", "done_here"),
    [
        (1500, 0, 2),
        (384, 0, 1),
        (6, 0, 1),
        (1500, signal.SIGKILL, 8),
        # Ctrl-C reaches the helpers too, and they do not mind.
        (1500, signal.SIGINT, 2),
    ],
)
def test_helpers_give_what_this_process_would(
    tmp_path: Path, count: int, kill: int, done_here: int
) -> None:
    for index in range(count):
        (tmp_path / str(index)).write_text(str(index))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(count), str(int(kill))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"here {done_here}\ndone 4\n", "")


def test_can_fork_sees_a_thread_that_python_does_not_know() -> None:
    script = (
        "from blake3 import blake3; from compute_market.hashing.short import can_fork;"
        "before = can_fork(); blake3(bytes(2**22), max_threads=blake3.AUTO);"
        "print(before, can_fork())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True False\n"
    assert isinstance(can_fork(), bool)
