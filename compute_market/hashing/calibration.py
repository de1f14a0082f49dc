"""What was measured on a machine, and what it says about where bytes are hashed fastest.

All rates are whole bytes per second and all times whole nanoseconds: where a slice is hashed is
decided with integers.
"""

from typing import Any

import msgspec
from blake3 import __version__ as blake3_version

from compute_market.backends import DEVICE_BACKENDS
from compute_market.errors import UsageError
from compute_market.hashing.batch import SHARED_BYTES
from compute_market.hashing.cpu import THREADED_BYTES, cores
from compute_market.hashing.device import SEGMENT_BYTES

VERSION = 1
_NS = 1_000_000_000


class CpuRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The CPU alone."""

    threads: int  # what "all" means
    one_thread_bytes_per_s: int  # a long slice in memory
    all_threads_bytes_per_s: int
    file_bytes_per_s: int  # a long file that is in the page cache
    slice_ns: int  # what a slice costs beside its bytes, in a batch of many


class DeviceRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One backend with all of its devices."""

    backend: str  # cuda or opencl
    devices: list[str]
    gflops: int  # FP32, multiply-adds as two, the first device
    resident_bytes_per_s: int  # data on the device
    resident_ns: int  # what a hash of data on the device costs beside its bytes
    copy_bytes_per_s: int  # from pinned memory to the device, without hashing
    pinned_bytes_per_s: int | None  # hashing from pinned memory; None where no memory is
    # Hashing from any other memory, and files: the first 16 MiB, which are staged, then copied and
    # then hashed, and what follows, during which all of that happens at once.
    staged_first_bytes_per_s: int
    staged_bytes_per_s: int
    file_first_bytes_per_s: int
    file_bytes_per_s: int
    launch_ns: int  # what a batch costs beside its slices
    slice_ns: int  # what a slice of a batch costs beside its bytes
    start_ns: int  # opening the devices, once in a process


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine, as its rates were at one time."""

    version: int
    machine: str
    measured_at: int  # Unix seconds
    cpu: CpuRates
    device: DeviceRates | None = None

    def cpu_batch_ns(self, count: int, length: int) -> int:
        """The time the CPU needs for `count` slices in memory of `length` bytes altogether."""
        cpu = self.cpu
        mean = length // max(1, count)
        alone = count == 1 and length > THREADED_BYTES
        together = count > 1 and mean >= SHARED_BYTES
        rate = cpu.all_threads_bytes_per_s if alone or together else cpu.one_thread_bytes_per_s
        return count * cpu.slice_ns + length * _NS // rate

    def device_batch_ns(self, count: int, length: int) -> int:
        """The time the device needs for the same."""
        device = self._device()
        bytes_ns = _segments_ns(length, device.staged_first_bytes_per_s, device.staged_bytes_per_s)
        return device.launch_ns + count * device.slice_ns + bytes_ns

    def cpu_file_ns(self, length: int) -> int:
        """The time the CPU needs for a warm file."""
        if length <= THREADED_BYTES:
            return self.cpu.slice_ns + length * _NS // self.cpu.one_thread_bytes_per_s
        return self.cpu.slice_ns + length * _NS // self.cpu.file_bytes_per_s

    def device_file_ns(self, length: int) -> int:
        """The time the device needs for the same."""
        device = self._device()
        bytes_ns = _segments_ns(length, device.file_first_bytes_per_s, device.file_bytes_per_s)
        return device.launch_ns + bytes_ns

    def cpu_each_file_ns(self, length: int, threads: int) -> int:
        """The time that each of many warm files adds where so many threads work one file each."""
        cpu = self.cpu
        alone_ns = cpu.slice_ns + length * _NS // cpu.one_thread_bytes_per_s
        together_ns = length * _NS // cpu.all_threads_bytes_per_s
        return max(alone_ns // min(threads, cpu.threads), together_ns)

    def device_each_file_ns(self, length: int, together: int) -> int:
        """The time that each adds on the device, which takes so many of them in one launch."""
        device = self._device()
        bytes_ns = length * _NS // device.file_bytes_per_s
        return device.launch_ns // together + device.slice_ns + bytes_ns

    def cpu_resident_ns(self, length: int) -> int:
        """The time the CPU needs for data that has to be fetched from the device first."""
        device = self._device()
        fetch_ns = device.launch_ns + length * _NS // device.copy_bytes_per_s
        return fetch_ns + self.cpu_batch_ns(1, length)

    def device_resident_ns(self, length: int) -> int:
        """The time the device needs for data it has."""
        device = self._device()
        return device.resident_ns + length * _NS // device.resident_bytes_per_s

    def batch_gain_ns(self, count: int, length: int) -> int:
        """By how much the device is faster at a batch; below 0 if it is slower, 0 without one."""
        if self.device is None:
            return 0
        return self.cpu_batch_ns(count, length) - self.device_batch_ns(count, length)

    def file_gain_ns(self, length: int) -> int:
        """By how much the device is faster at one warm file; see `batch_gain_ns`."""
        if self.device is None:
            return 0
        return self.cpu_file_ns(length) - self.device_file_ns(length)

    def each_file_gain_ns(self, length: int, *, threads: int, together: int) -> int:
        """By how much the device is faster at each of many warm files; see `batch_gain_ns`."""
        if self.device is None:
            return 0
        cpu_ns = self.cpu_each_file_ns(length, threads)
        return cpu_ns - self.device_each_file_ns(length, together)

    def resident_gain_ns(self, length: int) -> int:
        """By how much the device is faster at data it has; see `batch_gain_ns`."""
        if self.device is None:
            return 0
        return self.cpu_resident_ns(length) - self.device_resident_ns(length)

    def _device(self) -> DeviceRates:
        assert self.device is not None, "no device was calibrated"
        return self.device


def _segments_ns(length: int, first_bytes_per_s: int, bytes_per_s: int) -> int:
    """The time for the first segment, and for what is behind it."""
    first = min(length, SEGMENT_BYTES)
    return first * _NS // first_bytes_per_s + (length - first) * _NS // bytes_per_s


class _Versioned(msgspec.Struct):
    version: int


def machine() -> str:
    """What a calibration holds for: processor, cores, drivers and the version of the hasher."""
    processor = _field("/proc/cpuinfo", "model name") or "unknown processor"
    words = [processor, f"{cores()} cores", f"blake3 {blake3_version}"]
    if driver := _field("/proc/driver/nvidia/version", "NVRM version"):
        words.append(" ".join(driver.split()))
    return ", ".join(words)


def encode(calibration: Calibration) -> bytes:
    """The text of a calibration file."""
    return msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n"


def decode(content: bytes, source: str, machine: str) -> Calibration:
    """The calibration a file holds.

    Raises UsageError with one line that names `source` when it is damaged, of another version or
    not of this `machine`.
    """
    try:
        # Another version may have other fields.
        version = msgspec.json.decode(content, type=_Versioned).version
        if version != VERSION:
            raise UsageError(f"{source}: version {version}, not {VERSION}", hint=_HINT)
        found = msgspec.json.decode(content, type=Calibration)
        _check_rates(found)
    except msgspec.ValidationError as error:
        from compute_market.field_errors import field_error  # Few files are wrong.

        wrong = field_error(f"{source}: not a calibration", str(error), Calibration)
        raise UsageError(wrong.message, hint=_HINT) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        from compute_market.field_errors import no_json

        raise UsageError(f"{source}: not a calibration: {no_json(error)}", hint=_HINT) from error
    except ValueError as error:
        raise UsageError(f"{source}: not a calibration: {error}", hint=_HINT) from error
    if found.machine != machine:
        raise UsageError(
            f"{source}: made on another machine, {found.machine!a}; this is {machine!a}", hint=_HINT
        )
    return found


_HINT = "`tb-cli compute calibrate` measures this machine"


def _check_rates(found: Calibration) -> None:
    if found.device is not None and found.device.backend not in DEVICE_BACKENDS:
        raise ValueError(f"backend is {found.device.backend!a}")
    rates: list[tuple[str, Any]] = []
    for part in (found.cpu, found.device):
        if part is not None:
            rates += [(name, getattr(part, name)) for name in part.__struct_fields__]
    for name, value in rates:
        least = 0 if name.endswith("_ns") else 1
        if isinstance(value, int) and not least <= value < 2**63:
            raise ValueError(f"{name} is {value}")


def _field(path: str, name: str) -> str | None:
    """The text behind `name:` in a file of the kernel's, if there is one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return None
