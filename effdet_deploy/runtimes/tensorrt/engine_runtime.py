"""Running engines of TensorRT 10.x, 11.x and TensorRT-RTX on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.tensors import TensorInfo, checked_feeds
from effdet_deploy.errors import (
    DeviceError,
    EffdetDeployError,
    ModelFileError,
    UnknownDeviceError,
    import_failure,
)
from effdet_deploy.runtimes.adapter import closed_error
from effdet_deploy.runtimes.gpu import list_gpus
from effdet_deploy.runtimes.tensorrt.cuda import open_cuda
from effdet_deploy.runtimes.tensorrt.execution_context import ExecutionContext
from effdet_deploy.runtimes.tensorrt.library import (
    NAMES,
    create_log,
    import_library,
    register_plugins,
)
from effdet_deploy.runtimes.tensorrt.trust import (
    require_runnable,
    spec_without_sidecar,
    trusted_spec,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import tensorrt
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import Tensors
    from effdet_deploy.runtimes.adapter import TimedRun
    from effdet_deploy.runtimes.tensorrt.cuda import Cuda
    from effdet_deploy.runtimes.tensorrt.library import Log

_DEVICE = re.compile(r"auto|cuda(?::(\d+))?")
_RTX_MAGIC = b"vtrt"
"""The first bytes of an engine of TensorRT-RTX."""


def load(path: Path, *, device: str, threads: int | None, trust: bool) -> TensorRtRuntime:  # noqa: ARG001
    """Load an engine; see :func:`effdet_deploy.runtimes.load_runtime`.

    The engine is checked against its sidecar (SHA-256, release of TensorRT, GPU) before TensorRT
    sees it. ``threads`` does not apply to a GPU.
    """
    plan = path.read_bytes()
    return _open(path, plan, trusted_spec(path, plan, trust=trust), device)


def open_engine(path: Path, spec: DetectorSpec, device: str = "auto") -> TensorRtRuntime:
    """Load an engine that was just built and has no sidecar yet."""
    return _open(path, path.read_bytes(), spec, device)


def _open(path: Path, plan: bytes, spec: DetectorSpec | None, device: str) -> TensorRtRuntime:
    gpus = list_gpus()
    index = _device_index(device, len(gpus))
    built = spec.engine if spec is not None else None
    backend = built.backend if built else "tensorrt-rtx" if plan[:4] == _RTX_MAGIC else "tensorrt"
    try:
        trt = import_library(backend)
    except ImportError as error:
        package = "tensorrt" if backend == "tensorrt" else "tensorrt-rtx-cu12-bindings"
        raise import_failure(error, package, NAMES[backend], backend) from error
    if built is not None:
        require_runnable(path, built, trt.__version__, gpus[index])
    cuda = open_cuda(index)
    log = create_log(trt)
    with cuda.current():
        runtime: tensorrt.Runtime | None = None
        engine: tensorrt.ICudaEngine | None = None
        # The bindings raise TypeError where a C++ factory returns nullptr.
        with contextlib.suppress(TypeError, RuntimeError):
            runtime = trt.Runtime(log.logger)
        if runtime is not None:
            register_plugins(trt, log)
            # A version-compatible engine contains the code of its own runtime.
            brings_code = built is not None and "version-compatible" in built.traits
            runtime.engine_host_code_allowed = brings_code
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise ModelFileError(
                f"TensorRT {trt.__version__} could not load '{path}': {log.take_reason()}.",
                "Build the engine again from its ONNX file, on this machine.",
            )
        return TensorRtRuntime(path.name, trt, engine, spec, cuda, index, log)


def _device_index(device: str, count: int) -> int:
    """Return the number of the GPU that ``device`` names; engines run on GPUs only."""
    if device == "cpu":
        raise DeviceError(
            "A TensorRT engine runs only on an NVIDIA GPU, but --device cpu was given.",
            "To use the CPU, run the ONNX file from which the engine was built.",
        )
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise UnknownDeviceError(device, ("auto", "cuda", "cuda:1"))
    index = int(match.group(1) or 0)
    if index >= count:
        raise DeviceError(
            f"The device '{device}' was asked for, but the NVIDIA driver reports {count} GPUs.",
            "Run 'effdet-deploy doctor', or run the ONNX file on the CPU.",
        )
    return index


class TensorRtRuntime:
    """A loaded engine; see :class:`effdet_deploy.runtimes.adapter.Runtime`.

    Several threads may run the engine at once: a run takes an execution context that no other
    thread is using, or creates one.

    Args:
        name: the file's name, for messages.
        trt: the module ``tensorrt`` or the one of TensorRT-RTX.
        engine: the deserialized engine.
        spec: the engine's spec; if it is None, a spec is derived from the engine's tensors.
        cuda: the device.
        index: the number of the device.
        log: the logger that TensorRT writes to.
    """

    def __init__(
        self,
        name: str,
        trt: Any,
        engine: tensorrt.ICudaEngine,
        spec: DetectorSpec | None,
        cuda: Cuda,
        index: int,
        log: Log,
    ) -> None:
        self._name, self._cuda, self._log = name, cuda, log
        self._engine: tensorrt.ICudaEngine | None = engine
        names = [engine.get_tensor_name(each) for each in range(engine.num_io_tensors)]
        is_input = [engine.get_tensor_mode(each) == trt.TensorIOMode.INPUT for each in names]
        infos = [_tensor_info(trt, engine, each) for each in names]
        self.inputs = tuple(each for each, given in zip(infos, is_input, strict=True) if given)
        self.outputs = tuple(each for each, given in zip(infos, is_input, strict=True) if not given)
        profile = [tuple(each) for each in engine.get_tensor_profile_shape(self.inputs[0].name, 0)]
        self.spec = spec or spec_without_sidecar(name, self.inputs, self.outputs, profile)
        self.device = f"cuda:{index}"
        self.backend = self.spec.engine.backend if self.spec.engine else "tensorrt"
        _check_against_spec(self, profile)
        self._lock = threading.Lock()
        self._idle: list[ExecutionContext] = []
        with cuda.current():
            # The first context is made now, so that too little memory shows before the first run.
            self._idle.append(self._new_context(engine))

    @property
    def precision(self) -> str:
        """The precision of the computation: the one that the spec states."""
        return self.spec.precision.kind

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the engine; raises TensorError, ModelFileError, DeviceError or ResourceError."""
        with self._ready(feeds) as (context, checked):
            return context.run(checked)

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as :meth:`run`, timing the copies."""
        with self._ready(feeds) as (context, checked):
            return context.run_timed(checked)

    def close(self) -> None:
        """Release the engine; runs that are under way finish first."""
        with self._lock:
            idle, self._idle, self._engine = self._idle, [], None
        if idle:
            with self._cuda.current():
                for each in idle:
                    each.close()

    @contextlib.contextmanager
    def _ready(
        self, feeds: Mapping[str, NDArray[Any]]
    ) -> Iterator[tuple[ExecutionContext, Tensors]]:
        """Yield an execution context that no other run uses, and the checked feeds."""
        with self._lock:
            engine = self._engine
            if engine is None:
                raise closed_error(self._name)
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with self._cuda.current():
            with self._lock:
                context = self._idle.pop() if self._idle else None
            context = context or self._new_context(engine)
            try:
                yield context, checked
            except BaseException:
                # After a failure the state of the context's stream and buffers is unknown. Freeing
                # them may fail too, but the error to report is the one that came before.
                with contextlib.suppress(EffdetDeployError):
                    context.close()
                raise
            with self._lock:
                if self._engine is not None:
                    self._idle.append(context)
                    return
            context.close()

    def _new_context(self, engine: tensorrt.ICudaEngine) -> ExecutionContext:
        most = self.spec.batch.maximum
        return ExecutionContext(engine, self._cuda, self._log, self.inputs, self.outputs, most)


def _tensor_info(trt: Any, engine: tensorrt.ICudaEngine, name: str) -> TensorInfo:
    """Describe a tensor of the engine.

    Raises:
        ModelFileError: numpy lacks its type, such as BF16 or FP8.
    """
    shape = tuple(None if side < 0 else int(side) for side in engine.get_tensor_shape(name))
    kind = engine.get_tensor_dtype(name)
    try:
        dtype = np.dtype(trt.nptype(kind))
    except TypeError as error:
        raise ModelFileError(
            f"The engine's tensor '{name}' is {kind}, which numpy cannot hold.",
            "Build the engine from an ONNX file that effdet-deploy exported.",
        ) from error
    return TensorInfo(name, dtype, shape)


def _check_against_spec(runtime: TensorRtRuntime, profile: list[tuple[int, ...]]) -> None:
    """Check the engine's tensors and batch range against the spec."""
    spec = runtime.spec
    name = NAMES.get(runtime.backend, runtime.backend)
    wanted = [spec.input.shape(size) for size in (spec.batch.minimum, spec.batch.maximum)]
    # A network without an open dimension has no profile of its own.
    found = [profile[0], profile[-1]] if profile else wanted
    missing = set(spec.output.names) - {each.name for each in runtime.outputs}
    open_sides = [each for each in runtime.outputs if None in each.shape[1:]]
    if len(runtime.inputs) != 1 or found != wanted or missing or open_sides:
        have = ", ".join(map(str, (*runtime.inputs, *runtime.outputs)))
        ranges = " to ".join(map(str, found)), " to ".join(map(str, wanted))
        raise ModelFileError(
            f"The {name} engine does not fit its spec: the engine has {have} with the profile "
            f"{ranges[0]}, but the spec describes the input {ranges[1]} and the outputs "
            f"{', '.join(spec.output.names)}.",
            "Build the engine again; its spec belongs to another file.",
        )
