"""Arrays of other libraries over `fake_gpus.Array`, with what the hasher uses of them."""

from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from tests.support.gpu.fake_gpus import Array, CUDARuntimeError


class NumbaArray:
    """An array on a device, with the attributes of Numba's."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.nbytes = array.nbytes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._array.__cuda_array_interface__

    def copy_to_host(self) -> NDArray[Any]:
        try:
            return self._array.get()
        except CUDARuntimeError as error:
            raise CudaAPIError(str(error)) from error


class CudaAPIError(Exception):
    """Numba's."""


class TorchArray:
    """An array on a device, with the attributes of PyTorch's.

    With gradients, and of a type that NumPy has not, it does not say where it lies.
    """

    is_cuda = True

    def __init__(self, array: Array, *, is_plain: bool = False) -> None:
        self._array = array
        self._is_plain = is_plain
        self.nbytes = array.nbytes

    def is_contiguous(self) -> bool:
        (stride,) = self._array.strides
        return stride == self._array.dtype.itemsize

    def detach(self) -> "TorchArray":
        return TorchArray(self._array)

    def reshape(self, *shape: int) -> "TorchArray":
        assert shape == (-1,)
        return self

    def view(self, kind: str) -> "TorchArray":
        assert kind == "uint8"
        return TorchArray(self._array, is_plain=True)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not self._is_plain:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")
        return self._array.__cuda_array_interface__ | {"version": 2}

    def cpu(self) -> "TorchArray":
        return self

    def numpy(self) -> NDArray[Any]:
        assert self._is_plain, "Got unsupported ScalarType BFloat16"
        return self._array.get()


def modules() -> dict[str, Any]:
    """The modules of PyTorch and Numba, by name, as far as they are asked for."""
    torch, numba = ModuleType("torch"), ModuleType("numba.cuda.cudadrv.driver")
    torch.__dict__.update(Tensor=TorchArray, uint8="uint8")
    numba.__dict__.update(CudaAPIError=CudaAPIError)
    return {module.__name__: module for module in (torch, numba)}
