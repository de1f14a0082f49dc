"""The real CuPy on a machine without a GPU: what it compiles, and what it says when it is called.

A program, as a process cannot have both the real CuPy and one that is made up:

    python -m tests.support.gpu.real_cupy JOB

CUPY_CACHE_DIR must be an empty directory. JOB is a file with pickled `forms` (architecture and
options of each), `signature` (the options of the form whose parameters are asked for) and `calls`
(the arguments of each function by its name).
Prints JSON.
"""

import json
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

from compute_market.hashing.kernels.source import source

_ENTRY = re.compile(r"\.entry (\w+)\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param \.(\w+)")


def compiled(forms: list[tuple[int, tuple[str, ...]]]) -> dict[str, Any]:
    """How many forms CuPy compiled and kept, and where it looks for headers.

    By its own way for a RawModule, up to the point where the code would go to a device.
    """
    from cupy._core import core
    from cupy.cuda import compiler

    # It remembers the answer for each device, and so asks for one.
    compiler._get_arch_for_options_for_nvrtc = compiler._get_arch_for_options_for_nvrtc.__wrapped__
    text = source("blake3")
    errors = [
        error_of(
            core.compile_with_cache,
            *(text, options),
            arch=str(architecture),
            prepend_cupy_headers=False,
        )
        for architecture, options in forms
    ]
    kept = len(list(Path(os.environ["CUPY_CACHE_DIR"]).glob("*.cubin")))
    assembled = core.assemble_cupy_compiler_options(())
    return {
        "errors": errors,
        "kept": kept,
        "headers": [option[2:] for option in assembled if option.startswith("-I")],
    }


def parameters(options: tuple[str, ...]) -> dict[str, list[str]]:
    """The types of the parameters of each kernel, as the assembly language has them."""
    from cupy.cuda import compiler

    compiler._get_arch_for_options_for_nvrtc = lambda arch: ("-arch=compute_90", "ptx")
    text, _ = compiler.compile_using_nvrtc(source("blake3"), options, "90", "kernels.cu")
    return {
        name: _PARAMETER.findall(arguments) for name, arguments in _ENTRY.findall(text.decode())
    }


def answers(calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]]) -> dict[str, str]:
    """What CuPy says to each of these calls."""
    import cupy

    found = {}
    for name, (arguments, named) in calls.items():
        if name in ("b3_tiles", "b3_fold", "b3_small", "fma_rate"):
            # Launching a kernel compiles it.
            kernel = cupy.RawKernel("", name)
            found[name] = error_of(kernel, *arguments, **named)
        elif name == "RawModule":
            module = cupy.RawModule(*arguments, **named)
            found[name] = error_of(module.get_function, "b3_tiles")
        else:
            function: Any = cupy
            for part in name.split("."):
                function = getattr(function, part)
            if name == "cuda.Device":
                # A number; the device is asked for when it becomes the current one.
                function = function(*arguments, **named).__enter__
                arguments, named = (), {}
            found[name] = error_of(function, *arguments, **named)
    return found


def error_of(function: Any, *arguments: Any, **named: Any) -> str:
    try:
        function(*arguments, **named)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        status = getattr(error, "status", "")
        return f"{type(error).__name__} {status}: {error}".partition("\n")[0]
    return "nothing"


if __name__ == "__main__":
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    # Before CuPy compiles anything by its own way, which leaves it changed.
    told = {"calls": answers(job["calls"])} | compiled(job["forms"])
    print(json.dumps(told | {"parameters": parameters(job["signature"])}))
