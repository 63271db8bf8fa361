"""Import of NVIDIA's Python modules, which have different names, and the logger for them."""

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
_MESSAGES_KEPT = 12
"""How many of the last errors, and of the last warnings, are kept."""
_POSITION = re.compile(r"^\[[^\]]*::\d+\] |(?:\w+::)+\w+: |Error Code \d+: | In \w+ at /\S+:\d+")
_LOG = logging.getLogger(__name__)


def import_library(backend: str) -> Any:
    """Import the module of ``backend``; raises ImportError."""
    return importlib.import_module(MODULES[backend])


@dataclass(frozen=True)
class Log:
    """The last errors and warnings of TensorRT's logger."""

    logger: tensorrt.ILogger
    errors: list[str]
    warnings: list[str]

    def take_reason(self) -> str:
        """Return the errors as one line and clear them."""
        said = essence(self.errors)
        self.errors.clear()
        return said or "it gave no reason"


def create_log(trt: Any) -> Log:
    """Return a logger that collects messages instead of printing them."""
    errors: list[str] = []
    warnings: list[str] = []
    kept = {
        trt.ILogger.Severity.INTERNAL_ERROR: errors,
        trt.ILogger.Severity.ERROR: errors,
        trt.ILogger.Severity.WARNING: warnings,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in kept:
                kept[severity].append(msg)
                del kept[severity][:-_MESSAGES_KEPT]
            _LOG.debug("%s: %s", severity, msg)

    return Log(Logger(), errors, warnings)


def register_plugins(trt: Any, log: Log) -> None:
    """Make TensorRT's own plugins known to its parser and runtime.

    TensorRT-RTX has no plugins. If the plugin library does not load, a model that needs a plugin is
    refused with the name of its node, and other models work.
    """
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log.logger, "")


def essence(messages: list[str]) -> str:
    """Return TensorRT's messages as one line, without C++ source positions."""
    lines = (_POSITION.sub("", " ".join(each.split())) for each in messages)
    return "; ".join(line.strip().rstrip(".")[:400] for line in lines)
