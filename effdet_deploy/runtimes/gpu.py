"""The NVIDIA GPUs of this machine, as the driver lists them; no CUDA toolkit is needed."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name (``NVIDIA L4``) and compute capability (``8.9``)."""

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def _started_driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def list_gpus() -> tuple[Gpu, ...]:
    """Return the visible GPUs in CUDA's order; an empty tuple without a driver."""
    driver, count = _started_driver(), ctypes.c_int()
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        version = []
        for which in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
            version.append(str(value.value))
        found.append(Gpu(name.value.decode(errors="replace"), ".".join(version)))
    return tuple(found)


def free_memory(index: int = 0) -> int:
    """Return the free memory of a GPU in bytes, as the driver reports it; 0 without a driver."""
    driver = _started_driver()
    if driver is None:
        return 0
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or driver.cuCtxPushCurrent_v2(context)
        or driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    )
    return 0 if failed else free.value
