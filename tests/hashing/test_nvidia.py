"""What the kernels would be on a GPU, as NVIDIA's compilers and the kernels themselves tell.

No GPU is needed: NVRTC and nvdisasm are those of wheels.
"""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from compute_market.hashing.device import FMA_GROUP
from compute_market.hashing.forms import CHOICES, PORTABLE, TILES, Form, form_for
from compute_market.hashing.kernels.source import source
from tests.support.cli import missing, without
from tests.support.effort import effort, sample
from tests.support.gpu import nvidia
from tests.support.gpu.host import build, load, poisoned
from tests.support.market import shared_directory

BLAKE3 = {"b3_tiles", "b3_fold", "b3_small"}
# Registers of a multiprocessor, and the groups of 32 work-items that fit it by their number alone:
# registers must not allow for fewer, nor for fewer than four groups of 256.
REGISTERS = 65_536
GROUPS_MAX = {75: 16, 86: 16, 89: 24, 120: 24, 121: 24}


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := without("g++"):
        pytest.skip(reason)
    return shared_directory(tmp_path_factory, "kernels")


def test_every_capability_has_a_form_and_a_reason() -> None:
    assert [form_for(choice.capability) for choice in CHOICES] == [each.form for each in CHOICES]
    assert [each.capability for each in CHOICES] == sorted({each.capability for each in CHOICES})
    assert CHOICES[0].capability == 0
    assert all(choice.why for choice in CHOICES)
    assert form_for(61) == PORTABLE
    assert form_for(999) == CHOICES[-1].form


@pytest.fixture
def nvrtc() -> None:
    for pattern in ("lib/libnvrtc.so.*", "bin/nvdisasm"):
        if nvidia.in_wheels(pattern) is None:
            pytest.skip(missing("nvrtc", f"no wheel has {pattern}"))


def assert_frugal(log: str, kernels: set[str], architecture: int, tile: int) -> None:
    """What ptxas says: kernels need no local memory and leave registers for others."""
    found = nvidia.resources(log)
    assert set(found) == kernels
    groups = GROUPS_MAX.get(architecture, 32) if tile < 256 else 4
    for kernel, used in found.items():
        assert used.local_bytes == 0, kernel
        assert used.registers <= REGISTERS // (groups * tile), kernel


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
@pytest.mark.parametrize("architecture", (90, 120, 75, 80, 86, 89, 100, 103, 121)[: effort(1, 9)])
def test_compression_is_as_short_as_it_can_be_on_a_gpu(architecture: int, tmp_path: Path) -> None:
    chosen = form_for(architecture)
    other = chosen._replace(multiply_add=not chosen.multiply_add)
    compiled = {}
    for form in (chosen, other):
        options = form.options(256, 16)
        binary, log = nvidia.compiled(source("blake3"), architecture, options)
        assert_frugal(log, BLAKE3, architecture, 256)
        blocks = blocks_of(binary, 500, tmp_path)
        # `b3_tiles` has two compressions, of a chunk's block and of a parent.
        kernels = ["b3_fold", "b3_small", "b3_tiles", "b3_tiles"]
        assert sorted(block.function for block in blocks) == kernels
        (fold,) = (block for block in blocks if block.function == "b3_fold")
        assert fold.instructions["LDG"] == 4  # of 16 bytes each
        compiled[form.multiply_add] = blocks
    if chosen.multiply_add:
        # Of the 680 operations of a compression, the multiplier has 112 additions, or all 224.
        assert max(block.arithmetic for block in compiled[False]) <= 585
        assert max(block.arithmetic for block in compiled[True]) <= 470
    else:
        # Integers have one pipe: the form with fewer instructions is faster.
        assert max(block.instructions.total() for block in compiled[False]) <= 720
        assert min(block.instructions.total() for block in compiled[True]) > 720


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize(
    ("architecture", "tile", "align", "form"),
    [
        (90, 256, 16, Form(TILES, multiply_add=True, l2_bytes=128)),
        (89, 32, 4, Form(TILES, multiply_add=True, read_ahead=True)),
        (90, 32, 1, Form(TILES, multiply_add=True, read_ahead=True)),
        (86, 32, 16, Form(TILES, multiply_add=True, read_ahead=True, l2_bytes=64)),
        (75, 32, 16, Form(TILES, multiply_add=True)),
        (80, 256, 16, Form(TILES, multiply_add=True, read_ahead=True, l2_bytes=256)),
        (75, 32, 1, Form(TILES, read_ahead=True)),
    ][: effort(1, 7)],
)
def test_kernels_compile_in_every_form(
    architecture: int, tile: int, align: int, form: Form, tmp_path: Path
) -> None:
    binary, log = nvidia.compiled(source("blake3"), architecture, form.options(tile, align))
    assert_frugal(log, BLAKE3, architecture, tile)
    names = nvidia.instructions(binary, tmp_path)
    hint = f".LTC{form.l2_bytes}B" if form.l2_bytes else ".LTC"
    hinted = [name for name in names if hint in name]
    assert bool(hinted) == bool(form.l2_bytes)


