"""The list of GPUs, from a stand-in for CUDA's driver."""

from __future__ import annotations

import pytest

from effdet_deploy.runtimes import gpu


class Driver:
    """A CUDA driver with two GPUs of compute capability 8.9."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cuInit(self, flags):  # noqa: N802
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, buffer, size, device):  # noqa: N802
        buffer.value = f"GPU {device.value}".encode()
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):  # noqa: N802
        return 0

    def cuCtxPushCurrent_v2(self, context):  # noqa: N802
        return 0

    def cuMemGetInfo_v2(self, free, total):  # noqa: N802
        free._obj.value, total._obj.value = 2**34, 2**35
        return 0


@pytest.fixture(autouse=True)
def driver(monkeypatch):
    monkeypatch.setattr(gpu.ctypes, "CDLL", Driver)


def test_gpus_are_read_from_the_driver():
    assert gpu.list_gpus() == (gpu.Gpu("GPU 0", "8.9"), gpu.Gpu("GPU 1", "8.9"))


def test_a_driver_that_does_not_start_means_no_gpu(monkeypatch):
    monkeypatch.setattr(Driver, "cuInit", lambda self, flags: 100)
    assert gpu.list_gpus() == ()


def test_the_free_memory_is_what_the_driver_says(monkeypatch):
    assert gpu.free_memory(1) == 2**34
    monkeypatch.setattr(Driver, "cuDevicePrimaryCtxRetain", lambda self, context, device: 2)
    assert gpu.free_memory() == 0


def test_no_driver_means_no_free_memory(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(gpu.ctypes, "CDLL", absent)
    assert gpu.free_memory() == 0
    assert gpu.list_gpus() == ()
