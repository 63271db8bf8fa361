"""Running ONNX models with OpenVINO on the CPU, in the precision that the file states."""

from __future__ import annotations

import contextlib
import functools
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import openvino.properties as ov_properties
import openvino.properties.hint as ov_hints

from effdet_deploy.artifact.modelfile import check_external_files, read_spec
from effdet_deploy.artifact.onnxfile import read_onnx
from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.artifact.tensors import TensorInfo, checked_feeds
from effdet_deploy.errors import DeviceError, ModelFileError, UnknownDeviceError
from effdet_deploy.runtimes.adapter import (
    TimedRun,
    closed_error,
    require_no_plugin,
    require_spec_fits,
)
from effdet_deploy.runtimes.lanes import Lanes, lane_count
from effdet_deploy.runtimes.runtime_errors import last_line, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import Tensors

_NEWEST_OPSET, _NEWEST_IR_VERSION = 28, 14
"""The newest versions that OpenVINO is known to read: those of ONNX 1.23."""


def load(path: Path, *, device: str, threads: int | None, trust: bool) -> OpenVinoRuntime:  # noqa: ARG001
    """Load an ONNX model; see :func:`effdet_deploy.runtimes.load_runtime`."""
    spec = read_spec(path, "onnx")
    require_no_plugin(path, spec, "OpenVINO")
    check_external_files(path, spec)
    _require_known_version(path)
    if device.partition(":")[0] == "cuda":
        raise DeviceError(
            f"The device '{device}' was asked for, but this package runs OpenVINO only on the CPU.",
            "Use --device cpu, or --backend onnxruntime.",
        )
    if device not in ("auto", "cpu"):
        raise UnknownDeviceError(device, ("auto", "cpu"))
    with _translated(path, "loaded"):
        return OpenVinoRuntime(path, spec, _core().read_model(str(path)), threads)


def _require_known_version(path: Path) -> None:
    """Refuse a file of a newer version, which OpenVINO reads as if it were of an older one."""
    model = read_onnx(path)
    opset = max((model.opsets.get(each, 0) for each in ("", "ai.onnx")), default=0)
    for what, found, newest in (
        ("opset", opset, _NEWEST_OPSET),
        ("IR version", model.ir_version, _NEWEST_IR_VERSION),
    ):
        if found > newest:
            raise ModelFileError(
                f"'{path}' has {what} {found}, but OpenVINO is known to read only up to {newest}.",
                "Export it again with --opset 20, or update effdet-deploy and openvino.",
            )


@functools.cache
def _core() -> ov.Core:
    """Return the only core of this process, which is never released.

    Models, and OpenVINO's exceptions, need the libraries that the core has loaded.
    """
    return ov.Core()


def _translated(path: Path, doing: str) -> contextlib.AbstractContextManager[None]:
    def explain(text: str) -> ModelFileError:
        said = last_line(text, skip=r"src/|Exception from")
        return ModelFileError(
            f"'{path.name}' cannot be {doing} by OpenVINO {ov.__version__}: {said}.",
            "Run it with --backend onnxruntime, or export it again.",
        )

    return translated(path, doing, (RuntimeError,), explain)


