"""A test double of CUDA in host memory: work is queued on streams and done when it is waited for.

A caller that reads a result too early gets what its memory held before, as on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import time

import numpy as np

from effdet_deploy.errors import ResourceError


class HostCuda:
    """Has the methods of :class:`effdet_deploy.runtimes.tensorrt.cuda.Cuda`.

    Args:
        with_recorder: whether work can be recorded as a CUDA graph.
        capacity: how many bytes of memory the device has.
    """

    def __init__(self, *, with_recorder: bool = True, capacity: int = 2**40) -> None:
        self.recorder = HostRecorder(self) if with_recorder else None
        self.memory: dict[int, ctypes.Array] = {}
        self.pinned: set[int] = set()
        self.streams: dict[int, list] = {}
        self.recording: dict[int, list] = {}
        self.events: dict[int, float] = {}
        self.capacity = capacity

    @contextlib.contextmanager
    def current(self):
        yield

    def allocate(self, size):
        if size + sum(map(len, self.memory.values())) > self.capacity:
            raise ResourceError(f"The GPU ran out of memory while allocating {size} bytes.", "")
        memory = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(memory)
        self.memory[address] = memory
        return address

    def free(self, address):
        del self.memory[address]

    def allocate_pinned(self, size):
        array = np.full(size, 0xEE, np.uint8)
        self.pinned.add(array.ctypes.data)
        return array

    def free_pinned(self, array):
        self.pinned.remove(array.ctypes.data)

    def create_stream(self):
        stream = 1 + max(self.streams, default=0)
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream):
        del self.streams[stream]

    def queue(self, stream, work):
        self.recording.get(stream, self.streams[stream]).append(work)

    def copy_in(self, address, array, size, stream):
        self.queue(stream, lambda: ctypes.memmove(address, array.ctypes.data, size))

    def copy_out(self, array, address, size, stream):
        self.queue(stream, lambda: ctypes.memmove(array.ctypes.data, address, size))

    def synchronize(self, stream):
        work, self.streams[stream] = self.streams[stream], []
        for each in work:
            each()

    def record_event(self, stream):
        event = 1 + max(self.events, default=0)
        self.events[event] = 0.0
        self.queue(stream, lambda: self.events.update({event: time.perf_counter()}))
        return event

    def seconds_between(self, first, second):
        return self.events[second] - self.events[first]

    def destroy_event(self, event):
        del self.events[event]

    @property
    def is_empty(self) -> bool:
        """Whether all memory, streams, events and graphs were given back."""
        graphs = self.recorder.graphs if self.recorder else {}
        return not (self.memory or self.pinned or self.streams or self.events or graphs)


class HostRecorder:
    """Has the methods of :class:`effdet_deploy.runtimes.tensorrt.cuda.Recorder`."""

    def __init__(self, cuda: HostCuda) -> None:
        self._cuda = cuda
        self.graphs: dict[int, list] = {}
        self.launched = 0

    def begin(self, stream):
        self._cuda.recording[stream] = []

    def end(self, stream):
        graph = 1 + max(self.graphs, default=0)
        self.graphs[graph] = self._cuda.recording.pop(stream)
        return graph

    def launch(self, graph, stream):
        self.launched += 1
        for each in self.graphs[graph]:
            self._cuda.queue(stream, each)

    def destroy(self, graph):
        del self.graphs[graph]
