"""One execution context of an engine with its own stream and buffers, for one run at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.errors import DeviceError, EffdetDeployError, ModelFileError, ResourceError
from effdet_deploy.runtimes.adapter import TimedRun
from effdet_deploy.runtimes.runtime_errors import OUT_OF_MEMORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tensorrt
    from numpy.typing import NDArray

    from effdet_deploy.artifact.tensors import TensorInfo, Tensors
    from effdet_deploy.runtimes.tensorrt.cuda import Cuda, Recorder
    from effdet_deploy.runtimes.tensorrt.library import Log


class _Buffer:
    """Device memory of a tensor and its page-locked host copy, for the largest batch."""

    def __init__(self, cuda: Cuda, info: TensorInfo, most: int) -> None:
        self.info = info
        self.host = cuda.allocate_pinned(self.size(most))
        try:
            self.device = cuda.allocate(self.size(most))
        except EffdetDeployError:
            cuda.free_pinned(self.host)
            raise

    def shape(self, batch: int) -> tuple[int, ...]:
        """Return the tensor's shape for ``batch`` images; its other dimensions are fixed."""
        return (batch, *(side or 0 for side in self.info.shape[1:]))

    def size(self, batch: int) -> int:
        """Return the tensor's size in bytes for ``batch`` images."""
        return math.prod(self.shape(batch)) * self.info.dtype.itemsize

    def array(self, batch: int) -> NDArray[Any]:
        """Return the host copy for ``batch`` images, as a view."""
        return self.host[: self.size(batch)].view(self.info.dtype).reshape(self.shape(batch))

    def free(self, cuda: Cuda) -> None:
        try:
            cuda.free(self.device)
        finally:
            cuda.free_pinned(self.host)


class ExecutionContext:
    """An execution context of an engine; only one thread may use it at a time.

    Args:
        engine: the deserialized engine.
        cuda: the device, which must be current in the calling thread.
        log: the logger of the engine's runtime.
        inputs: the engine's inputs; None in a shape marks the batch.
        outputs: the engine's outputs.
        most: the largest batch size.

    Raises:
        ResourceError: the GPU has too little memory.
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
        self._has_run = False
        # A CUDA graph records one shape only.
        fixed = all(None not in each.shape for each in inputs)
        self._recorder = cuda.recorder if fixed else None
        with contextlib.ExitStack() as undo:
            context: tensorrt.IExecutionContext | None = engine.create_execution_context()
            if context is None:
                raise self._refused("create an execution context", ResourceError)
            self._context = context
            self._stream = cuda.create_stream()
            undo.callback(cuda.destroy_stream, self._stream)
            buffers = []
            for info in (*inputs, *outputs):
                buffers.append(_Buffer(cuda, info, most))
                undo.callback(buffers[-1].free, cuda)
                if not context.set_tensor_address(info.name, buffers[-1].device):
                    raise self._refused(f"take the address of '{info.name}'", ModelFileError)
            self._inputs, self._outputs = buffers[: len(inputs)], buffers[len(inputs) :]
            self._cleanup = undo.pop_all()

    def run(self, feeds: Tensors) -> Tensors:
        """Run on checked arrays and return arrays that the caller owns.

        Raises:
            ModelFileError: TensorRT refuses to run; no output is returned.
            DeviceError: CUDA fails.
            ResourceError: memory runs out.
        """
        batch = self._fill(feeds)
        if self._recorder is not None and self._has_run:
            self._play(self._recorder, batch)
        else:
            # TensorRT allocates memory in the first run, which a recording does not allow.
            self._queue(batch)
            self._has_run = True
        # Before this, the outputs still hold the results of the last run.
        self._cuda.synchronize(self._stream)
        return self._results(batch)

    def run_timed(self, feeds: Tensors) -> TimedRun:
        """Run as :meth:`run`, with events between the stages and without the CUDA graph."""
        batch = self._fill(feeds)
        cuda = self._cuda
        with contextlib.ExitStack() as events:
            passed = [self._mark(events)]
            for stage in (self._queue_inputs, self._compute, self._queue_outputs):
                stage(batch)
                passed.append(self._mark(events))
            cuda.synchronize(self._stream)
            stages = [cuda.seconds_between(*pair) for pair in itertools.pairwise(passed)]
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
        """Put the arrays into the page-locked buffers and tell the context a new batch size."""
        batch = len(next(iter(feeds.values())))
        for buffer in self._inputs:
            np.copyto(buffer.array(batch), feeds[buffer.info.name])
        if batch == self._batch:
            return batch
        # After a refusal the batch size is set again next time.
        self._batch = 0
        for buffer in self._inputs:
            if not self._context.set_input_shape(buffer.info.name, buffer.shape(batch)):
                raise self._refused(f"take the shape {list(buffer.shape(batch))}", ModelFileError)
        for buffer in self._outputs:
            shape = tuple(self._context.get_tensor_shape(buffer.info.name))
            if shape != buffer.shape(batch):
                raise ModelFileError(
                    f"The engine's output '{buffer.info.name}' has the shape {list(shape)} for a "
                    f"batch of {batch}.",
                    "Build the engine again from its ONNX file.",
                )
        self._batch = batch
        return batch

    def _queue(self, batch: int) -> None:
        self._queue_inputs(batch)
        self._compute(batch)
        self._queue_outputs(batch)

    def _queue_inputs(self, batch: int) -> None:
        for each in self._inputs:
            self._cuda.copy_in(each.device, each.host, each.size(batch), self._stream)

    def _compute(self, _batch: int) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise self._refused("run", ModelFileError)

    def _queue_outputs(self, batch: int) -> None:
        for each in self._outputs:
            self._cuda.copy_out(each.host, each.device, each.size(batch), self._stream)

    def _play(self, recorder: Recorder, batch: int) -> None:
        """Launch the CUDA graph, which is recorded in the second run."""
        if not self._graph:
            try:
                self._graph = self._record(recorder, batch)
            except EffdetDeployError:
                # Some engines cannot be recorded: NonMaxSuppression's output sizes depend on the
                # run.
                self._recorder = None
                self._log.errors.clear()
                self._queue(batch)
                return
        recorder.launch(self._graph, self._stream)

    def _record(self, recorder: Recorder, batch: int) -> int:
        recorder.begin(self._stream)
        try:
            self._queue(batch)
        except EffdetDeployError:
            # The stream must not stay in recording mode.
            with contextlib.suppress(DeviceError):
                recorder.destroy(recorder.end(self._stream))
            raise
        return recorder.end(self._stream)

    def _results(self, batch: int) -> Tensors:
        return {each.info.name: each.array(batch).copy() for each in self._outputs}

    def _refused(self, what: str, kind: type[EffdetDeployError]) -> EffdetDeployError:
        said = self._log.take_reason()
        if OUT_OF_MEMORY.search(said):
            kind = ResourceError
        return kind(
            f"TensorRT could not {what}: {said}.",
            "Use a smaller batch, or free memory on the GPU."
            if kind is ResourceError
            else "Build the engine again from its ONNX file.",
        )