class OpenVinoRuntime:
    """A compiled model; see :class:`effdet_deploy.runtimes.adapter.Runtime`.

    OpenVINO is faster for shapes that it knows. A model whose batch range begins at one is compiled
    for one image, and once more, for any number of images, when the first larger batch comes.
    """

    backend = "openvino"
    device = "cpu"

    def __init__(
        self, path: Path, spec: DetectorSpec, model: ov.Model, threads: int | None
    ) -> None:
        self.spec = spec
        self.inputs = tuple(_tensor_info(each) for each in model.inputs)
        self.outputs = tuple(_tensor_info(each) for each in model.outputs)
        self._path = path
        self._model: ov.Model | None = model
        self._threads = threads
        self._lock = Lock()
        self._compiled: dict[bool, _Compiled] = {}
        self.lanes = Lanes(path.name, lane_count(threads, spec), self._compile_lanes)
        require_spec_fits(path, self)
        self._compiled_for(spec.batch.minimum)

    @property
    def precision(self) -> str:
        """The precision of the computation: FP16 files are computed in FP32."""
        return "int8" if self.spec.precision.kind == "int8" else "fp32"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the model; raises TensorError on unfit feeds and ResourceError without memory."""
        return self.run_timed(feeds).outputs

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as :meth:`run`, and time the stages; on the CPU the input is not copied."""
        with self._ready(feeds) as checked:
            return self._compiled_for(len(checked[INPUT_NAME])).run(checked)

    def divides(self, batch: int) -> bool:
        """Return whether :meth:`run_side_by_side` divides a batch of this size."""
        return self.lanes.pays(batch)

    def run_side_by_side(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as :meth:`run`, but side by side if there is an image for every thread."""
        with self._ready(feeds) as checked:
            if self.divides(len(checked[INPUT_NAME])):
                return self.lanes.run(checked)
            return self._compiled_for(len(checked[INPUT_NAME])).run(checked).outputs

    def run_on_one_thread(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run one image as :meth:`run`, on one thread; several threads may call this at once."""
        with self._ready(feeds) as checked:
            return self.lanes.run_here(checked)

    def close(self) -> None:
        """Release the model; runs that are under way finish first."""
        with self._lock:
            self._model = None
            self._compiled = {}
        self.lanes.close()

    @contextlib.contextmanager
    def _ready(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[Tensors]:
        if self._model is None:
            raise closed_error(self._path.name)
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with _translated(self._path, "run"):
            yield checked

    def _compiled_for(self, batch: int) -> _Compiled:
        """Return the model compiled for one image, or for any number if ``batch`` is larger."""
        one = batch == 1
        with self._lock:
            if one not in self._compiled:
                hints = {ov_hints.performance_mode: ov_hints.PerformanceMode.LATENCY}
                if self._threads is not None:
                    hints[ov_properties.inference_num_threads] = self._threads
                self._compiled[one] = self._compile(one, hints)
            return self._compiled[one]

    def _compile_lanes(self) -> Callable[[Tensors], Tensors]:
        count = self.lanes.count
        hints = {ov_properties.inference_num_threads: count, ov_properties.streams.num: count}
        compiled = self._compile(one=True, hints=hints)
        return lambda feeds: compiled.run(feeds).outputs

    def _compile(self, one: bool, hints: dict[Any, Any]) -> _Compiled:
        model = self._model
        if model is None:
            raise closed_error(self._path.name)
        if one and not self.spec.batch.is_static:
            model = model.clone()
            _, *sides = self.inputs[0].shape
            model.reshape({model.input(0): [1, *sides]})
        # OpenVINO's default is BF16 wherever the CPU has it, regardless of the file.
        settings = {**hints, ov_hints.inference_precision: ov.Type.f32}
        return _Compiled(_core().compile_model(model, "CPU", settings))


def _tensor_info(port: Any) -> TensorInfo:
    shape = tuple(side.get_length() if side.is_static else None for side in port.partial_shape)
    return TensorInfo(port.any_name, np.dtype(port.element_type.to_dtype()), shape)


class _Compiled:
    """A compiled model with its inference requests; a request serves one run at a time."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._names = [port.any_name for port in compiled.outputs]
        self._idle: list[ov.InferRequest] = []

    def run(self, feeds: Tensors) -> TimedRun:
        # Popping from a list is atomic for threads; a failed request is not used again.
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        start = time.perf_counter()
        request.infer(feeds, share_inputs=True, share_outputs=True)
        computed = time.perf_counter()
        # The request's next run overwrites its memory.
        outputs = {name: np.array(request.get_tensor(name).data) for name in self._names}
        end = time.perf_counter()
        self._idle.append(request)
        return TimedRun(outputs, 0.0, computed - start, end - computed)
