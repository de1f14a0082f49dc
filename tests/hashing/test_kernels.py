"""The kernels under tools that see what digests do not show: races, reads beyond the end, spills.

No GPU is needed. g++ compiles them for this machine with one thread a work-item, and Oclgrind
interprets them.
"""

import json
import mmap
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from compute_market.hashing.device import Resident
from compute_market.hashing.forms import Form
from compute_market.hashing.kernels.source import source
from compute_market.hashing.plan import plan_part, plan_slices
from tests.support.cli import without
from tests.support.effort import TORTURE, effort, sample
from tests.support.gpu import reference
from tests.support.gpu.cover import cover
from tests.support.gpu.host import KERNELS, HostDriver, build
from tests.support.market import shared_directory

ROOT = Path(__file__).parents[2]
BARRIER = re.compile(r"BARRIER\(\);")
BARRIERS = 5

# One tool sees what the other does: in the suite each has a case of its own, which is drawn.
ALIGNMENTS = (16, 4, 1)
INTERPRETED = sample(ALIGNMENTS, 1)
SANITIZED = sample([align for align in ALIGNMENTS if TORTURE or align not in INTERPRETED], 1)
OPEN_TO_THREADS = sample(range(BARRIERS), 1)
OPEN_TO_OCLGRIND = sample(
    [each for each in range(BARRIERS) if TORTURE or each not in OPEN_TO_THREADS], 1
)

# Per sanitizer: how to compile, and the libraries to load before Python.
SANITIZERS = {
    "thread": (("-O1", "-fsanitize=thread"), ("libtsan.so",)),
    "address": (
        ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        ("libasan.so", "libubsan.so"),
    ),
}


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := without("g++"):
        pytest.skip(reason)
    return shared_directory(tmp_path_factory, "kernels")


