"""`compute calibrate`: measure this machine, show it, and keep it for `auto`."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from compute_market.backends import BACKENDS, DEVICE_BACKENDS
from compute_market.errors import UsageError
from compute_market.workloads.places import files_together
from compute_market.workloads.workloads import calibrate_gpu
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import AtHand
from tb_cli.frame.render import note, write_json
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes

if TYPE_CHECKING:
    from compute_market.hashing.calibration import Calibration, DeviceRates
    from compute_market.hashing.pipeline import DeviceBackend

_KIB = 1024
_SIZES = [2**power for power in range(10, 31)]


_FIGURES = Noun(
    "figures",
    "measured",
    (Column("measured"), Column("on"), Column("value", kind="number"), Column("unit")),
    shown=("measured", "on", "value", "unit"),
    ranked=True,
)


@examples("tb-cli compute calibrate --backend cpu")
@takes(
    option(
        "--backend",
        "What to measure beside the CPU: auto is a GPU if there is one.",
        choices=BACKENDS,
        default="auto",
    )
)
def calibrate(session: Session, *, backend: str) -> None:
    """The result is kept, and `auto` chooses by it.

    Measures the CPU and, if there is one, the GPU: data on the device, the way there, files and
    many short slices. Takes a few seconds; let nothing else run meanwhile. Run it again when
    hardware or drivers change.
    """
    from compute_market.hashing import calibration
    from compute_market.hashing.device import DeviceError
    from compute_market.hashing.measure import measure

    _check_kept(session)
    lacking: list[str] = []
    find = partial(_open_device, backend, lacking) if backend != "cpu" else lambda: None
    measured_at = now_ms() // 1000
    try:
        measured = measure(time.perf_counter_ns, measured_at=measured_at, open_device=find)
    except DeviceError as error:
        if backend != "auto":
            raise UsageError(f"the device failed: {error}", hint="see --backend cpu") from error
        lacking.append(f"the device failed: {error}")
        measured = measure(time.perf_counter_ns, measured_at=measured_at)
    if not session.dry_run:
        session.home.make()
        session.home.keep(session.home.calibration, calibration.encode(measured).decode())
    if session.json:
        from msgspec import to_builtins

        document = to_builtins(measured)
        write_json(document | ({"dry_run": True} if session.dry_run else {}))
    else:
        mark = "dry_run: " if session.dry_run else ""
        told = [row._replace(measured=mark + row.measured)._asdict() for row in rows(measured)]
        lists.show(session, _FIGURES, {}, AtHand(told))
    if lacking and measured.device is None:
        note(f"only the CPU was calibrated: {'; '.join(lacking)}")
    elif measured.device is not None:
        worth = calibrate_gpu(measured.device.gflops)
        tell = f"tb-cli compute-market capacity record {worth}"
        note(f"rated {worth} units/s; `{tell}` lets the market know")


def _check_kept(session: Session) -> None:
    """Find out before anything is measured whether it can be kept, in a dry run too."""
    session.home.check()
    session.home.check_kept(session.home.calibration)


class Row(NamedTuple):
    """One line of the table."""

    measured: str
    on: str
    value: str
    unit: str


def rows(measured: "Calibration") -> Iterator[Row]:
    """The table: what was measured, then from where on `auto` chooses the device."""
    cpu = measured.cpu
    threads = f"cpu, {cpu.threads} threads"
    yield Row("long slice", "cpu, 1 thread", *_rate(cpu.one_thread_bytes_per_s))
    yield Row("long slice", threads, *_rate(cpu.all_threads_bytes_per_s))
    yield Row("warm file", threads, *_rate(cpu.file_bytes_per_s))
    yield Row("1000-byte slices", "cpu, 1 thread", *_slices(measured.cpu_batch_ns))
    device = measured.device
    if device is None:
        return
    on = f"{device.backend}, {' + '.join(device.devices)}"
    first = f"{device.backend}, {device.devices[0]}"
    yield Row("FP32 multiply-add", first, str(device.gflops), "GFLOPS")
    yield Row("data on the device", on, *_rate(device.resident_bytes_per_s))
    yield Row("… and beside it, each", on, *_microseconds(device.resident_ns))
    yield Row("copy to the device", on, *_rate(device.copy_bytes_per_s))
    if device.pinned_bytes_per_s is not None:
        yield Row("long slice, pinned", on, *_rate(device.pinned_bytes_per_s))
    yield Row("slice, first 16 MiB", on, *_rate(device.staged_first_bytes_per_s))
    yield Row("… and what follows", on, *_rate(device.staged_bytes_per_s))
    yield Row("warm file, first 16 MiB", on, *_rate(device.file_first_bytes_per_s))
    yield Row("… and what follows", on, *_rate(device.file_bytes_per_s))
    yield Row("1000-byte slices", on, *_slices(measured.device_batch_ns))
    yield Row("… and beside them, each batch", on, *_microseconds(device.launch_ns))
    yield Row("opening it", on, *_milliseconds(device.start_ns))
    yield from _choices(measured, device)


def _choices(measured: "Calibration", device: "DeviceRates") -> Iterator[Row]:
    """Of what sizes the device is chosen, once it is open."""
    threads = measured.cpu.threads
    choices: tuple[tuple[str, Callable[[int], int], Callable[[int], int]], ...] = (
        ("auto: one file", measured.cpu_file_ns, measured.device_file_ns),
        (
            "auto: each of many files",
            lambda length: measured.cpu_each_file_ns(length, threads),
            lambda length: measured.device_each_file_ns(length, files_together(length)),
        ),
        ("auto: data on the device", measured.cpu_resident_ns, measured.device_resident_ns),
        (
            "auto: 1000-byte slices",
            lambda length: measured.cpu_batch_ns(-(-length // 1000), length),
            lambda length: measured.device_batch_ns(-(-length // 1000), length),
        ),
    )
    for name, cpu_ns, device_ns in choices:
        faster = [size for size in _SIZES if device_ns(size) < cpu_ns(size)]
        for first, last in _runs(faster):
            value = f"from {first // _KIB}"
            if last < _SIZES[-1]:
                value += f" to {last // _KIB}"
            yield Row(name, device.backend, value, "KiB")
        if not faster:
            yield Row(name, "cpu", "always", "")


def _runs(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of sizes that each are twice the one before."""
    firsts = [size for size in sizes if size // 2 not in sizes]
    lasts = [size for size in sizes if size * 2 not in sizes]
    return zip(firsts, lasts, strict=True)


def _open_device(backend: str, lacking: list[str]) -> "DeviceBackend | None":
    """The device to calibrate; None if there is none, with what stands in the way in `lacking`.

    Raises UsageError if it was asked for by name.
    """
    from compute_market.hashing.device import DeviceError
    from compute_market.hashing.hasher import open_device

    for name in DEVICE_BACKENDS if backend == "auto" else (backend,):
        try:
            return open_device(name, any_device=backend != "auto")
        except DeviceError as error:
            if backend != "auto":
                hint = getattr(error, "hint", None)
                message = f"backend {name}: {error}"
                raise UsageError(message, hint=hint, reason="backend_missing") from error
            lacking.append(f"{name}: {error}")
    return None


def _rate(bytes_per_s: int) -> tuple[str, str]:
    return f"{bytes_per_s / 1e9:.2f}", "GB/s"


def _slices(batch_ns: Callable[[int, int], int]) -> tuple[str, str]:
    """Millions of slices a second, in a batch of a hundred thousand."""
    return f"{1e5 * 1e3 / batch_ns(100_000, 100_000_000):.2f}", "million/s"


def _microseconds(time_ns: int) -> tuple[str, str]:
    return f"{time_ns / 1e3:.1f}", "µs"


def _milliseconds(time_ns: int) -> tuple[str, str]:
    return f"{time_ns / 1e6:.1f}", "ms"
