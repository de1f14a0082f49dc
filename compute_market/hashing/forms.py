"""Which form of the kernels a GPU gets, and why: the one place where that is decided.

Instructions and registers are those of the machine code that NVRTC makes; what they cost was
counted in a model of one multiprocessor that is fed with that code. None of it was measured on a
GPU yet: `benchmarks/gpu.py` times every form beside the others.
"""

from typing import NamedTuple


class Form(NamedTuple):
    """What `kernels/blake3.cu` is compiled with; the parameters are explained there."""

    tiles: tuple[int, int]  # few and many chunks a tile
    multiply_add: bool = False
    read_ahead: bool = False
    l2_bytes: int = 0

    def options(self, tile: int, align: int) -> tuple[str, ...]:
        """The options of a compiler for one of the tiles and slices at such offsets."""
        return (
            f"-DTILE={tile}",
            f"-DALIGN={align}",
            f"-DMULTIPLY_ADD={int(self.multiply_add)}",
            f"-DREAD_AHEAD={int(self.read_ahead)}",
            f"-DL2_BYTES={self.l2_bytes if align == 16 else 0}",
        )


class Choice(NamedTuple):
    """A form for GPUs from one compute capability on, up to the next choice."""

    capability: int  # major and minor number as one, 75 for 7.5
    form: Form
    why: str


# With tiles of 256 each of a multiprocessor's four schedulers has two warps of a tile, and parents
# are 9 % of the work; with 128 they are 12 %. Slices of a few chunks waste less of tiles of 32.
TILES = (32, 256)
# For devices of which nothing else is known, those of OpenCL.
PORTABLE = Form(TILES)
CHOICES = (
    Choice(0, PORTABLE, "integers are multiplied in several steps, so additions stay additions"),
    Choice(
        70,
        Form(TILES, multiply_add=True, read_ahead=True),
        "the multiplier has a pipe of its own, which takes 224 of 680 operations from the one that"
        " bounds the kernel: 464 instead of 576 there, 1.22 times as fast in the model. Reading"
        " ahead takes 64 registers, for which four groups have room; a chunk then takes 1500 clocks"
        " a block instead of 2200 where a scheduler has one warp, and slow memory costs less."
        " A hint to the second cache is for memory that is slower than the model's: not without a"
        " measurement",
    ),
    Choice(
        120,
        PORTABLE,
        "all integer operations share the pipes: multiply-adds are a sixth more instructions, and"
        " reading ahead more again",
    ),
)


def form_for(capability: int) -> Form:
    """The form for GPUs of a compute capability, 75 for 7.5."""
    return next(choice.form for choice in reversed(CHOICES) if choice.capability <= capability)
