"""Workloads by name: the built-in ones and those that installed packages register."""

from collections.abc import Callable
from functools import partial

from compute_market.errors import IntegrityError, MarketError, UsageError
from compute_market.hashing.cpu import DIGEST_BYTES, hash_opened
from compute_market.text import quoted

ENTRY_POINT_GROUP = "compute_market.workloads"

# Called with the path (for error texts only), a descriptor at the start of the open file, and its
# length in bytes; returns the 32-byte proof, or raises MarketError or OSError. It must be a pure
# function of the bytes: a slice may run more than once, on any thread or machine.
Workload = Callable[[str, int, int], bytes]

# The reference job of each is the BLAKE3-256 of the slice.
BUILT_IN: dict[str, Workload] = dict.fromkeys(("transcode", "inference", "gpu_hash"), hash_opened)


def calibrate_gpu(gflops: int) -> int:
    """The compute units per second that hardware of this rating is worth: 1 GFLOPS is 1 unit/s.

    The rating is for single precision, a multiply-add counted as two operations, as `compute
    calibrate` measures it. Raises UsageError for a rating below 1.
    """
    if gflops < 1:
        raise UsageError(f"a rating of {gflops} GFLOPS: at least 1 is needed")
    return gflops


def resolve(name: str) -> Workload:
    """The workload of that name: a built-in one, else one that an installed package registers.

    Packages do so by an entry point of the group `compute_market.workloads`; built-in names cannot
    be taken over. Raises UsageError: `unknown_workload`, listing the known names, or
    `broken_workload` when the package that claims the name cannot be loaded. Whatever else a
    registered workload raises or returns becomes an IntegrityError (`broken_workload`).
    """
    workload = BUILT_IN.get(name)
    if workload is not None:
        return workload
    # This reads the metadata of every installed package, so it comes last.
    from importlib.metadata import entry_points

    registered = entry_points(group=ENTRY_POINT_GROUP)
    if name not in registered.names:
        known = ", ".join(sorted(BUILT_IN.keys() | registered.names))
        raise UsageError(f"unknown workload {name!r}: known are {known}", reason="unknown_workload")
    entry_point = registered[name]
    problem = "not callable"
    try:
        loaded = entry_point.load()
        if callable(loaded):
            return partial(_run_registered, name, loaded)
    except (ImportError, AttributeError) as error:
        problem = str(error)
    raise UsageError(
        f"workload {name!r} cannot be loaded from {entry_point.value}: {problem}",
        reason="broken_workload",
    )


def _run_registered(
    name: str, workload: Workload, path: str, descriptor: int, length: int
) -> bytes:
    try:
        proof = workload(path, descriptor, length)
    except (MarketError, OSError):
        raise
    except (Exception, SystemExit) as error:
        # The code of a package may raise anything, and ends one slice with it, not the command.
        said = " ".join(str(error).split())
        raise IntegrityError(
            f"{quoted(path)}: workload {name} failed: {type(error).__name__}: {said}",
            hint="look for the mistake in the package that registers it",
            reason="broken_workload",
        ) from error
    found = f"{len(proof)} bytes" if isinstance(proof, bytes) else f"a {type(proof).__name__}"
    if found != f"{DIGEST_BYTES} bytes":
        raise IntegrityError(
            f"{quoted(path)}: workload {name} returned {found}, not {DIGEST_BYTES} bytes",
            reason="broken_workload",
        )
    return proof
