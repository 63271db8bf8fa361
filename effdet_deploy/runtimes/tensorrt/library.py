"""NVIDIA's Python modules, which go by different names, and the logger they are given."""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
"""Backend → the module to import."""
NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""Backend → its name in messages."""
OUT_OF_MEMORY = re.compile(
    r"OutOfMemory|out of memory|bad_alloc|cudaErrorMemoryAllocation|insufficient memory"
    r"|insufficient workspace|MEM_ALLOC",
    re.IGNORECASE,
)
"""What TensorRT says where memory was too small; an illegal access to it is another matter."""
_MESSAGES_KEPT = 12
_POSITION = re.compile(r"^\[[^\]]*::\d+\] |(?:\w+::)+\w+: |Error Code \d+: | In \w+ at /\S+:\d+")
_LOG = logging.getLogger(__name__)


def import_library(backend: str) -> Any:
    """Import the module of ``backend``; raises ImportError."""
    return importlib.import_module(MODULES[backend])


@dataclass(frozen=True)
class Log:
    """TensorRT's logger, and the last errors and warnings it was given."""

    logger: tensorrt.ILogger
    errors: list[str]
    warnings: list[str]


def create_log(trt: Any) -> Log:
    """Return a logger that collects messages instead of printing them."""
    errors: list[str] = []
    warnings: list[str] = []
    severe = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in severe:
                errors.append(msg)
                del errors[:-_MESSAGES_KEPT]
            elif severity == trt.ILogger.Severity.WARNING:
                warnings.append(msg)
                del warnings[:-_MESSAGES_KEPT]
            _LOG.debug("%s: %s", severity, msg)

    return Log(Logger(), errors, warnings)


def register_plugins(trt: Any, log: Log) -> None:
    """Make the plugins that come with TensorRT known to its parser and its runtime.

    TensorRT-RTX has none. Where the library does not load, a model that needs a plugin is refused
    with its node, and any other does without.
    """
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log.logger, "")


def essence(messages: list[str]) -> str:
    """Return what TensorRT said as one line, without its C++ source positions."""
    return "; ".join(_clean(each) for each in messages)


def _clean(message: str) -> str:
    text = _POSITION.sub("", " ".join(message.split()))
    return text.strip().rstrip(".")[:400]
