"""One execution context with its own stream and buffers, for one run at a time."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.errors import DeviceError, EffdetDeployError, ModelFileError, ResourceError
from effdet_deploy.runtimes.adapter import TimedRun
from effdet_deploy.runtimes.tensorrt.library import OUT_OF_MEMORY, essence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tensorrt
    from numpy.typing import NDArray

    from effdet_deploy.artifact.tensors import TensorInfo, Tensors
    from effdet_deploy.runtimes.tensorrt.cuda import Cuda, Recorder
    from effdet_deploy.runtimes.tensorrt.library import Log


class _Buffer:
    """A tensor's place on the device and its page-locked mirror, for the largest batch."""

    def __init__(self, cuda: Cuda, info: TensorInfo, most: int) -> None:
        self.info = info
        self.sides = tuple(most if side is None else side for side in info.shape)
        size = math.prod(self.sides) * info.dtype.itemsize
        self.host = cuda.allocate_pinned(size)
        try:
            self.device = cuda.allocate(size)
        except EffdetDeployError:
            cuda.free_pinned(self.host)
            raise

    def array(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the host mirror as an array of ``shape``; a view."""
        return self.host[: self.bytes_of(shape)].view(self.info.dtype).reshape(shape)

    def bytes_of(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.info.dtype.itemsize

    def free(self, cuda: Cuda) -> None:
        try:
            cuda.free(self.device)
        finally:
            cuda.free_pinned(self.host)


class Session:
    """An execution context of an engine; not for two threads at once.

    Args:
        engine: deserialised.
        cuda: the device, current in the calling thread.
        log: of the engine's runtime.
        inputs: the engine's inputs; None marks the batch.
        outputs: its outputs.
        most: the largest batch.

    Raises:
        ResourceError: the GPU has no memory for it.
        ModelFileError: TensorRT refuses an address.
    """

    def __init__(
        self,
        engine: tensorrt.ICudaEngine,
        cuda: Cuda,
        log: Log,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        most: int,
    ) -> None:
        self._cuda, self._log = cuda, log
        self._batch = 0
        self._graph = 0
        self._runs = 0
        # A graph is a recording of one shape.
        fixed = all(None not in each.shape for each in inputs)
        self._recorder = cuda.recorder if fixed else None
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            context: tensorrt.IExecutionContext | None = engine.create_execution_context()
            if context is None:
                raise self._refused("create an execution context", ResourceError)
            self._context = context
            self._stream = cuda.create_stream()
            undo.callback(cuda.destroy_stream, self._stream)
            self._inputs = [self._buffer(undo, each, most) for each in inputs]
            self._outputs = [self._buffer(undo, each, most) for each in outputs]
            for each in (*self._inputs, *self._outputs):
                if not self._context.set_tensor_address(each.info.name, each.device):
                    raise self._refused(f"take the address of '{each.info.name}'", ModelFileError)
            self._cleanup = undo.pop_all()

    def _buffer(self, undo: contextlib.ExitStack, info: TensorInfo, most: int) -> _Buffer:
        buffer = _Buffer(self._cuda, info, most)
        undo.callback(buffer.free, self._cuda)
        return buffer

    def run(self, feeds: Tensors) -> Tensors:
        """Run on checked arrays; returns arrays of the caller's own.

        Raises:
            ModelFileError: TensorRT refuses to run; no output is returned.
            DeviceError: CUDA fails.
            ResourceError: memory runs out.
        """
        batch = self._fill(feeds)
        if self._recorder is not None:
            self._run_recorded(self._recorder, batch)
        else:
            self._queue_all(batch)
        # Until here the outputs are whatever the last run left.
        self._cuda.synchronize(self._stream)
        return self._results(batch)

    def run_timed(self, feeds: Tensors) -> TimedRun:
        """Run as :meth:`run`, with events between the stages; the graph is not used."""
        batch = self._fill(feeds)
        with contextlib.ExitStack() as events:
            begun = self._mark(events)
            self._queue_inputs(batch)
            copied = self._mark(events)
            self._enqueue()
            computed = self._mark(events)
            self._queue_outputs(batch)
            ended = self._mark(events)
            self._cuda.synchronize(self._stream)
            between = self._cuda.seconds_between
            stages = between(begun, copied), between(copied, computed), between(computed, ended)
        return TimedRun(self._results(batch), *stages)

    def _mark(self, events: contextlib.ExitStack) -> int:
        event = self._cuda.record_event(self._stream)
        events.callback(self._cuda.destroy_event, event)
        return event

    def close(self) -> None:
        """Free everything; closing twice is harmless."""
        try:
            if self._graph and self._recorder is not None:
                self._recorder.destroy(self._graph)
        finally:
            self._graph = 0
            self._cleanup.close()

    def _fill(self, feeds: Tensors) -> int:
        """Put the arrays into the page-locked buffers and tell the context their shapes."""
        batch = 0
        for buffer in self._inputs:
            value = feeds[buffer.info.name]
            batch = len(value)
            np.copyto(buffer.array(value.shape), value)
            if batch != self._batch and not self._context.set_input_shape(
                buffer.info.name, value.shape
            ):
                raise self._refused(f"take the shape {list(value.shape)}", ModelFileError)
        if batch != self._batch:
            self._batch = 0
            self._check_output_shapes(batch)
            self._batch = batch
        return batch

    def _check_output_shapes(self, batch: int) -> None:
        for buffer in self._outputs:
            shape = tuple(self._context.get_tensor_shape(buffer.info.name))
            if shape != (batch, *buffer.sides[1:]):
                raise ModelFileError(
                    f"The engine's output '{buffer.info.name}' has the shape {list(shape)} for a "
                    f"batch of {batch}.",
                    "Build the engine again from its ONNX file.",
                )

    def _queue_all(self, batch: int) -> None:
        self._queue_inputs(batch)
        self._enqueue()
        self._queue_outputs(batch)

    def _queue_inputs(self, batch: int) -> None:
        for each in self._inputs:
            size = each.bytes_of((batch, *each.sides[1:]))
            self._cuda.copy_in(each.device, each.host, size, self._stream)

    def _queue_outputs(self, batch: int) -> None:
        for each in self._outputs:
            size = each.bytes_of((batch, *each.sides[1:]))
            self._cuda.copy_out(each.host, each.device, size, self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise self._refused("run", ModelFileError)

    def _run_recorded(self, recorder: Recorder, batch: int) -> None:
        """Queue the first run, record the second, and play the recording from then on.

        TensorRT allocates and sets up in the first run, which a recording does not allow.
        """
        if not self._runs:
            self._queue_all(batch)
            self._runs = 1
            return
        if not self._graph:
            try:
                self._graph = self._record(recorder, batch)
            except EffdetDeployError:
                # Not every engine can be recorded: NonMaxSuppression decides its sizes as it runs.
                self._recorder = None
                self._log.errors.clear()
                self._queue_all(batch)
                return
        recorder.launch(self._graph, self._stream)

    def _record(self, recorder: Recorder, batch: int) -> int:
        recorder.begin(self._stream)
        try:
            self._queue_all(batch)
        except EffdetDeployError:
            # A stream must not stay in recording.
            with contextlib.suppress(DeviceError):
                recorder.destroy(recorder.end(self._stream))
            raise
        return recorder.end(self._stream)

    def _results(self, batch: int) -> Tensors:
        return {
            each.info.name: each.array((batch, *each.sides[1:])).copy() for each in self._outputs
        }

    def _refused(self, what: str, kind: type[EffdetDeployError]) -> EffdetDeployError:
        said = essence(self._log.errors) or "it gave no reason"
        self._log.errors.clear()
        if OUT_OF_MEMORY.search(said):
            kind = ResourceError
        return kind(
            f"TensorRT could not {what}: {said}.",
            "Use a smaller batch, or free memory on the GPU."
            if kind is ResourceError
            else "Build the engine again from its ONNX file.",
        )
