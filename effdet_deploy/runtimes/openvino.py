"""Running ONNX models with OpenVINO on the CPU, in the precision that the file states."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import openvino.properties as ov_properties
import openvino.properties.hint as ov_hints

from effdet_deploy.errors import DeviceError, ModelFileError, ResourceError, UnknownNameError
from effdet_deploy.runtimes.adapter import (
    TensorInfo,
    TimedRun,
    checked_feeds,
    closed_error,
    require_no_plugin,
    require_spec_fits,
)
from effdet_deploy.runtimes.modelfile import check_external_files, read_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.runtimes.adapter import Tensors
    from effdet_deploy.spec import DetectorSpec


def load(path: Path, *, device: str, threads: int | None, trust: bool) -> OpenVinoRuntime:  # noqa: ARG001
    """Load an ONNX model; see :func:`effdet_deploy.runtimes.load_runtime`."""
    spec = read_spec(path, "onnx")
    require_no_plugin(path, spec, "OpenVINO")
    check_external_files(path, spec)
    _require_cpu(device)
    settings: dict[Any, Any] = {
        ov_hints.performance_mode: ov_hints.PerformanceMode.LATENCY,
        # OpenVINO's default is BF16 wherever the CPU has it, whatever the file says.
        ov_hints.inference_precision: ov.Type.f32,
    }
    if threads is not None:
        settings[ov_properties.inference_num_threads] = threads
    with _translated_errors(path.name, "loaded"):
        compiled = ov.Core().compile_model(str(path), "CPU", settings)
    return OpenVinoRuntime(path, spec, compiled)


class OpenVinoRuntime:
    """A compiled model; see :class:`effdet_deploy.runtimes.adapter.Runtime`."""

    backend = "openvino"
    device = "cpu"

    def __init__(self, path: Path, spec: DetectorSpec, compiled: ov.CompiledModel) -> None:
        self.spec = spec
        self.inputs = tuple(_tensor_info(each) for each in compiled.inputs)
        self.outputs = tuple(_tensor_info(each) for each in compiled.outputs)
        self._name = path.name
        self._compiled: ov.CompiledModel | None = compiled
        # A request serves one run at a time; threads that run at once have one each.
        self._idle: list[ov.InferRequest] = []
        require_spec_fits(path, self)

    @property
    def precision(self) -> str:
        """What is computed in: FP16 files are computed in FP32."""
        return "int8" if self.spec.precision.kind == "int8" else "fp32"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the model; raises TensorError on unfit feeds and ResourceError without memory."""
        return self.run_timed(feeds).outputs

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as :meth:`run`; on the CPU the input is used where it stands."""
        compiled = self._compiled
        if compiled is None:
            raise closed_error(self._name)
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with _translated_errors(self._name, "run"), self._request(compiled) as request:
            start = time.perf_counter()
            request.infer(checked, share_inputs=True)
            computed = time.perf_counter()
            # The request's own memory is written again by its next run.
            outputs = {
                each.name: np.array(request.get_tensor(each.name).data) for each in self.outputs
            }
            end = time.perf_counter()
        return TimedRun(outputs, 0.0, computed - start, end - computed)

    def close(self) -> None:
        """Release the model; runs that are under way finish."""
        self._compiled = None
        self._idle = []

    @contextlib.contextmanager
    def _request(self, compiled: ov.CompiledModel) -> Iterator[ov.InferRequest]:
        idle = self._idle
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        yield request
        idle.append(request)


def _require_cpu(device: str) -> None:
    kind = device.partition(":")[0]
    if kind == "cuda":
        raise DeviceError(
            f"The device '{device}' was asked for, and OpenVINO runs on the CPU here.",
            "Use --device cpu, or --backend onnxruntime.",
        )
    if device not in ("auto", "cpu"):
        raise UnknownNameError("device", device, ("auto", "cpu"))


def _tensor_info(port: Any) -> TensorInfo:
    shape = tuple(side.get_length() if side.is_static else None for side in port.partial_shape)
    return TensorInfo(port.any_name, np.dtype(port.element_type.to_dtype()), shape)


@contextlib.contextmanager
def _translated_errors(name: str, doing: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ResourceError(
            f"The memory ran out while '{name}' was {doing}.",
            "Use a smaller batch or a smaller --image-size, or free some memory.",
        ) from error
    except RuntimeError as error:
        raise ModelFileError(
            f"'{name}' cannot be {doing} by OpenVINO {ov.__version__}: {_essence(str(error))}.",
            "Run it with --backend onnxruntime, or export it again.",
        ) from error


def _essence(text: str) -> str:
    """Return OpenVINO's last line, which holds the reason, without its C++ positions."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "src/" not in line and "Exception from" not in line]
    return (telling or lines or ["no reason given"])[-1][:300].rstrip(".")
