"""The parts of CUDA that running an engine needs: memory, a stream, graphs of recorded work.

Either cuda-python or pycuda provides them; the first one that is installed is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from effdet_deploy.errors import DeviceError, EffdetDeployError, MissingPackageError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def require_cuda() -> None:
    """Check that cuda-python or pycuda is installed, before anything is run.

    Raises:
        MissingPackageError: neither package is installed.
    """
    for name in ("cuda.bindings", "pycuda"):
        # find_spec raises ImportError for a submodule of an absent package.
        with contextlib.suppress(ImportError):
            if importlib.util.find_spec(name) is not None:
                return
    raise MissingPackageError("cuda-python", "running engines")


def open_cuda(index: int) -> Cuda:
    """Open device ``index`` with cuda-python, or with pycuda if only that is installed.

    Raises:
        MissingPackageError: neither package is installed.
        DeviceError: the device cannot be used.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise MissingPackageError("cuda-python", "running engines") from error
        return _PyCuda(driver, index)
    return CudaPython(runtime, index)


def _failure(doing: str, code: str) -> EffdetDeployError:
    if re.search(r"MemoryAllocation|out of memory", code):
        return ResourceError(
            f"The GPU ran out of memory while {doing} ({code}).",
            "Use a smaller batch, or free memory on the GPU.",
        )
    return DeviceError(f"CUDA failed while {doing}: {code}.", "Run 'effdet-deploy doctor'.")


def _check(doing: str, answer: tuple[Any, ...]) -> Any:
    """Return the value of a cuda-python call, whose first result is the error code."""
    code, *values = answer
    if int(code) != 0:
        raise _failure(doing, str(getattr(code, "name", code)))
    return values[0] if values else None


class CudaPython:
    """One device, through ``cuda.bindings.runtime``.

    Addresses, streams, graphs and events are integers, as TensorRT takes them. Every call raises
    ResourceError when memory runs out and DeviceError when CUDA fails otherwise.

    Args:
        runtime: the module ``cuda.bindings.runtime``.
        index: the number of the device.
    """

    def __init__(self, runtime: Any, index: int) -> None:
        self._cuda = runtime
        self._index = index
        self.recorder = Recorder(runtime)
        # Events are Python objects in cuda-python: they are kept here by their addresses.
        self._events: dict[int, Any] = {}
        with self.current():
            pass

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current in the calling thread, as all other methods require."""
        _check("choosing the device", self._cuda.cudaSetDevice(self._index))
        yield

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device."""
        return int(_check(f"allocating {size} bytes", self._cuda.cudaMalloc(size)))

    def free(self, address: int) -> None:
        """Free memory that :meth:`allocate` returned."""
        _check("freeing memory", self._cuda.cudaFree(address))

    def allocate_pinned(self, size: int) -> NDArray[np.uint8]:
        """Return ``size`` bytes of page-locked host memory, from which copies are asynchronous."""
        answer = self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault)
        address = int(_check(f"locking {size} bytes of host memory", answer))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Free an array that :meth:`allocate_pinned` returned; do not use it afterwards."""
        _check("freeing host memory", self._cuda.cudaFreeHost(array.ctypes.data))

    def create_stream(self) -> int:
        """Create a stream; CUDA's default stream cannot be recorded."""
        flags = self._cuda.cudaStreamNonBlocking
        return int(_check("creating a stream", self._cuda.cudaStreamCreateWithFlags(flags)))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        _check("destroying a stream", self._cuda.cudaStreamDestroy(stream))

    def copy_in(self, address: int, array: NDArray[np.uint8], size: int, stream: int) -> None:
        """Queue a copy of the first ``size`` bytes of pinned memory to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        answer = self._cuda.cudaMemcpyAsync(address, array.ctypes.data, size, kind, stream)
        _check("copying to the GPU", answer)

    def copy_out(self, array: NDArray[np.uint8], address: int, size: int, stream: int) -> None:
        """Queue a copy from the device to the first ``size`` bytes of pinned memory."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        answer = self._cuda.cudaMemcpyAsync(array.ctypes.data, address, size, kind, stream)
        _check("copying from the GPU", answer)

    def synchronize(self, stream: int) -> None:
        """Wait until everything queued on ``stream`` is done."""
        _check("waiting for the GPU", self._cuda.cudaStreamSynchronize(stream))

    def record_event(self, stream: int) -> int:
        """Return an event that completes when everything queued so far on ``stream`` is done."""
        event = _check("creating an event", self._cuda.cudaEventCreate())
        self._events[int(event)] = event
        _check("recording an event", self._cuda.cudaEventRecord(event, stream))
        return int(event)

    def seconds_between(self, first: int, second: int) -> float:
        """Return the seconds that passed on the device between two completed events."""
        answer = self._cuda.cudaEventElapsedTime(self._events[first], self._events[second])
        return float(_check("reading an event", answer)) / 1e3

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        _check("destroying an event", self._cuda.cudaEventDestroy(self._events.pop(event)))