def watched(
    job: dict[str, Any], *, command: tuple[str, ...] = (), **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Do the work of `tests.support.gpu.cover` in a process of its own; both outputs in one."""
    program = [*command, sys.executable, "-m", "tests.support.gpu.cover", json.dumps(job)]
    return subprocess.run(
        program,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )


def sanitized(
    sanitizer: str,
    directory: Path,
    *,
    align: int = 16,
    read_ahead: bool = False,
    warp: int = 32,
    sources: Path = KERNELS,
) -> "subprocess.CompletedProcess[str]":
    flags, preloaded = SANITIZERS[sanitizer]
    flags = (*flags, f"-DWARP={warp}u")
    # Here, not in the process under the sanitizer, which would watch the compiler as well.
    form = Form((8, 8), read_ahead=read_ahead)
    build(directory, tile=8, align=align, form=form, flags=flags, sources=sources)
    located = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in preloaded
    ]
    job = {"backend": "host", "directory": str(directory), "tile": 8, "align": align}
    job |= {"read_ahead": read_ahead, "flags": flags, "sources": str(sources)}
    return watched(
        job,
        LD_PRELOAD=" ".join(located),
        PYTHONMALLOC="malloc",
        ASAN_OPTIONS="detect_leaks=0",
        TSAN_OPTIONS="halt_on_error=1",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


def interpreted(
    *, align: int = 16, read_ahead: bool = False, sources: Path = KERNELS
) -> "subprocess.CompletedProcess[str]":
    if reason := without("oclgrind"):
        pytest.skip(reason)
    job = {"backend": "opencl", "tile": 8, "align": align, "sources": str(sources)}
    job |= {"read_ahead": read_ahead}
    command = ("oclgrind", "--data-races", "--uninitialized")
    return watched(job, command=command, PYOPENCL_NO_CACHE="1")


def changed(tmp_path: Path, begin: int, end: int, replacement: str) -> Path:
    """A copy of the kernels' directory with other text at one place of `blake3.cu`."""
    directory = tmp_path / "kernels"
    shutil.copytree(KERNELS, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    file = directory / "blake3.cu"
    text = file.read_text()
    file.write_text(text[:begin] + replacement + text[end:])
    return directory


# Right values.


def test_reference_gives_the_digests_of_the_package() -> None:
    for length in (0, 1, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 7 * 1024 + 1, 31745):
        data = os.urandom(length)
        assert reference.digest(data) == blake3(data).digest(), length


def test_reference_gives_values_of_parts_that_join() -> None:
    data = os.urandom(11 * 1024 + 7)
    left = reference.subtree_value(data[: 8 * 1024], 0)
    right = reference.subtree_value(data[8 * 1024 :], 8)
    assert reference.parent_value(left, right, reference.ROOT) == blake3(data).digest()


# Every combination of what a form is made of.
FORMS = [
    (tile, align, Form((tile, tile), multiply_add=multiply_add, read_ahead=read_ahead))
    for tile in (8, 16, 32)
    for align in ALIGNMENTS
    for multiply_add in (False, True)
    for read_ahead in (False, True)
]


@pytest.mark.parametrize(("tile", "align", "form"), sample(FORMS, 3, seed=2))
def test_kernels_give_the_right_values(tile: int, align: int, form: Form, directory: Path) -> None:
    driver = HostDriver(directory, tiles=(tile, tile), form=form)
    cover(driver.open_lane(0, 2**20), tile, align)


def test_sample_of_forms_has_each_part_of_them() -> None:
    forms = sample(FORMS, 3, seed=2)
    assert {align for _, align, _ in forms} == set(ALIGNMENTS)
    assert {(form.multiply_add, form.read_ahead) for _, _, form in forms} >= {
        (False, True),
        (True, True),
    }


@pytest.mark.parametrize("chunks", sample(range(1, 258), 12))
def test_kernels_reduce_every_number_of_chunks_with_a_turned_tree(
    chunks: int, directory: Path
) -> None:
    """With tiles of 256, of which each level goes to other warps."""
    lane = HostDriver(directory, tiles=(32, 256)).open_lane(0, 2**20)
    data = random.Random(chunks).randbytes(chunks * 1024 - chunks % 7)
    lane.staging[: len(data)] = np.frombuffer(data, np.uint8)
    plan = plan_part(len(data), 0, 256, 256 * 1024 * 256, whole=True)
    assert lane.hash(plan, len(data)).tobytes() == blake3(data).digest()


@pytest.mark.parametrize("multiply_add", [False, True])
def test_kernels_count_chunks_in_64_bits(multiply_add: bool, directory: Path) -> None:
    driver = HostDriver(directory, form=Form((8, 16), multiply_add=multiply_add))
    lane = driver.open_lane(0, 2**20)
    data = os.urandom(19 * 1024 + 5)
    lane.staging[: len(data)] = np.frombuffer(data, np.uint8)
    # The second 2**32 - 8 leaves the second tile to begin with a lower half of 0.
    for counter in (0, 2**22, 2**32 - 3, 2**32 - 8, 2**32, 2**40, 2**54 - 1, 2**54):
        plan = plan_part(len(data), counter, 8, 16 * 1024, whole=False)
        value = lane.hash(plan, len(data)).tobytes()
        assert value == reference.subtree_value(data, counter), counter


def test_kernels_reach_what_lies_beyond_4_gib(directory: Path) -> None:
    lane = HostDriver(directory).open_lane(0, 2**20)
    size = 2**32 + 2**20
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    memory = np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)
    content = np.frombuffer(os.urandom(50_000), np.uint8)
    begin = 2**32 + 48
    memory[begin : begin + len(content)] = content
    where = Resident(0, memory, begin, len(content))
    plan = plan_part(len(content), 0, 8, 64 * 1024, whole=True, begin=begin)
    assert lane.hash(plan, 0, where).tobytes() == blake3(content.tobytes()).digest()
    # The second tile begins beyond, the first does not; and a slice of a chunk.
    begin = 2**32 - 8192
    memory[begin : begin + len(content)] = content
    offsets = np.array([begin, 2**32], np.int64)
    lengths = np.array([len(content), 1000], np.int64)
    plan = plan_slices(offsets, lengths, 8)
    found = plan.in_order(lane.hash(plan, 0, where)).tobytes()
    assert found[:32] == blake3(content.tobytes()).digest()
    assert found[32:] == blake3(content[8192:9192].tobytes()).digest()


# Races, and reads and writes where nothing is.


@pytest.mark.parametrize("warp", [2, 32][: effort(1, 2)])
def test_kernels_have_no_race_between_threads(warp: int, directory: Path) -> None:
    # With warps of 2 a level of the tree goes to other threads than the one before, as on a GPU.
    done = sanitized("thread", directory, warp=warp)
    assert (done.returncode, done.stdout) == (0, "covered\n")


# Reading ahead is what could read beyond the end.
@pytest.mark.parametrize("read_ahead", [True, False][: effort(1, 2)])
@pytest.mark.parametrize("align", SANITIZED)
def test_kernels_touch_only_what_is_theirs(align: int, read_ahead: bool, directory: Path) -> None:
    done = sanitized("address", directory, align=align, read_ahead=read_ahead)
    assert (done.returncode, done.stdout) == (0, "covered\n")


@pytest.mark.parametrize("read_ahead", [True, False][: effort(1, 2)])
@pytest.mark.parametrize("align", INTERPRETED)
def test_kernels_please_oclgrind(align: int, read_ahead: bool, tmp_path: Path) -> None:
    # With warps of 2, as for threads.
    text = (KERNELS / "blake3.cu").read_text()
    warp = re.search(r"(?<=#define WARP )32u", text)
    assert warp is not None
    sources = changed(tmp_path, *warp.span(), "2u")
    # Its exit status is 0 whatever it finds.
    done = interpreted(align=align, read_ahead=read_ahead, sources=sources)
    assert (done.returncode, done.stdout) == (0, "covered\n")


# Whether these tools would notice.


def barriers() -> "list[re.Match[str]]":
    return list(BARRIER.finditer((KERNELS / "blake3.cu").read_text()))


def test_every_barrier_is_left_out_once() -> None:
    assert len(barriers()) == BARRIERS


@pytest.mark.parametrize("number", OPEN_TO_THREADS)
def test_threads_race_without_a_barrier(number: int, tmp_path: Path, directory: Path) -> None:
    barrier = barriers()[number]
    done = sanitized("thread", tmp_path, sources=changed(tmp_path, *barrier.span(), ""))
    assert "WARNING: ThreadSanitizer: data race" in done.stdout


@pytest.mark.parametrize("number", OPEN_TO_OCLGRIND)
def test_oclgrind_sees_a_race_without_a_barrier(number: int, tmp_path: Path) -> None:
    barrier = barriers()[number]
    done = interpreted(sources=changed(tmp_path, *barrier.span(), ""))
    assert "data race at" in done.stdout


def test_sanitizer_sees_a_read_beyond_the_end(tmp_path: Path, directory: Path) -> None:
    # The byte is read and not used: the digests are right.
    text = (KERNELS / "blake3.cu").read_text()
    line = "if (4 * i + j < length) word |= (u32)bytes[4 * i + j] << (8 * j);"
    unused = "{ u8 byte = *(const volatile u8 *)(bytes + 4 * i + j);"
    unused += " if (4 * i + j < length) word |= (u32)byte << (8 * j); }"
    begin = text.index(line)
    sources = changed(tmp_path, begin, begin + len(line), unused)
    done = sanitized("address", tmp_path, sources=sources)
    assert "AddressSanitizer: heap-buffer-overflow" in done.stdout


# The text of the kernels.


@pytest.mark.parametrize("name", ["blake3", "fma"])
def test_source_needs_no_other_file(name: str) -> None:
    text = source(name)
    assert "#include" not in text
    assert (KERNELS / "dialect.h").read_text() in text
    assert f"{name}.cu" not in text


def test_wheel_has_the_kernels() -> None:
    # Hatchling takes every file of a package but what is excluded or ignored by git.
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hatch = settings["tool"]["hatch"]["build"]
    wheel = hatch["targets"]["wheel"]
    assert "compute_market" in wheel["packages"]
    assert "/compute_market" in hatch["targets"]["sdist"]["include"]
    assert not {"exclude", "include", "only-include"} & (set(wheel) | set(hatch))
    files = {path.name for path in KERNELS.iterdir() if path.suffix in (".cu", ".h")}
    assert files == {"blake3.cu", "fma.cu", "dialect.h"}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not [pattern for pattern in ignored if pattern in ("*.cu", "*.h", "kernels/")]
