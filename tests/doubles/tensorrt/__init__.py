"""A test double of TensorRT: it builds nothing, records the calls that it gets, fails on demand.

The environment directs it: ``TENSORRT_DOUBLE`` names what happens (see the uses of ``_scenario``),
``TENSORRT_DOUBLE_VERSION`` is the release it claims to be, and ``TENSORRT_DOUBLE_LOG`` names the
file that every call is appended to, one JSON array a line. Its engines compute what
``tests.onnx_models`` does.
"""

# ruff: noqa: A002, N815 - the names are NVIDIA's

import ctypes
import enum
import json
import os
import signal
import time
from pathlib import Path

import numpy as np

__version__ = os.environ.get("TENSORRT_DOUBLE_VERSION", "10.16.1.11")
_MAJOR = int(__version__.partition(".")[0])
TIMINGS = b"timings of the double"


def _scenario() -> str:
    return os.environ.get("TENSORRT_DOUBLE", "")


def plan_for(sizes):
    """Return a plan; ``sizes`` are the smallest, the optimal and the largest batch."""
    return b"ftrt" + json.dumps(sizes).encode()


def _record(*call):
    log = os.environ.get("TENSORRT_DOUBLE_LOG")
    if log:
        with Path(log).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([str(each) for each in call]) + "\n")


def init_libnvinfer_plugins(logger, namespace):
    _record("init_libnvinfer_plugins", namespace)
    return True


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


class _Typed10(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class _Typed11(enum.IntEnum):
    STRONGLY_TYPED = 0


NetworkDefinitionCreationFlag = _Typed10 if _MAJOR < 11 else _Typed11
BuilderFlag = enum.Enum(
    "BuilderFlag",
    ["GPU_FALLBACK", "REFIT", "TF32", "VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT_IDENTICAL"],
)
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
HardwareCompatibilityLevel = enum.Enum(
    "HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"]
)


class IHostMemory(bytes):
    """TensorRT's own is a buffer; before Python 3.12, only built-in types can be buffers."""

    nbytes = property(len)


class ITimingCache:
    def __init__(self, content):
        self._content = content

    def serialize(self):
        return IHostMemory(TIMINGS)


class ParserError:
    def __init__(self, node, name, operator, text):
        self._node, self._name, self._operator, self._text = node, name, operator, text

    def node(self):
        return self._node

    def node_name(self):
        return self._name

    def node_operator(self):
        return self._operator

    def desc(self):
        return self._text


class ITensor:
    def __init__(self, name, shape):
        self.name, self.shape = name, shape


class INetworkDefinition:
    num_inputs = 1

    def get_input(self, index):
        first = 1 if _scenario() == "static" else -1
        return ITensor("images", (first, 128, 128, 3))


class IOptimizationProfile:
    def __init__(self):
        self._sizes = (1, 1, 1)

    def set_shape(self, input, min, opt, max):
        _record("set_shape", input, min, opt, max)
        self._sizes = (min[0], opt[0], max[0])


class IBuilderConfig:
    def __init__(self, logger):
        self._logger = logger
        self._cache = None
        self._sizes = (1, 1, 1)

    def __setattr__(self, name, value):
        if not name.startswith("_"):
            _record("config", name, type(value).__name__ if name == "progress_monitor" else value)
        super().__setattr__(name, value)

    def set_flag(self, flag):
        _record("set_flag", flag.name)

    def clear_flag(self, flag):
        _record("clear_flag", flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        _record("set_memory_pool_limit", pool.name, pool_size)

    def add_optimization_profile(self, profile):
        self._sizes = profile._sizes
        return -1 if _scenario() == "profile refused" else 0

    def create_timing_cache(self, serialized_timing_cache):
        content = bytes(serialized_timing_cache)
        _record("create_timing_cache", content.decode(errors="replace"))
        if content and content != TIMINGS:
            self._logger.log(
                ILogger.Severity.WARNING,
                "Failed to deserialize timing cache. Returning an empty one.",
            )
        return ITimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return not (cache._content and _scenario() == "timing cache of another GPU")

    def get_timing_cache(self):
        return self._cache


class Builder:
    num_DLA_cores = 0

    def __init__(self, logger):
        self._logger = logger
        if _scenario() == "no GPU":
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 100")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags=0):
        _record("create_network", flags)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        _record("build_serialized_network")
        return _OUTCOMES.get(_scenario(), _build)(self._logger, config)


class OnnxParser:
    def __init__(self, network, logger):
        self._errors = []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def parse_from_file(self, model):
        _record("parse_from_file", model)
        if _scenario() == "parser errors":
            self._errors = [
                ParserError(3, "head.nms", "NonMaxSuppression", "unsupported attribute"),
                ParserError(5, "", "Foo", "No importer\nregistered"),
            ]
        return not self._errors


def _build(logger, config):
    monitor = config.progress_monitor
    monitor.phase_start("Building engine", None, 3)
    for step in range(3):
        if not monitor.step_complete("Building engine", step):
            return None
    monitor.phase_finish("Building engine")
    return IHostMemory(plan_for(config._sizes))


def _endless(logger, config):
    """Go on until the progress monitor says stop, as a build that takes minutes does."""
    monitor = config.progress_monitor
    monitor.phase_start("Building engine", None, 1000)
    _record("started")
    for step in range(60_000):
        time.sleep(0.01)
        if not monitor.step_complete("Building engine", step):
            _record("stopped by the monitor")
            return None
    return IHostMemory(plan_for(config._sizes))


def _nothing(logger, config):
    logger.log(ILogger.Severity.ERROR, "Could not find any implementation for node stem.conv.")


def _out_of_memory(logger, config):
    logger.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 99 bytes.)")