def test_no_scheduler_has_more_than_its_share_of_a_tile(directory: Path) -> None:
    """Warp by warp, as a multiprocessor deals them to its four schedulers.

    A warp compresses as long as one of its work-items does. Of the 140 compressions of a tile 128
    are of chunks; those of parents, too, are shared by all.
    """
    stages, rotations = 32, 7 * 8 * 4
    flags = ("-O1", "-DFIBERS", f"-DCOUNTED={stages}")
    library = build(directory, tile=256, flags=flags)
    data, values = poisoned(256 * 1024), poisoned(32)
    tiles = load(library)["b3_tiles"]
    tiles(1, data.ctypes.data, data.ctypes.data, 0, 1, 0, len(data), 0, 1, values.ctypes.data, 1)
    assert values.tobytes() == blake3(data.tobytes()).digest()
    host_rotations = ctypes.CDLL(str(library)).host_rotations
    host_rotations.restype = ctypes.POINTER(ctypes.c_uint32)
    done = np.ctypeslib.as_array(host_rotations(), (stages, 8, 32))
    of_warps = (done.max(axis=2) // rotations).sum(axis=0)
    of_schedulers = of_warps.reshape(2, 4).sum(axis=0)
    assert of_schedulers.sum() == 140
    assert of_schedulers.max() <= 36


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("architecture", sample((75, 90, 120), 1))
def test_rating_does_little_else_than_multiply_and_add(architecture: int, tmp_path: Path) -> None:
    binary, log = nvidia.compiled(source("fma"), architecture, (f"-DTILE={FMA_GROUP}",))
    assert_frugal(log, {"fma_rate"}, architecture, FMA_GROUP)
    (loop,) = blocks_of(binary, 200, tmp_path)
    assert loop.instructions["FFMA"] == 256
    assert loop.instructions["FFMA"] >= 0.95 * loop.instructions.total()


@pytest.mark.parametrize(
    ("name", "architecture", "kernels"),
    [
        ("fma", 90, {"fma_rate"}),
        ("blake3", 90, BLAKE3),
        ("blake3", 75, BLAKE3),
        ("blake3", 120, BLAKE3),
    ][: effort(2, 4)],
)
def test_nvcc_compiles_kernels_that_spill_nothing(
    name: str, architecture: int, kernels: set[str], tmp_path: Path
) -> None:
    if reason := without("nvcc"):
        pytest.skip(reason)
    file = tmp_path / "kernels.cu"
    file.write_text(source(name))
    command = ["nvcc", f"-arch=sm_{architecture}", *form_for(architecture).options(256, 16)]
    command += ["-Xptxas", "-v", "-cubin", str(file), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_frugal(done.stderr, kernels, architecture, 256)
