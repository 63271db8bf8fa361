"""Running ONNX models with ONNX Runtime, on the CPU or on CUDA."""

from __future__ import annotations

import contextlib
import platform
import re
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from effdet_deploy.artifact.modelfile import check_external_files, read_spec
from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.artifact.tensors import TensorInfo, checked_feeds
from effdet_deploy.errors import (
    DeviceError,
    EffdetDeployWarning,
    ModelFileError,
    ResourceError,
    UnknownNameError,
)
from effdet_deploy.files import sha256_file
from effdet_deploy.runtimes.adapter import (
    TimedRun,
    closed_error,
    require_no_plugin,
    require_spec_fits,
)
from effdet_deploy.runtimes.lanes import Lanes, images_in_cache, lane_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import Tensors

    _Provider = tuple[str, dict[str, str]]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_GPU_PROVIDERS = {"cuda": _CUDA, "tensorrt": "TensorrtExecutionProvider"}
_DEVICE = re.compile(r"auto|cpu|(cuda|tensorrt)(?::(\d+))?")
_KNOWN_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "tensorrt", "tensorrt:1")
_FATAL = 4
_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
}
_ORT_ERRORS = tuple(
    getattr(ort_errors, name)
    for name in (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
)
_OUT_OF_MEMORY = re.compile(
    r"\bOOM\b|bad_alloc|out of memory|ALLOC_FAILED|(failed|unable) to allocate"
    r"|(cannot|can't|could not) allocate|smaller than requested bytes",
    re.IGNORECASE,
)
_UPGRADE = "Upgrade it with: pip install -U onnxruntime; or export with a lower --opset."
_CUSTOM = "Export the model without custom operators, or run it on the engine it was made for."
# What ONNX Runtime says, what that means to a user, and what to do about it.
_LOAD_MESSAGES = (
    (
        re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
        "it has IR version {0}, and this onnxruntime reads up to {1}",
        _UPGRADE,
    ),
    (
        re.compile(r"[Oo]pset (\d+) is under development.*?till opset (\d+)", re.DOTALL),
        "it has opset {0}, and this onnxruntime knows up to {1}",
        _UPGRADE,
    ),
    (
        re.compile(r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op"),
        "its operator '{0}' is unknown to onnxruntime",
        _CUSTOM,
    ),
    (
        re.compile(r"No Op registered for (\S+) with domain_version of (\d+)"),
        "its operator '{0}' does not exist in opset {1}",
        _CUSTOM,
    ),
    (
        re.compile(r"Could not find an implementation for (\S+?)\(\d+\) node with name '(.*?)'"),
        "onnxruntime has no implementation of the operator '{0}' (node '{1}') on this device",
        _CUSTOM,
    ),
    (
        re.compile(
            r"External data path validation failed.*?(escapes|Absolute|does not exist)", re.DOTALL
        ),
        "its external data file is not a plain file in its own directory ({0})",
        "Get the model from a source you trust, with its data file beside it.",
    ),
    (
        re.compile(r"External initializer: (\S+).*?given file_length: (\d+)", re.DOTALL),
        "its external data file of {1} bytes is too short for the tensor '{0}'",
        "Copy the model and its data file again, together.",
    ),
)


def load(path: Path, *, device: str, threads: int | None, trust: bool) -> OnnxRuntime:  # noqa: ARG001
    """Load an ONNX model; see :func:`effdet_deploy.runtimes.load_runtime`."""
    spec = read_spec(path, "onnx")
    require_no_plugin(path, spec, "ONNX Runtime")
    check_external_files(path, spec)
    return OnnxRuntime(path, spec, _create_session(path, device, threads), threads)


class OnnxRuntime:
    """A session of ONNX Runtime; see :class:`effdet_deploy.runtimes.adapter.Runtime`."""

    backend = "onnxruntime"

    def __init__(
        self,
        path: Path,
        spec: DetectorSpec,
        session: ort.InferenceSession,
        threads: int | None = None,
    ) -> None:
        self.spec = spec
        self.inputs = tuple(_tensor_info(each) for each in session.get_inputs())
        self.outputs = tuple(_tensor_info(each) for each in session.get_outputs())
        self.device = _device_of(session)
        self._name = path.name
        self._session: ort.InferenceSession | None = session
        require_spec_fits(path, self)
        self._names = [each.name for each in self.outputs]
        lanes = threads if self.device == "cpu" else 1
        self._lanes = _create_lanes(path, spec, lanes, self._names)

    @property
    def precision(self) -> str:
        """What is computed in: an x86 CPU has no FP16 kernels and computes FP16 files in FP32."""
        kind = self.spec.precision.kind
        emulated = self.device == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
        return "fp32" if emulated and kind == "fp16" else kind

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the model; raises TensorError on unfit feeds and ResourceError without memory."""
        session = self._open_session()
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with _translated_run_errors(self._name):
            return _run(session, self._names, checked)

    def divides(self, batch: int) -> bool:
        """Say whether :meth:`run_side_by_side` divides such a batch."""
        return self._lanes.pays(batch)

    def run_side_by_side(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as :meth:`run`, the images of a batch side by side where every CPU has one."""
        session = self._open_session()
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with _translated_run_errors(self._name):
            if self.divides(len(checked[INPUT_NAME])):
                return self._lanes.run(checked, images_in_cache(self.spec))
            return _run(session, self._names, checked)

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as :meth:`run`, timing the copies; on the CPU nothing is copied."""
        session = self._open_session()
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        if self.device == "cpu":
            with _translated_run_errors(self._name):
                start = time.perf_counter()
                outputs = _run(session, self._names, checked)
                took = time.perf_counter() - start
            return TimedRun(outputs, 0.0, took, 0.0)
        with _translated_run_errors(self._name):
            return self._run_bound(session, checked)

    def _run_bound(self, session: ort.InferenceSession, feeds: Tensors) -> TimedRun:
        kind, _, index = self.device.partition(":")
        # TensorRT's provider computes in the memory of CUDA.
        place = ("cuda" if kind == "tensorrt" else kind, int(index or 0))
        binding = session.io_binding()
        start = time.perf_counter()
        for name, array in feeds.items():
            on_gpu = ort.OrtValue.ortvalue_from_numpy(array, *place)
            binding.bind_ortvalue_input(name, on_gpu)
        for each in self.outputs:
            binding.bind_output(each.name, *place)
        binding.synchronize_inputs()
        copied = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        computed = time.perf_counter()
        values = binding.copy_outputs_to_cpu()
        end = time.perf_counter()
        outputs = dict(zip([each.name for each in self.outputs], values, strict=True))
        return TimedRun(outputs, copied - start, computed - copied, end - computed)

    def close(self) -> None:
        """Release the session; runs that are under way finish."""
        self._session = None
        self._lanes.close()

    def _open_session(self) -> ort.InferenceSession:
        session = self._session
        if session is None:
            raise closed_error(self._name)
        return session


def _run(session: ort.InferenceSession, names: Sequence[str], feeds: Tensors) -> Tensors:
    return dict(zip(names, session.run(list(names), feeds), strict=True))


def _create_lanes(
    path: Path, spec: DetectorSpec, threads: int | None, names: Sequence[str]
) -> Lanes:
    """Return what shares a batch among threads.

    It keeps the graph as it is now: the file may be another one when the first batch comes. A graph
    with external data is more than its file, and stays with one thread.
    """
    count = 1 if spec.external_files else lane_count(threads, spec)
    graph = path.read_bytes() if count > 1 else b""

    def create() -> Callable[[Tensors], Tensors]:
        session = ort.InferenceSession(graph, _settings(1), providers=[_CPU])
        return partial(_run, session, names)

    return Lanes(path.name, count, create)


def _create_session(path: Path, device: str, threads: int | None) -> ort.InferenceSession:
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise UnknownNameError("device", device, _KNOWN_DEVICES)
    wanted = _GPU_PROVIDERS[match.group(1) or "cuda"]
    present = wanted in ort.get_available_providers()
    if device == "cpu" or (device == "auto" and not present):
        return _session_on(path, _CPU, [], threads)
    if not present:
        raise DeviceError(
            f"The device '{device}' was asked for, but this onnxruntime offers only "
            f"{', '.join(ort.get_available_providers())}.",
            "Use --device cpu, or swap the package: pip uninstall onnxruntime; "
            "pip install onnxruntime-gpu.",
        )
    try:
        providers = _gpu_providers(path, wanted, match.group(2) or "0")
        return _session_on(path, wanted, providers, threads)
    except DeviceError as error:
        if device != "auto":
            raise
        warnings.warn(f"{error.cause} The CPU is used.", EffdetDeployWarning, stacklevel=4)
        return _session_on(path, _CPU, [], threads)


def _gpu_providers(path: Path, wanted: str, index: str) -> list[_Provider]:
    """TensorRT keeps its engines beside the model; CUDA computes what TensorRT leaves.

    The name of their folder holds the model's hash: TensorRT's provider tells engines apart by
    names and shapes, and would take that of a model with other weights.
    """
    # FP32 is FP32: its default is TF32, with 10 bits of mantissa.
    cuda: _Provider = (_CUDA, {"device_id": index, "use_tf32": "0"})
    if wanted == _CUDA:
        return [cuda]
    options = {
        "device_id": index,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(_engine_folder(path).resolve()),
    }
    return [(wanted, options), cuda]


def _engine_folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.{sha256_file(path)[:12]}.trt-cache")


def _session_on(
    path: Path, provider: str, providers: list[_Provider], threads: int | None
) -> ort.InferenceSession:
    with _translated_load_errors(path, provider):
        session = ort.InferenceSession(
            str(path), _settings(threads), providers=providers or [(_CPU, {})], enable_fallback=0
        )
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise DeviceError(
            f"onnxruntime could not start {provider} and offers {session.get_providers()[0]}.",
            "Run 'effdet-deploy doctor', or use --device cpu.",
        )
    return session


def _settings(threads: int | None) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    # What goes wrong is raised; its log on stderr would only repeat it in ONNX Runtime's words.
    settings.log_severity_level = _FATAL
    # Looking for a tensor of the same shape whose memory is free compares all tensors with all
    # others, which is much of the time to load. Runs are as fast without, in the same memory.
    settings.enable_mem_reuse = False
    if threads is not None:
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
    return settings


def _device_of(session: ort.InferenceSession) -> str:
    provider = session.get_providers()[0]
    if provider == _CPU:
        return "cpu"
    options = session.get_provider_options().get(provider, {})
    kind = next(kind for kind, known in _GPU_PROVIDERS.items() if known == provider)
    return f"{kind}:{options.get('device_id', '0')}"


def _tensor_info(node: Any) -> TensorInfo:
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)
    return TensorInfo(node.name, np.dtype(_DTYPES.get(node.type, np.object_)), shape)


@contextlib.contextmanager
def _translated_load_errors(path: Path, provider: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(path.name, "loaded") from error
    except (*_ORT_ERRORS, ValueError, RuntimeError) as error:
        text = str(error)
        for pattern, cause, remedy in _LOAD_MESSAGES:
            if match := pattern.search(text):
                reason = cause.format(*match.groups())
                raise ModelFileError(f"'{path}' cannot be loaded: {reason}.", remedy) from error
        if _OUT_OF_MEMORY.search(text.replace(str(path), "")):
            raise _out_of_memory(path.name, "loaded") from error
        if provider != _CPU and re.search("CUDA|TensorRT", text):
            raise DeviceError(
                f"onnxruntime could not start {provider}: {_essence(text)}.",
                "Run 'effdet-deploy doctor', or use --device cpu.",
            ) from error
        raise ModelFileError(
            f"'{path}' cannot be loaded by onnxruntime: {_essence(text)}.",
            "Get the file again or export it again.",
        ) from error


@contextlib.contextmanager
def _translated_run_errors(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(name, "run") from error
    except (*_ORT_ERRORS, RuntimeError) as error:
        text = str(error)
        if _OUT_OF_MEMORY.search(text):
            raise _out_of_memory(name, "run") from error
        raise ModelFileError(
            f"onnxruntime failed while running '{name}': {_essence(text)}.",
            "Export the model again; if that does not help, report it with the model.",
        ) from error


def _out_of_memory(name: str, doing: str) -> ResourceError:
    return ResourceError(
        f"The memory ran out while '{name}' was {doing}.",
        "Use a smaller batch or a smaller --image-size, or free some memory.",
    )


def _essence(text: str) -> str:
    """Return ONNX Runtime's message without its code prefix and its C++ source positions."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/\S+\.(?:cc|h|cpp):\d+ .*?\) (?=\S)", "", text)
    return " ".join(text.split())[:300].rstrip(".")
