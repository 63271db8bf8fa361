"""CUDA's two Python packages behind one interface: the parts that need no GPU."""

from __future__ import annotations

import ast
import builtins
import enum
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from effdet_deploy.errors import DeviceError, MissingPackageError, ResourceError
from effdet_deploy.runtimes.gpu import list_gpus
from effdet_deploy.runtimes.tensorrt import cuda as cuda_memory
from effdet_deploy.runtimes.tensorrt.cuda import CudaPython, _PyCuda, open_cuda

Code = enum.IntEnum(
    "Code",
    {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorLaunchFailure": 719},
)


def fake_cuda_python(**answers) -> SimpleNamespace:
    """Return a fake ``cuda.bindings.runtime`` that gives ``answers``."""
    calls = {name: lambda *_, answer=answer: answer for name, answer in answers.items()}
    return SimpleNamespace(cudaSetDevice=lambda _index: (Code.cudaSuccess,), **calls)


def test_every_name_of_cuda_python_exists():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    used = set()
    for node in ast.walk(ast.parse(Path(cuda_memory.__file__).read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("cuda"):
            used.add(node.attr)
    nested = {"cudaMemcpyKind", "cudaStreamCaptureMode"}
    inside = {each for name in nested for each in dir(getattr(runtime, name))}

    assert {"cudaMalloc", "cudaGraphLaunch"} <= used
    assert {each for each in used if not hasattr(runtime, each) and each not in inside} == set()


@pytest.mark.skipif(bool(list_gpus()), reason="a GPU: would show what a machine without one says")
def test_a_missing_driver_is_a_device_error():
    pytest.importorskip("cuda.bindings.runtime")

    with pytest.raises(DeviceError, match="CUDA failed while choosing the device: cudaError"):
        open_cuda(0)


def test_neither_package_names_the_extra(monkeypatch):
    genuine = builtins.__import__

    def refuse(name, *rest):
        if name.startswith(("cuda", "pycuda")):
            raise ImportError(name)
        return genuine(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)

    with pytest.raises(MissingPackageError, match="needs the package 'cuda-python'"):
        open_cuda(0)


def test_a_lack_of_memory_is_a_resource_error():
    fake = fake_cuda_python(cudaMalloc=(Code.cudaErrorMemoryAllocation, None))

    with pytest.raises(ResourceError, match="ran out of memory while allocating 99 bytes"):
        CudaPython(fake, 0).allocate(99)


def test_any_other_code_is_a_device_error():
    fake = fake_cuda_python(cudaStreamSynchronize=(Code.cudaErrorLaunchFailure,))

    with pytest.raises(DeviceError, match="while waiting for the GPU: cudaErrorLaunchFailure"):
        CudaPython(fake, 0).synchronize(1)


class FakePyCuda(ModuleType):
    """The functions of ``pycuda.driver`` that are used, in host memory."""

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("pycuda.driver")
        self.depth = 0
        self.contents: dict[int, np.ndarray] = {}
        context = SimpleNamespace(push=lambda: self._enter(1))
        self.Device = lambda _index: SimpleNamespace(retain_primary_context=lambda: context)
        self.Context = SimpleNamespace(pop=lambda: self._enter(-1))
        self.Stream = lambda: SimpleNamespace(handle=77, synchronize=lambda: None)
        self.pagelocked_empty = np.empty
        self.Event = _Event

    def _enter(self, step):
        self.depth += step

    def init(self):
        pass

    def mem_alloc(self, size):
        if size > 1000:
            raise self.Error("cuMemAlloc failed: out of memory")
        return _Allocation(self, size)

    def memcpy_htod_async(self, address, source, _stream):
        self.contents[address][: len(source)] = source

    def memcpy_dtoh_async(self, target, address, _stream):
        target[:] = self.contents[address][: len(target)]


class _Event:
    """An event that is reached at once; ``time_since`` gives milliseconds, as in pycuda."""

    def record(self, _stream):
        self.passed = time.perf_counter()

    def time_since(self, other):
        return 1e3 * (self.passed - other.passed)


class _Allocation:
    def __init__(self, driver, size):
        self._driver, self._address = driver, 1000 + len(driver.contents)
        driver.contents[self._address] = np.zeros(size, np.uint8)

    def __int__(self):
        return self._address

    def free(self):
        del self._driver.contents[self._address]


def test_pycuda_is_used_if_only_pycuda_is_installed(monkeypatch):
    driver = FakePyCuda()
    package = ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)

    cuda = open_cuda(0)
    with cuda.current():
        address, stream = cuda.allocate(8), cuda.create_stream()
        source, target = cuda.allocate_pinned(8), cuda.allocate_pinned(8)
        source[:] = range(8)
        cuda.copy_in(address, source, 8, stream)
        events = [cuda.record_event(stream)]
        cuda.copy_out(target, address, 6, stream)
        events.append(cuda.record_event(stream))
        cuda.synchronize(stream)
        assert 0 < cuda.seconds_between(*events) < 1
        for each in events:
            cuda.destroy_event(each)
        cuda.free(address)
        cuda.destroy_stream(stream)

    assert target[:6].tolist() == list(range(6))
    assert (stream, driver.contents, cuda.recorder) == (77, {}, None)
    # A context left on the stack makes pycuda abort when Python ends.
    assert driver.depth == 0


def test_pycuda_without_memory_is_a_resource_error():
    with pytest.raises(ResourceError, match="ran out of memory"):
        _PyCuda(FakePyCuda(), 0).allocate(2000)
