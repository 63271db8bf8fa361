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
    UnknownDeviceError,
)
from effdet_deploy.files import sha256_file
from effdet_deploy.runtimes.adapter import (
    TimedRun,
    closed_error,
    require_no_plugin,
    require_spec_fits,
)
from effdet_deploy.runtimes.lanes import Lanes, images_in_cache, lane_count
from effdet_deploy.runtimes.runtime_errors import LONGEST, failed_run, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import Tensors
    from effdet_deploy.errors import EffdetDeployError

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_GPU_PROVIDERS = {"cuda": _CUDA, "tensorrt": "TensorrtExecutionProvider"}
_DEVICE = re.compile(r"auto|cpu|(cuda|tensorrt)(?::(\d+))?")
_KNOWN_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "tensorrt", "tensorrt:1")
_FATAL = 4
# ONNX Runtime's exceptions have no common base class but Exception.
_RAISED: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        each
        for each in vars(ort_errors).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ),
)
_UPGRADE = "Upgrade it with: pip install -U onnxruntime; or export with a lower --opset."
_CUSTOM = "Export the model without custom operators, or run it in the runtime it was made for."
# ONNX Runtime's message, its meaning for the user, and the remedy.
_LOAD_MESSAGES = (
    (
        re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
        "it has IR version {0}, but this onnxruntime reads only up to {1}",
        _UPGRADE,
    ),
    (
        re.compile(r"[Oo]pset (\d+) is under development.*?till opset (\d+)", re.DOTALL),
        "it has opset {0}, but this onnxruntime knows only up to {1}",
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
        "its external data file is not a plain file beside the model (onnxruntime says: {0})",
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
    chosen = _chosen_device(device)
    try:
        session = _create_session(path, chosen, _settings(threads, spec))
    except DeviceError as error:
        if device != "auto":
            raise
        warnings.warn(f"{error.cause} The CPU is used.", EffdetDeployWarning, stacklevel=3)
        chosen = "cpu"
        session = _create_session(path, chosen, _settings(threads, spec))
    return OnnxRuntime(path, spec, session, chosen, threads)


def _chosen_device(asked: str) -> str:
    """Return ``cpu`` or a GPU with its number; ``auto`` is CUDA if this onnxruntime has it."""
    match = _DEVICE.fullmatch(asked)
    if match is None:
        raise UnknownDeviceError(asked, _KNOWN_DEVICES)
    kind = match.group(1) or "cuda"
    present = _GPU_PROVIDERS[kind] in ort.get_available_providers()
    if asked == "cpu" or (asked == "auto" and not present):
        return "cpu"
    if not present:
        raise DeviceError(
            f"The device '{asked}' was asked for, but this onnxruntime offers only "
            f"{', '.join(ort.get_available_providers())}.",
            "Use --device cpu, or swap the package: pip uninstall onnxruntime; "
            "pip install onnxruntime-gpu.",
        )
    return f"{kind}:{match.group(2) or 0}"


def _create_session(path: Path, device: str, settings: ort.SessionOptions) -> ort.InferenceSession:
    """Open the file on ``device`` only, without falling back to another device.

    Raises:
        DeviceError: the device does not start.
        ModelFileError: ONNX Runtime refuses the file.
        ResourceError: memory ran out.
    """
    kind, _, index = device.partition(":")
    provider = _GPU_PROVIDERS.get(kind, _CPU)
    options: dict[str, dict[str, str]] = {provider: {}}
    if kind == "tensorrt":
        # TensorRT's provider finds a cached engine by names and shapes, and would use the engine
        # of a model with other weights: therefore the folder's name contains the model's hash.
        cache = path.with_name(f"{path.name}.{sha256_file(path)[:12]}.trt-cache")
        options[provider] = {
            "device_id": index,
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache.resolve()),
        }
    if kind != "cpu":
        # CUDA's provider computes the nodes that TensorRT's does not take. By default it computes
        # FP32 in TF32, with 10 bits of mantissa, so TF32 is switched off.
        options[_CUDA] = {"device_id": index, "use_tf32": "0"}
    with translated(path, "loaded", (*_RAISED, ValueError), partial(_refused, path, provider)):
        session = ort.InferenceSession(
            str(path), settings, providers=list(options.items()), enable_fallback=0
        )
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise DeviceError(
            f"onnxruntime could not start {provider}, only {session.get_providers()[0]}.",
            "Run 'effdet-deploy doctor', or use --device cpu.",
        )
    return session


def _settings(threads: int | None, spec: DetectorSpec) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    # Errors are raised; the log on stderr would only repeat them in ONNX Runtime's words.
    settings.log_severity_level = _FATAL
    # To reuse memory, ONNX Runtime compares all tensors with all others, which takes much of the
    # loading time. Without reuse, runs are as fast and need no more memory.
    settings.enable_mem_reuse = False
    if spec.precision.kind == "int8" and spec.precision.target != "onnxruntime":
        # A file that is laid out for another runtime is computed in float: INT8 kernels are slower
        # for this layout than float kernels, and saturate on processors without VNNI.
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
    return settings


def _refused(path: Path, provider: str, text: str) -> EffdetDeployError:
    """Return the error for a file that ONNX Runtime does not load on ``provider``."""
    for pattern, cause, remedy in _LOAD_MESSAGES:
        if match := pattern.search(text):
            return ModelFileError(
                f"'{path}' cannot be loaded: {cause.format(*match.groups())}.", remedy
            )
    if provider != _CPU and re.search("CUDA|TensorRT", text):
        return DeviceError(
            f"onnxruntime could not start {provider}: {_essence(text)}.",
            "Run 'effdet-deploy doctor', or use --device cpu.",
        )
    return ModelFileError(
        f"'{path}' cannot be loaded by onnxruntime: {_essence(text)}.",
        "Get the file again or export it again.",
    )


def _essence(text: str) -> str:
    """Return ONNX Runtime's message without its code prefix and C++ source positions."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/\S+\.(?:cc|h|cpp):\d+ .*?\) (?=\S)", "", text)
    return " ".join(text.split())[:LONGEST].rstrip(".")


class OnnxRuntime:
    """A session of ONNX Runtime; see :class:`effdet_deploy.runtimes.adapter.Runtime`."""

    backend = "onnxruntime"

    def __init__(
        self,
        path: Path,
        spec: DetectorSpec,
        session: ort.InferenceSession,
        device: str,
        threads: int | None,
    ) -> None:
        self.spec = spec
        self.inputs = tuple(_tensor_info(each) for each in session.get_inputs())
        self.outputs = tuple(_tensor_info(each) for each in session.get_outputs())
        self.device = device
        self._path = path
        self._session: ort.InferenceSession | None = session
        require_spec_fits(path, self)
        # Lanes, the threads that compute images side by side, have a session of their own. It is
        # made from the bytes of one file, so a graph with external data has no lanes.
        on_cpu = device == "cpu" and not spec.external_files
        count = lane_count(threads, spec) if on_cpu else 1
        loaded = _identity(path)

        def create() -> Callable[[Tensors], Tensors]:
            graph = path.read_bytes() if _identity(path) == loaded else None
            # If the file was replaced before the first images came, the loaded session runs them.
            if graph is None or _identity(path) != loaded:
                return partial(_run, session, self.outputs)
            alone = ort.InferenceSession(graph, _settings(1, spec), providers=[_CPU])
            return partial(_run, alone, self.outputs)

        self.lanes = Lanes(path.name, count, create, images_in_cache(spec))

    @property
    def precision(self) -> str:
        """The precision of the computation: an x86 CPU computes FP16 files in FP32."""
        kind = self.spec.precision.kind
        emulated = self.device == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
        return "fp32" if emulated and kind == "fp16" else kind

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the model; raises TensorError on unfit feeds and ResourceError without memory."""
        with self._ready(feeds) as (session, checked):
            return _run(session, self.outputs, checked)

    def divides(self, batch: int) -> bool:
        """Return whether :meth:`run_side_by_side` divides a batch of this size."""
        return self.lanes.pays(batch)

    def run_side_by_side(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as :meth:`run`, but side by side if there is an image for every thread."""
        with self._ready(feeds) as (session, checked):
            if self.divides(len(checked[INPUT_NAME])):
                return self.lanes.run(checked)
            return _run(session, self.outputs, checked)

    def run_on_one_thread(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as :meth:`run`, on the calling thread; several threads may do this at once."""
        with self._ready(feeds) as (_, checked):
            return self.lanes.run_here(checked)

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as :meth:`run` and time the copies; on the CPU nothing is copied."""
        with self._ready(feeds) as (session, checked):
            if self.device != "cpu":
                return self._run_bound(session, checked)
            start = time.perf_counter()
            outputs = _run(session, self.outputs, checked)
            return TimedRun(outputs, 0.0, time.perf_counter() - start, 0.0)

    def _run_bound(self, session: ort.InferenceSession, feeds: Tensors) -> TimedRun:
        kind, _, index = self.device.partition(":")
        # TensorRT's provider computes in CUDA's memory.
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
        """Release the session; runs that are under way finish first."""
        self._session = None
        self.lanes.close()

    @contextlib.contextmanager
    def _ready(
        self, feeds: Mapping[str, NDArray[Any]]
    ) -> Iterator[tuple[ort.InferenceSession, Tensors]]:
        session, path = self._session, self._path
        if session is None:
            raise closed_error(path.name)
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with translated(
            path, "run", _RAISED, lambda text: failed_run("onnxruntime", path, _essence(text))
        ):
            yield session, checked


def _identity(path: Path) -> tuple[int, ...]:
    """Return values that change if the file is replaced; zeros if there is no file."""
    try:
        state = path.stat()
    except OSError:
        return (0,)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _run(session: ort.InferenceSession, outputs: Sequence[TensorInfo], feeds: Tensors) -> Tensors:
    names = [each.name for each in outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _tensor_info(node: Any) -> TensorInfo:
    """Describe an input or output; types that numpy lacks become object."""
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    known = np.sctypeDict.get("float32" if kind == "float" else kind, np.object_)
    return TensorInfo(node.name, np.dtype(known), shape)
