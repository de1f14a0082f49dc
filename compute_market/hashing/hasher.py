"""BLAKE3 where it is fastest, and on the CPU whenever a device fails.

Nothing is imported or started for a device before there is work that it would do faster.
"""

import sys
from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from compute_market.backends import BACKENDS, DEVICE_BACKENDS, BackendName
from compute_market.errors import IntegrityError, UsageError
from compute_market.hashing import cpu, probe
from compute_market.hashing.batch import hash_batch
from compute_market.hashing.cpu import Advance

if TYPE_CHECKING:
    from compute_market.hashing.calibration import Calibration
    from compute_market.hashing.pipeline import DeviceBackend

T = TypeVar("T")

# Without a calibration a device is used where it is certain to win by far: for data it has already,
# and for many slices so short that the CPU is busy with calls rather than with bytes.
RESIDENT_BYTES_MIN = 1_048_576
BATCH_SLICES_MIN = 1000
BATCH_SLICE_BYTES_MAX = 4096
BATCH_BYTES_MIN = 1_048_576


class Hasher:
    """Hashes batches, files and arrays with one backend, or with the faster one of two.

    `auto` chooses by the calibration if there is one. A device that is not open yet is opened once
    the work seen so far would have been done faster on it by what opening it costs.

    With `cuda` or `opencl` the device is opened at once, and UsageError (`backend_missing`) says
    what is missing if it cannot be. A device that fails later is given up: its work is done again
    on the CPU, with the same digests, and `warn` is told once, in one line.
    """

    def __init__(
        self,
        backend: BackendName = "auto",
        *,
        calibration: "Calibration | None" = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        if backend not in BACKENDS:
            raise UsageError(f"backend {backend!a} is none of {', '.join(BACKENDS)}")
        self._backend = backend
        self._calibration = calibration
        self._warn = warn
        self._device: DeviceBackend | None = None
        self._is_given_up = backend == "cpu"
        self._saved_ns = 0
        self._alone_min = _alone_min(calibration)
        # Several threads may use the hasher; only one of them may open the device.
        self._lock = RLock()
        if self.is_forced:
            self._device = self._attempt(lambda: self._opened_by_name(backend), backend)

    def __enter__(self) -> "Hasher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what the device holds."""
        device, self._device = self._device, None
        self._is_given_up = True
        if device is not None:
            self._attempt(device.close, device.name)

    @property
    def is_forced(self) -> bool:
        """Whether everything goes to a device for as long as it works."""
        return self._backend in DEVICE_BACKENDS and not self._is_given_up

    @property
    def is_open(self) -> bool:
        """Whether a device has been opened and not been given up."""
        return self._device is not None

    @property
    def name(self) -> str:
        """The backend at work: that of the device once there is one, else `cpu`."""
        return self._device.name if self._device is not None else "cpu"

    @property
    def width(self) -> int:
        """How many calls of `hash_filled` a device takes at once."""
        return self._device.width if self._device is not None else 1

    def hash_batch(self, buffer: Any, offsets: Sequence[int], lengths: Sequence[int]) -> bytes:
        """The digests of ranges of a buffer, 32 bytes each, one after another in their order.

        Offsets and lengths are in bytes. Raises UsageError for a range that is not in the buffer.
        """
        count = len(lengths)
        if count == 1 and lengths[0] < self._alone_min and not self.is_forced:
            # For a short slice, even asking what would be faster takes too long.
            return hash_batch(buffer, offsets, lengths)
        length = int(lengths.sum()) if hasattr(lengths, "sum") else sum(lengths)
        if device := self._device_for_batch(count, length):
            digests = self._attempt(
                lambda: device.hash_batch(buffer, offsets, lengths), device.name
            )
            if digests is not None:
                return digests
        return hash_batch(buffer, offsets, lengths)

    def hash_array(self, array: Any) -> bytes:
        """The digest of the bytes of an array, on a device or in memory.

        A device array is one that CuPy, PyTorch or Numba made, or `pyopencl.array`; the last is
        fetched and hashed on the CPU unless it is in a context of the backend's.
        Raises UsageError unless the array is contiguous in C order, and IntegrityError
        (`unreadable`) when it cannot be fetched from a device that has failed.
        """
        array = _plain(array)
        on_device = hasattr(array, "__cuda_array_interface__") or hasattr(array, "base_data")
        if on_device:
            if device := self._device_for_resident(int(array.nbytes)):
                digest = self._attempt(lambda: device.hash_array(array), device.name)
                if digest is not None:
                    return digest
            array = _fetched(array)
        view = memoryview(array)
        if not view.c_contiguous:
            raise _not_contiguous()
        return cpu.hash_bytes(view.cast("B") if view.nbytes else b"")

    def hash_opened(
        self, path: str, descriptor: int, length: int, advance: Advance | None = None
    ) -> bytes:
        """The digest of an open file; see `cpu.hash_opened` for what it raises."""
        if device := self._device_for_file(length):
            progress = _Progress(advance)
            digest = self._attempt(
                lambda: device.hash_opened(path, descriptor, length, progress.advance), device.name
            )
            if digest is not None:
                return digest
            advance = progress.advance_beyond()
        return cpu.hash_opened(path, descriptor, length, advance=advance)

    def takes_file(self, length: int, *, threads: int, together: int) -> bool:
        """Whether a file of that length should go to the device; opens it if it should.

        It is one of many, which so many threads would share, and of which the device would take so
        many `together` in one launch.
        """
        calibration = self._calibration
        if calibration is None:
            return self._device_if(is_faster=False) is not None
        gain_ns = calibration.each_file_gain_ns(length, threads=threads, together=together)
        return self._device_gaining(gain_ns) is not None

    def hash_filled(
        self, lengths: Sequence[int], fill: Callable[[Any, list[int]], None]
    ) -> bytes | None:
        """What `DeviceBackend.hash_filled` gives, or None when there is no device any more."""
        device = self._device
        if device is None:
            return None
        return self._attempt(lambda: device.hash_filled(lengths, fill), device.name)

    def _device_for_batch(self, count: int, length: int) -> "DeviceBackend | None":
        if self._calibration is not None:
            return self._device_gaining(self._calibration.batch_gain_ns(count, length))
        many = count >= BATCH_SLICES_MIN and length >= BATCH_BYTES_MIN
        return self._device_if(is_faster=many and length < count * BATCH_SLICE_BYTES_MAX)

    def _device_for_resident(self, length: int) -> "DeviceBackend | None":
        # Where no device was calibrated there is one all the same: the array is on it.
        if self._calibration is not None and self._calibration.device is not None:
            return self._device_gaining(self._calibration.resident_gain_ns(length))
        return self._device_if(is_faster=length >= RESIDENT_BYTES_MIN)

    def _device_for_file(self, length: int) -> "DeviceBackend | None":
        if self._calibration is not None:
            return self._device_gaining(self._calibration.file_gain_ns(length))
        return self._device_if(is_faster=False)

    def _device_gaining(self, gain_ns: int) -> "DeviceBackend | None":
        """The device if it is to be used for work at which it was measured to be so much faster."""
        return self._device_if(is_faster=gain_ns > 0, gain_ns=gain_ns)

    def _device_if(self, *, is_faster: bool, gain_ns: int = 0) -> "DeviceBackend | None":
        """The device if it is to be used for work that it does faster, or in any case if forced.

        Opens it if need be; a device that was calibrated once `gain_ns` of all such work, this time
        included, comes to what opening it costs.
        """
        if self._is_given_up or not (is_faster or self.is_forced):
            return None
        if self._device is not None:
            return self._device
        with self._lock:
            if self._device is None and not self._is_given_up:
                self._saved_ns += gain_ns
                rates = self._calibration.device if self._calibration is not None else None
                if rates is None or self._saved_ns >= rates.start_ns:
                    self._device = self._opened()
                    self._is_given_up = self._device is None
            return self._device

    def _opened(self) -> "DeviceBackend | None":
        """The devices that were calibrated, or else the GPUs that are there."""
        rates = self._calibration.device if self._calibration is not None else None
        if rates is not None:
            opened = self._attempt(
                lambda: open_device(rates.backend, any_device=True), rates.backend
            )
            if opened is not None and opened.devices != rates.devices:
                self._warn("the devices are not those that were calibrated; calibrate again")
            return opened
        if probe.cuda_missing() is None:
            return self._attempt(lambda: open_device("cuda"), "cuda")
        if probe.opencl_missing(registered=True) is None:
            # Whether one of the devices is a GPU shows only now. If not, nothing is amiss.
            return self._attempt(lambda: open_device("opencl"), "opencl", missing_is_fine=True)
        return None

    def _opened_by_name(self, backend: str) -> "DeviceBackend | None":
        """The devices that were asked for. Raises UsageError if they are missing."""
        from compute_market.hashing.device import DeviceMissing

        try:
            return open_device(backend, any_device=True)
        except DeviceMissing as error:
            raise _backend_missing(backend, str(error), error.hint) from error

    def _attempt(
        self, work: Callable[[], T], backend: str, *, missing_is_fine: bool = False
    ) -> T | None:
        """Do some work of the device; if it fails, give the device up, tell once, return None."""
        from compute_market.hashing.device import DeviceError, DeviceMissing

        try:
            return work()
        except DeviceError as error:
            with self._lock:
                if not self._is_given_up and not (
                    missing_is_fine and isinstance(error, DeviceMissing)
                ):
                    self._warn(f"{backend}: {error}; hashing goes on on the CPU")
                self._is_given_up = True
                self._device = None
            return None


def _alone_min(calibration: "Calibration | None") -> int:
    """A single slice shorter than this is hashed sooner than any launch is made, bytes."""
    rates = calibration.device if calibration is not None else None
    if calibration is None or rates is None:
        return 2**63
    return rates.launch_ns * calibration.cpu.one_thread_bytes_per_s // 1_000_000_000


class _Progress:
    """Counts what a device reports, so that the CPU, beginning anew, does not report it again."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance = advance
        self._done = 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._advance is not None:
            self._advance(count)

    def advance_beyond(self) -> Advance:
        """Reports only what is beyond what was reported before."""
        known = self._done
        begun = 0

        def advance(count: int) -> None:
            nonlocal begun
            begun += count
            beyond = min(count, begun - known)
            if beyond > 0 and self._advance is not None:
                self._advance(beyond)

        return advance


def _plain(array: Any) -> Any:
    """A tensor of PyTorch's as plain bytes, where they lie; anything else as it is.

    Tensors with gradients, or of types that no array has, would not say where they lie, or could
    not be fetched.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return array
    if not array.is_contiguous():
        raise _not_contiguous()
    content = array.detach().reshape(-1).view(torch.uint8)
    return content if content.is_cuda else content.numpy()


def _fetched(array: Any) -> Any:
    """A device array in memory. A copy would be contiguous, so that is looked at before."""
    if (interface := getattr(array, "__cuda_array_interface__", None)) is not None:
        from compute_market.hashing.cuda import is_contiguous

        in_order = is_contiguous(interface)
    else:
        in_order = array.flags.c_contiguous
    if not in_order:
        raise _not_contiguous()
    try:
        if hasattr(array, "get"):
            return array.get()
        if hasattr(array, "copy_to_host"):
            return array.copy_to_host()
        return array.cpu().numpy()
    except _device_errors() as error:
        raise IntegrityError(
            f"the array cannot be fetched from its device: {type(error).__name__}",
            reason="unreadable",
        ) from error


def _device_errors() -> tuple[type[Exception], ...]:
    """What libraries raise for a device; those of some are no RuntimeErrors."""
    own = (("pyopencl", "Error"), ("numba.cuda.cudadrv.driver", "CudaAPIError"))
    found = [getattr(sys.modules.get(module), name, RuntimeError) for module, name in own]
    return (RuntimeError, MemoryError, *found)


def _not_contiguous() -> UsageError:
    from compute_market.hashing.device import not_contiguous

    return not_contiguous()


def open_device(backend: str, *, any_device: bool = False) -> "DeviceBackend":
    """Open the devices of a backend. Raises DeviceError, DeviceMissing if there are none."""
    from compute_market.hashing.device import DeviceMissing

    missing = probe.cuda_missing() if backend == "cuda" else probe.opencl_missing()
    if missing is not None:
        raise DeviceMissing(*missing)
    if backend == "cuda":
        from compute_market.hashing.cuda import open_backend

        return open_backend()
    from compute_market.hashing.opencl import open_backend as open_opencl

    return open_opencl(any_device=any_device)


def _backend_missing(backend: str, what: str, hint: str) -> UsageError:
    return UsageError(f"backend {backend}: {what}", hint=hint, reason="backend_missing")
