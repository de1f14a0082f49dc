"""Whether a device could be used, found out without importing or starting anything heavy.

A probe loads the driver's library, which takes a millisecond where there is none. Where there is
one, asking it for devices may take half a second: call it when a device is wanted, not before, and
never before a fork, which a started driver does not survive.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

# Where OpenCL drivers register; a loader looks elsewhere if OCL_ICD_VENDORS says so.
_OPENCL_VENDORS = "/etc/OpenCL/vendors"


class Missing(NamedTuple):
    """What a backend lacks, and how to get it."""

    what: str
    hint: str


def installing(extra: str) -> str:
    """How to install an extra. By its name alone, an index of packages may give somebody else's."""
    return f"pip install '.[{extra}]' in the source directory of tb-cli"


def cuda_missing(load: Callable[[str], Any] | None = None) -> Missing | None:
    """What stands in the way of CUDA: the driver, a device or CuPy; None if all are there.

    `load` loads a shared library by name, as `ctypes.CDLL` does. CUDA_VISIBLE_DEVICES is obeyed by
    the driver itself.
    """
    if load is None:
        from ctypes import CDLL

        load = CDLL
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return Missing(
            "no NVIDIA driver: libcuda.so.1 cannot be loaded",
            "install the driver of the GPU, or use --backend cpu",
        )
    from ctypes import byref, c_int

    if status := driver.cuInit(0):
        return Missing(
            f"the NVIDIA driver does not start: cuInit returns {status}",
            "nvidia-smi shows whether the driver sees a GPU; CUDA_VISIBLE_DEVICES may hide it",
        )
    count = c_int()
    if driver.cuDeviceGetCount(byref(count)) or count.value == 0:
        return Missing(
            "the NVIDIA driver sees no GPU",
            "nvidia-smi shows what it sees; CUDA_VISIBLE_DEVICES may hide it",
        )
    if not is_installed("cupy"):
        return Missing("CuPy is not installed", installing("gpu"))
    return None


def opencl_missing(*, registered: bool = False) -> Missing | None:
    """What stands in the way of OpenCL, as far as one sees without asking its loader for devices.

    With `registered`, a driver must be registered where all drivers are.
    """
    if not is_installed("pyopencl"):
        return Missing("pyopencl is not installed", installing("opencl"))
    if registered:
        try:
            drivers = [name for name in os.listdir(_OPENCL_VENDORS) if name.endswith(".icd")]
        except OSError:
            drivers = []
        if not drivers:
            return Missing(
                f"no OpenCL driver is registered in {_OPENCL_VENDORS}",
                "install the OpenCL driver of the GPU",
            )
    return None


def is_installed(package: str) -> bool:
    """Whether a package could be imported."""
    if package in sys.modules:
        return sys.modules[package] is not None
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(package) is not None