def _signalled(number):
    def die(logger, config):
        os.kill(os.getpid(), number)
        time.sleep(60)

    return die


_OUTCOMES = {
    "endless": _endless,
    "returns None": _nothing,
    "out of memory": _out_of_memory,
    "killed": _signalled(signal.SIGKILL),
    "crash": _signalled(signal.SIGSEGV),
}


DataType = enum.Enum("DataType", ["FLOAT", "INT32", "UINT8"])
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])


def nptype(trt_type):
    return {"FLOAT": np.float32, "INT32": np.int32, "UINT8": np.uint8}[trt_type.name]


_TENSORS = {
    "images": (DataType.UINT8, (128, 128, 3)),
    "num_detections": (DataType.INT32, (1,)),
    "detection_boxes": (DataType.FLOAT, (4, 4)),
    "detection_scores": (DataType.FLOAT, (4,)),
    "detection_classes": (DataType.INT32, (4,)),
}


def queue(stream, work):
    """Do ``work`` on ``stream``; a test that has streams replaces this function."""
    work()


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        _record("deserialize_cuda_engine", self.engine_host_code_allowed)
        if _scenario() == "deserialise returns None":
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion failed.")
            return None
        return ICudaEngine(json.loads(bytes(serialized_engine)[4:]), self._logger)


class ICudaEngine:
    num_io_tensors = len(_TENSORS)

    def __init__(self, sizes, logger):
        self._sizes, self._logger = sizes, logger

    def get_tensor_name(self, index):
        return list(_TENSORS)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return _TENSORS[name][0]

    def get_tensor_shape(self, name):
        first = self._sizes[0] if self._sizes[0] == self._sizes[2] else -1
        return (first, *_TENSORS[name][1])

    def get_tensor_profile_shape(self, name, profile_index):
        return [(size, *_TENSORS[name][1]) for size in self._sizes]

    def create_execution_context(self):
        _record("create_execution_context")
        return None if _scenario() == "no memory for a context" else IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine):
        self._engine = engine
        self._batch = engine._sizes[0]
        self._addresses = {}

    def set_input_shape(self, name, shape):
        _record("set_input_shape", name, tuple(shape))
        smallest, _, largest = self._engine._sizes
        self._batch = shape[0]
        return smallest <= shape[0] <= largest and _scenario() != "shape refused"

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return _scenario() != "address refused"

    def get_tensor_shape(self, name):
        return (self._batch, *_TENSORS[name][1])

    def execute_async_v3(self, stream_handle):
        _record("execute_async_v3")
        if _scenario() == "enqueue returns False":
            self._engine._logger.log(ILogger.Severity.ERROR, "Cask convolution execution failed.")
            return False
        queue(stream_handle, self._compute)
        return True

    def _at(self, name):
        kind, sides = _TENSORS[name]
        shape, dtype = (self._batch, *sides), np.dtype(nptype(kind))
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)

    def _compute(self):
        from tests.onnx_models import BOXES, CLASSES, WEIGHTS

        mean = self._at("images").mean(axis=(1, 2, 3), dtype=np.float64) / 255
        self._at("num_detections")[:] = len(BOXES)
        self._at("detection_boxes")[:] = BOXES
        self._at("detection_scores")[:] = mean[:, None] * WEIGHTS
        self._at("detection_classes")[:] = CLASSES
