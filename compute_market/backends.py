"""The names of what hashes slices: the setting `backend` and `hashing` know the same ones.

It imports nothing, because who hashes a file needs no records, and the settings no hasher.
"""

from typing import Literal

# The devices, in the order in which `auto` looks for one.
DeviceBackendName = Literal["cuda", "opencl"]
DEVICE_BACKENDS: tuple[DeviceBackendName, ...] = ("cuda", "opencl")

BackendName = Literal["auto", "cpu", DeviceBackendName]
BACKENDS: tuple[BackendName, ...] = ("auto", "cpu", *DEVICE_BACKENDS)
