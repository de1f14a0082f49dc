"""The kernels under tools that see what digests do not show: races, reads beyond the end, spills.

No GPU is needed. g++ compiles them for this machine with one thread a work-item, Oclgrind
interprets them, and NVIDIA's compilers say what they would be on a GPU.
"""

import json
import mmap
import os
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

from compute_market.hashing import cuda
from compute_market.hashing.device import FMA_GROUP, Resident
from compute_market.hashing.kernels.source import source
from compute_market.hashing.plan import plan_part, plan_slices
from tests.support.cli import missing, without
from tests.support.effort import TORTURE, effort, sample
from tests.support.gpu import nvidia, reference
from tests.support.gpu.cover import cover
from tests.support.gpu.host import KERNELS, HostDriver, build
from tests.support.market import shared_directory

ROOT = Path(__file__).parents[2]
BARRIER = re.compile(r"BARRIER\(\);")
BARRIERS = 5
BLAKE3 = {"b3_tiles", "b3_fold", "b3_small"}
REGISTERS_MAX = 64  # of 65 536, so that four groups of 256 work-items fit a multiprocessor

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
    sanitizer: str, directory: Path, align: int = 16, sources: Path = KERNELS
) -> "subprocess.CompletedProcess[str]":
    flags, preloaded = SANITIZERS[sanitizer]
    # Here, not in the process under the sanitizer, which would watch the compiler as well.
    build(directory, tile=8, align=align, flags=flags, sources=sources)
    located = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in preloaded
    ]
    job = {"backend": "host", "directory": str(directory), "tile": 8, "align": align}
    job |= {"flags": flags, "sources": str(sources)}
    return watched(
        job,
        LD_PRELOAD=" ".join(located),
        PYTHONMALLOC="malloc",
        ASAN_OPTIONS="detect_leaks=0",
        TSAN_OPTIONS="halt_on_error=1",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


def interpreted(align: int = 16, sources: Path = KERNELS) -> "subprocess.CompletedProcess[str]":
    if reason := without("oclgrind"):
        pytest.skip(reason)
    job = {"backend": "opencl", "tile": 8, "align": align, "sources": str(sources)}
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


@pytest.mark.parametrize(
    ("tile", "align", "multiply_add"),
    sample([(8, 16, True), (16, 1, True), (32, 4, False)], 2),
)
def test_kernels_give_the_right_values(
    tile: int, align: int, multiply_add: bool, directory: Path
) -> None:
    driver = HostDriver(directory, tiles=(tile, tile), multiply_add=multiply_add)
    cover(driver.open_lane(0, 2**20), tile, align)


@pytest.mark.parametrize("multiply_add", [False, True])
def test_kernels_count_chunks_in_64_bits(multiply_add: bool, directory: Path) -> None:
    driver = HostDriver(directory, multiply_add=multiply_add)
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
    found = plan.in_order(lane.hash(plan, 0, where))
    assert found[:32] == blake3(content.tobytes()).digest()
    assert found[32:] == blake3(content[8192:9192].tobytes()).digest()


# Races, and reads and writes where nothing is.


def test_kernels_have_no_race_between_threads(directory: Path) -> None:
    done = sanitized("thread", directory)
    assert (done.returncode, done.stdout) == (0, "covered\n")


@pytest.mark.parametrize("align", SANITIZED)
def test_kernels_touch_only_what_is_theirs(align: int, directory: Path) -> None:
    done = sanitized("address", directory, align)
    assert (done.returncode, done.stdout) == (0, "covered\n")


@pytest.mark.parametrize("align", INTERPRETED)
def test_kernels_please_oclgrind(align: int) -> None:
    # Its exit status is 0 whatever it finds.
    done = interpreted(align)
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


# What they would be on a GPU.


@pytest.fixture
def nvrtc() -> None:
    for pattern in ("lib/libnvrtc.so.*", "bin/nvdisasm"):
        if nvidia.in_wheels(pattern) is None:
            pytest.skip(missing("nvrtc", f"no wheel has {pattern}"))


def assert_frugal(log: str, kernels: set[str]) -> None:
    """What ptxas says: kernels need no local memory and leave registers for others."""
    found = nvidia.resources(log)
    assert set(found) == kernels
    for kernel, used in found.items():
        assert used.local_bytes == 0, kernel
        assert used.registers <= REGISTERS_MAX, kernel


def blocks_of(binary: bytes, instructions_min: int, tmp_path: Path) -> list[nvidia.Block]:
    """The long blocks of instructions in machine code that uses no local memory."""
    path = tmp_path / "kernels.cubin"
    path.write_bytes(binary)
    blocks = nvidia.blocks(path)
    # No local memory at all: what is indexed is in registers.
    assert not [block for block in blocks if {"LDL", "STL"} & set(block.instructions)]
    return [block for block in blocks if block.instructions.total() >= instructions_min]


@pytest.mark.usefixtures("nvrtc")
# One whose integers have two pipes, and one whose have one; then the others.
@pytest.mark.parametrize("architecture", (80, 120, 75, 90, 100)[: effort(1, 5)])
def test_compression_is_as_short_as_it_can_be_on_a_gpu(architecture: int, tmp_path: Path) -> None:
    forms = []
    for multiply_add in (0, 1):
        options = ("-DTILE=256", "-DALIGN=16", f"-DMULTIPLY_ADD={multiply_add}")
        binary, log = nvidia.compiled(source("blake3"), architecture, options)
        assert_frugal(log, BLAKE3)
        blocks = blocks_of(binary, 500, tmp_path)
        # `b3_tiles` has two compressions, of a chunk's block and of a parent.
        kernels = ["b3_fold", "b3_small", "b3_tiles", "b3_tiles"]
        assert sorted(block.function for block in blocks) == kernels
        forms.append(blocks)
    plain, multiply_add_form = forms
    if cuda._MULTIPLY_ADD_FROM <= architecture < cuda._MULTIPLY_ADD_BELOW:
        # Of the 680 operations of a compression, the multiplier has 112 additions, or all 224.
        assert max(block.arithmetic for block in plain) <= 585
        assert max(block.arithmetic for block in multiply_add_form) <= 470
    else:
        # Integers have one pipe: the form with fewer instructions is faster.
        assert max(block.instructions.total() for block in plain) <= 720
        assert min(block.instructions.total() for block in multiply_add_form) > 720


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize(
    ("architecture", "tile", "align"),
    [(89, 32, 4), (90, 32, 1), (86, 32, 16)][: effort(1, 3)],
)
def test_kernels_compile_for_small_tiles_and_every_alignment(
    architecture: int, tile: int, align: int
) -> None:
    options = (f"-DTILE={tile}", f"-DALIGN={align}", "-DMULTIPLY_ADD=1")
    _, log = nvidia.compiled(source("blake3"), architecture, options)
    assert_frugal(log, BLAKE3)


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("architecture", sample((75, 90, 120), 1))
def test_rating_does_little_else_than_multiply_and_add(architecture: int, tmp_path: Path) -> None:
    binary, log = nvidia.compiled(source("fma"), architecture, (f"-DTILE={FMA_GROUP}",))
    assert_frugal(log, {"fma_rate"})
    (loop,) = blocks_of(binary, 200, tmp_path)
    assert loop.instructions["FFMA"] == 256
    assert loop.instructions["FFMA"] >= 0.95 * loop.instructions.total()


@pytest.mark.parametrize(
    ("name", "architecture", "options", "kernels"),
    [
        ("fma", 90, (), {"fma_rate"}),
        ("blake3", 90, ("-DALIGN=16", "-DMULTIPLY_ADD=1"), BLAKE3),
        ("blake3", 75, ("-DALIGN=16", "-DMULTIPLY_ADD=1"), BLAKE3),
        ("blake3", 120, ("-DALIGN=16", "-DMULTIPLY_ADD=0"), BLAKE3),
    ][: effort(2, 4)],
)
def test_nvcc_compiles_kernels_that_spill_nothing(
    name: str, architecture: int, options: tuple[str, ...], kernels: set[str], tmp_path: Path
) -> None:
    if reason := without("nvcc"):
        pytest.skip(reason)
    file = tmp_path / "kernels.cu"
    file.write_text(source(name))
    command = ["nvcc", f"-arch=sm_{architecture}", "-DTILE=256", *options]
    command += ["-Xptxas", "-v", "-cubin", str(file), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_frugal(done.stderr, kernels)


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
