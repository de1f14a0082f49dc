"""What NVIDIA's compilers make of the kernels, on a machine without a GPU.

NVRTC and nvdisasm are those of the wheels `nvidia-cuda-nvrtc-cu12` and `nvidia-cuda-nvdisasm`.
"""

import ctypes
import re
import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# What does not go to the pipe of integer arithmetic and logic, which limits the kernels: the
# multiplier, memory, branches and barriers, and the uniform path.
_ELSEWHERE = re.compile(
    r"IMAD|FFMA|FMUL|FADD|HFMA2|LD|ST|B[A-Z]|EXIT|CALL|RET|NOP|WARPSYNC|S2R|CS2R|R2UR|U[A-Z]"
)
_FUNCTION = re.compile(r"\.text\.(\w+):")
_LABEL = re.compile(r"\.L_\w+:")
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)")
_WHOLE_NAME = re.compile(r"\b([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)+)")
_RESOURCES = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


class Block(NamedTuple):
    """Instructions without a label between them, by name."""

    function: str
    instructions: Counter[str]

    @property
    def arithmetic(self) -> int:
        """How many go to the pipe of integer arithmetic and logic."""
        items = self.instructions.items()
        return sum(count for name, count in items if not _ELSEWHERE.match(name))


class Resources(NamedTuple):
    """What ptxas says that a kernel uses."""

    registers: int
    local_bytes: int  # for what is in no register: spilled, or indexed at run time


def in_wheels(pattern: str) -> Path | None:
    """A file of NVIDIA's wheels, by a pattern such as `lib/libnvrtc.so.*`."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    found = [path for place in places or () for path in Path(place).glob(f"*/{pattern}")]
    return next((path for path in found if ".alt." not in path.name), None)


def compiled(text: str, architecture: int, options: tuple[str, ...]) -> tuple[bytes, str]:
    """What NVRTC makes of a source, and what it says about that. It must be installed."""
    builtins, nvrtc = in_wheels("lib/libnvrtc-builtins.so.*"), in_wheels("lib/libnvrtc.so.*")
    # Where NVRTC itself would not find it.
    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(nvrtc))
    program = ctypes.c_void_p()
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None
    )
    assert status == 0
    given = (f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", *options)
    array = (ctypes.c_char_p * len(given))(*[option.encode() for option in given])
    status = library.nvrtcCompileProgram(program, len(given), array)
    log = _fetched(library, program, "ProgramLog").decode()
    assert status == 0, log
    binary = _fetched(library, program, "CUBIN")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return binary, log


def _fetched(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    memory = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{what}")(program, memory) == 0
    return memory.raw


def instructions(binary: bytes, directory: Path) -> set[str]:
    """The names of the instructions of a compiled source, with all their attributes."""
    path = directory / "kernels.cubin"
    path.write_bytes(binary)
    return set(_WHOLE_NAME.findall(_disassembled(path)))


def _disassembled(binary: Path) -> str:
    command = [str(in_wheels("bin/nvdisasm")), "-c", str(binary)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def blocks(binary: Path) -> list[Block]:
    """The machine code of a compiled source. nvdisasm must be installed."""
    text = _disassembled(binary)
    found: list[Block] = []
    function = ""
    for line in text.splitlines():
        if named := _FUNCTION.match(line):
            function = named[1]
        if named or _LABEL.match(line):
            found.append(Block(function, Counter()))
        elif instruction := _INSTRUCTION.match(line):
            found[-1].instructions[instruction[1]] += 1
    return found


def resources(log: str) -> dict[str, Resources]:
    """What the kernels use, from what ptxas says with `-v`."""
    return {
        name: Resources(int(registers), int(stack) + int(spilled))
        for name, stack, spilled, registers in _RESOURCES.findall(log)
    }