class Recorder:
    """Records work that is queued on a stream, and plays it back at the cost of one call."""

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        # Graphs are Python objects in cuda-python: they are kept here by their addresses.
        self._graphs: dict[int, Any] = {}

    def begin(self, stream: int) -> None:
        """Record the work that is queued from here on instead of doing it."""
        # Thread-local mode lets other threads allocate memory meanwhile.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _check("recording a graph", self._cuda.cudaStreamBeginCapture(stream, mode))

    def end(self, stream: int) -> int:
        """Return the recorded graph, ready to be launched."""
        graph = _check("recording a graph", self._cuda.cudaStreamEndCapture(stream))
        try:
            ready = _check("preparing a graph", self._cuda.cudaGraphInstantiate(graph, 0))
        finally:
            _check("freeing a graph", self._cuda.cudaGraphDestroy(graph))
        self._graphs[int(ready)] = ready
        return int(ready)

    def launch(self, graph: int, stream: int) -> None:
        """Queue a recorded graph."""
        _check("launching a graph", self._cuda.cudaGraphLaunch(self._graphs[graph], stream))

    def destroy(self, graph: int) -> None:
        """Destroy a recorded graph."""
        _check("freeing a graph", self._cuda.cudaGraphExecDestroy(self._graphs.pop(graph)))


class _PyCuda:
    """One device, through ``pycuda.driver``; see :class:`CudaPython` for the methods.

    pycuda cannot record graphs. Its objects are kept here by their addresses.

    Args:
        driver: the module ``pycuda.driver``.
        index: the number of the device.
    """

    recorder = None

    def __init__(self, driver: Any, index: int) -> None:
        self._driver = driver
        self._kept: dict[int, Any] = {}
        with self._doing("choosing the device"):
            driver.init()
            self._context = driver.Device(index).retain_primary_context()

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise _failure(what, str(error)) from error

    def _keep(self, address: int, thing: Any) -> int:
        self._kept[address] = thing
        return address

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        # A context that is left on the stack makes pycuda abort when Python ends.
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, size: int) -> int:
        with self._doing(f"allocating {size} bytes"):
            memory = self._driver.mem_alloc(size)
        return self._keep(int(memory), memory)

    def free(self, address: int) -> None:
        self._kept.pop(address).free()

    def allocate_pinned(self, size: int) -> NDArray[np.uint8]:
        with self._doing(f"locking {size} bytes of host memory"):
            array: NDArray[np.uint8] = self._driver.pagelocked_empty(size, np.uint8)
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Do nothing: the memory is freed with the last array that uses it."""

    def create_stream(self) -> int:
        stream = self._driver.Stream()
        return self._keep(int(stream.handle), stream)

    def destroy_stream(self, stream: int) -> None:
        self._kept.pop(stream)

    def copy_in(self, address: int, array: NDArray[np.uint8], size: int, stream: int) -> None:
        with self._doing("copying to the GPU"):
            self._driver.memcpy_htod_async(address, array[:size], self._kept[stream])

    def copy_out(self, array: NDArray[np.uint8], address: int, size: int, stream: int) -> None:
        with self._doing("copying from the GPU"):
            self._driver.memcpy_dtoh_async(array[:size], address, self._kept[stream])

    def synchronize(self, stream: int) -> None:
        with self._doing("waiting for the GPU"):
            self._kept[stream].synchronize()

    def record_event(self, stream: int) -> int:
        with self._doing("recording an event"):
            event = self._driver.Event()
            event.record(self._kept[stream])
        return self._keep(id(event), event)

    def seconds_between(self, first: int, second: int) -> float:
        with self._doing("reading an event"):
            return float(self._kept[second].time_since(self._kept[first])) / 1e3

    def destroy_event(self, event: int) -> None:
        self._kept.pop(event)


Cuda: TypeAlias = CudaPython | _PyCuda
